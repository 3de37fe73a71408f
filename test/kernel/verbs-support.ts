/** Two ends of a reliable connection between the rig's soft-RoCE devices, in one process. */
import { execFileSync } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { Memfd, type Mapping } from '../../lib/kernel/index.js'
import {
  type CompletionQueue,
  MemoryAccess,
  type MemoryRegion,
  type ProtectionDomain,
  type QueuePair,
  type QueuePairOptions,
  ReceiveBatch,
  SendBatch,
  SendFlag,
  type SenderOptions,
  type PeerOptions,
  VerbsDevice,
  WorkCompletions,
  wcStatusName,
} from '../../lib/kernel/verbs/index.js'

export const REMOTE =
  MemoryAccess.LOCAL_WRITE |
  MemoryAccess.REMOTE_WRITE |
  MemoryAccess.REMOTE_READ |
  MemoryAccess.REMOTE_ATOMIC |
  MemoryAccess.MW_BIND

/** Where the ends have their memory: not where the CPU has it. */
export const IOVA = 0x10_0000_0000

/** Objects that the kernel counts for each RDMA device, of all processes, as text. */
export function rdmaResources(): string {
  return execFileSync('rdma', ['-j', 'resource', 'show'], { encoding: 'utf8' })
}

/** The same once they are as they were; after 10 s as they are then. */
export async function settledResources(wanted: string): Promise<string> {
  let now = rdmaResources()
  for (let i = 0; i < 600 && now !== wanted; i++) {
    await sleep(100)
    now = rdmaResources()
  }
  return now
}

export interface End {
  device: VerbsDevice
  domain: ProtectionDomain
  cq: CompletionQueue
  qp: QueuePair
  mapping: Mapping
  bytes: Uint8Array
  region: MemoryRegion
}

export async function openEnd(
  name: string,
  size = 64 << 10,
  options: Partial<QueuePairOptions> = {},
): Promise<End> {
  const device = await VerbsDevice.open(name)
  const domain = await device.protectionDomain()
  const cq = options.sendCq ?? (await device.completionQueue(256))
  const qp = await domain.queuePair({ sendCq: cq, maxInlineData: 64, ...options })
  using memfd = Memfd.create(size)
  const mapping = memfd.map()
  const region = await domain.register(mapping, { access: REMOTE, iova: IOVA })
  return { device, domain, cq, qp, mapping, bytes: new Uint8Array(mapping.view()), region }
}

/** RESET to RTS, towards another. */
export async function join(
  end: End,
  peer: End,
  sender: Partial<SenderOptions> = {},
  receiver: Partial<PeerOptions> = {},
): Promise<void> {
  await end.qp.toInit({ access: REMOTE })
  await end.qp.toRtr({
    destQpNum: peer.qp.qpNumber,
    rqPsn: 100,
    ahAttr: { dgid: peer.device.gid().gid, sgidIndex: end.device.gid().index },
    ...receiver,
  })
  await end.qp.toRts({ sqPsn: 100, ...sender })
}

export async function pair(sender: Partial<SenderOptions> = {}): Promise<[End, End]> {
  const ends: [End, End] = [await openEnd('rxe0'), await openEnd('rxe1')]
  await Promise.all([join(ends[0], ends[1], sender), join(ends[1], ends[0], sender)])
  return ends
}

export async function close(...ends: End[]): Promise<void> {
  await Promise.all(ends.map(({ device }) => device.close()))
  for (const { mapping } of ends) mapping.unmap()
}

export interface Work {
  wrId: number
  status: string
  opcode: number
  byteLength: number
  immediate: number
  qpNumber: number
  flags: number
}

/** Polls until so many have come; fails after 10 s. */
export async function completions(cq: CompletionQueue, count: number): Promise<Work[]> {
  const out = new WorkCompletions(16)
  const found: Work[] = []
  const start = performance.now()
  while (found.length < count) {
    const rows = cq.poll(out, Math.min(16, count - found.length))
    for (let i = 0; i < rows; i++) {
      found.push({
        wrId: out.wrId[i] ?? -1,
        status: wcStatusName(out.status[i] ?? -1),
        opcode: out.opcode[i] ?? -1,
        byteLength: out.byteLength[i] ?? -1,
        immediate: out.immediate[i] ?? -1,
        qpNumber: out.qpNumber[i] ?? -1,
        flags: out.flags[i] ?? -1,
      })
    }
    if (rows > 0) continue
    if (performance.now() - start > 60_000) {
      throw new Error(`${found.length} of ${count} completions within 60 s`)
    }
    await sleep(1)
  }
  return found
}

type Row = Partial<
  Record<'wrId' | 'address' | 'length' | 'remoteAddress' | 'compareAdd' | 'swap', number>
> &
  Partial<
    Record<'lkey' | 'rkey' | 'immediate' | 'addressHandle' | 'remoteQpn' | 'remoteQkey', number>
  > & {
    opcode: number
    flags?: number
  }

/** Posts one request, signaled; by default from the end's own region. */
export function send(end: End, row: Row, batch = new SendBatch(1)): number {
  const { lkey, iova } = end.region
  const all = { lkey, address: iova, length: 64, flags: SendFlag.SIGNALED, ...row }
  for (const [name, value] of Object.entries(all)) {
    const column = batch[name as keyof Row]
    column[0] = value
  }
  return end.qp.post(batch, 0, 1)
}

export function receives(end: End, count: number, length = 256, at = 0): ReceiveBatch {
  const batch = new ReceiveBatch(count)
  for (let i = 0; i < count; i++) {
    batch.wrId[i] = 1000 + i
    batch.address[i] = end.region.iova + at + i * length
    batch.length[i] = length
    batch.lkey[i] = end.region.lkey
  }
  return batch
}

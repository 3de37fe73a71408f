/**
 * An experiment: has a dma-buf moved while a NIC has a page of it registered,
 * and sees whether the NIC finds it again. It tells of drivers of which nothing
 * is known, and of a pin, which no file of the kernel's lists.
 */
import { P2pdmaError } from '../../errors.js'
import { Memfd } from '../../kernel/memfd.js'
import {
  type CompletionQueue,
  MemoryAccess,
  type MemoryRegion,
  type QueuePair,
  randomPsn,
  SendBatch,
  SendFlag,
  SendOp,
  WcStatus,
  WorkCompletions,
} from '../../kernel/verbs/index.js'
import type { Backing } from '../../move-notify/exporter/backing.js'
import { sleep } from '../../move-notify/reservation/deadline.js'
import { native } from '../../native.js'
import type { LocalPort } from './local-port.js'
import type { Registrar } from './registrar.js'

/**
 * `pinned`: somebody else has. `held`: it moves, but not while it is registered.
 * `followed`: it moved, and the NIC read it where it is now. `lost`: it moved, and
 * the registration died. `unseen`: it moved, and the NIC cannot connect to itself to look.
 */
export type Trial = 'pinned' | 'held' | 'followed' | 'lost' | 'unseen'

/** Has the exporter move the dma-buf; rejects with EBUSY while it is pinned. */
export type MoveOnCommand = () => Promise<unknown>

export interface TrialParts {
  port: LocalPort
  registrar: Registrar
}

/** Of what is read, bytes. */
const LENGTH = 8
/** Where no region of the engine's is; the domain is another one anyway. */
const IOVA = 2 ** 40
/** A read may wait for the move to end. */
const READ_MS = 10_000

/** In a protection domain of its own. Rejects with what `move` rejects with, EBUSY apart. */
export async function tryMoving(
  { port, registrar }: TrialParts,
  backing: Backing,
  move: MoveOnCommand,
): Promise<Trial> {
  if (!(await moves(move))) return 'pinned'
  using memfd = Memfd.create(native.pageSize, { name: 'p2pdma-trial' })
  using mapping = memfd.map()
  // Closed in the opposite order, whatever comes between; the domain with all that is of it.
  await using cq = await port.device.completionQueue(4)
  await using domain = await port.device.protectionDomain()
  const request = { size: native.pageSize, access: MemoryAccess.REMOTE_READ }
  const iova = IOVA + (backing.offset % native.pageSize)
  const region = await registrar.register(domain, backing, { ...request, iova })
  const local = await domain.register(mapping, { access: MemoryAccess.LOCAL_WRITE })
  const qp = await domain.queuePair({ sendCq: cq, maxSendWr: 2, maxReceiveWr: 1 })
  await joinItself(qp, port)
  // First where it is: what cannot be read there says nothing of the move.
  const isReadable = await reads(qp, cq, region, local)
  if (!(await moves(move))) return 'held'
  if (!isReadable) return 'unseen'
  return (await reads(qp, cq, region, local)) ? 'followed' : 'lost'
}

async function moves(move: MoveOnCommand): Promise<boolean> {
  try {
    await move()
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EBUSY') return false
    throw error
  }
}

async function joinItself(qp: QueuePair, { gid, mtu, path }: LocalPort): Promise<void> {
  const psn = randomPsn()
  await qp.toInit({ portNum: path.portNum, access: MemoryAccess.REMOTE_READ })
  await qp.toRtr({
    destQpNum: qp.qpNumber,
    rqPsn: psn,
    ahAttr: { dgid: gid.gid, ...path },
    pathMtu: mtu,
  })
  await qp.toRts({ sqPsn: psn })
}

/** Whether the NIC gets at the region's first bytes. */
async function reads(
  qp: QueuePair,
  cq: CompletionQueue,
  region: MemoryRegion,
  local: MemoryRegion,
): Promise<boolean> {
  const batch = new SendBatch(1)
  batch.opcode[0] = SendOp.RDMA_READ
  batch.flags[0] = SendFlag.SIGNALED
  batch.address[0] = local.iova
  batch.lkey[0] = local.lkey
  batch.length[0] = LENGTH
  batch.remoteAddress[0] = region.iova
  batch.rkey[0] = region.rkey
  qp.post(batch, 0, 1)
  const polled = new WorkCompletions(1)
  const deadline = performance.now() + READ_MS
  while (cq.poll(polled) === 0) {
    if (performance.now() > deadline) {
      throw new P2pdmaError('a read of the registered page did not end', { code: 'ETIMEDOUT' })
    }
    await sleep(1)
  }
  return polled.status[0] === WcStatus.SUCCESS
}

/** What a queue pair of the engine is made of, and how it is taken apart. */
import { P2pdmaError } from '../../errors.js'
import { Memfd } from '../../kernel/memfd.js'
import {
  type CompletionChannel,
  MemoryAccess,
  type ProtectionDomain,
  type VerbsDevice,
} from '../../kernel/verbs/index.js'
import type { QueueParts } from './queue.js'

/** What each row may have under way: its request, that of a move's, a receive, and what they complete by. */
const SENDS = 2
const COMPLETIONS = 4

/** `onEvent`: a completion has come, or may have. All or nothing is made. */
export async function makeParts(
  domain: ProtectionDomain,
  events: CompletionChannel,
  depth: number,
  onEvent: () => void,
): Promise<QueueParts> {
  checkDepth(domain.device, depth)
  const cq = await domain.device.completionQueue(depth * COMPLETIONS, { channel: events, onEvent })
  try {
    const qp = await domain.queuePair({ sendCq: cq, maxSendWr: depth * SENDS, maxReceiveWr: depth })
    const { scratch, values } = await makeScratch(domain, depth)
    const close = async () => {
      // One that cannot be closed does not keep the others open.
      const ends = await Promise.allSettled([qp.close()])
      ends.push(...(await Promise.allSettled([cq.close(), scratch.close()])))
      values.unmap()
      for (const end of ends) if (end.status === 'rejected') throw end.reason
    }
    return { qp, cq, scratch, values, close }
  } catch (error) {
    // And the queue pair, where it got so far. What was wrong first is told.
    await cq.close().catch(() => {})
    throw error
  }
}

/** The device says EINVAL to more than it has room for, and not what would do. */
function checkDepth(device: VerbsDevice, depth: number): void {
  const { maxCqe, maxQpWr } = device.attributes()
  const most = Math.min(maxCqe / COMPLETIONS, maxQpWr / SENDS)
  if (depth <= most) return
  const fits = most < 1 ? 0 : 2 ** Math.floor(Math.log2(most))
  throw new P2pdmaError(
    `${device.name} has queues of a depth of ${fits} at most, not ${depth}: that is up to ` +
      `${depth * COMPLETIONS} completions and ${depth * SENDS} requests, and it has maxCqe ` +
      `${maxCqe} and maxQpWr ${maxQpWr}`,
    {
      code: 'ERR_OUT_OF_RANGE',
      argument: 'depth',
      ...(fits > 0 && { hint: `a depth of ${fits} would do` }),
    },
  )
}

/** Where atomics put the value before, 8 bytes for each row. */
async function makeScratch(domain: ProtectionDomain, depth: number) {
  using memfd = Memfd.create(depth * 8, { name: 'p2pdma-atomics' })
  const values = memfd.map()
  try {
    const scratch = await domain.register(values, { access: MemoryAccess.LOCAL_WRITE })
    return { scratch, values }
  } catch (error) {
    values.unmap()
    throw error
  }
}

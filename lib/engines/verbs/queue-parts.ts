/** What a queue pair of the engine is made of, and how it is taken apart. */
import { Memfd } from '../../kernel/memfd.js'
import {
  type CompletionChannel,
  MemoryAccess,
  type ProtectionDomain,
} from '../../kernel/verbs/index.js'
import type { QueueParts } from './queue.js'

/** `onEvent`: a completion has come, or may have. All or nothing is made. */
export async function makeParts(
  domain: ProtectionDomain,
  events: CompletionChannel,
  depth: number,
  onEvent: () => void,
): Promise<QueueParts> {
  const cq = await domain.device.completionQueue(depth * 4, { channel: events, onEvent })
  try {
    const qp = await domain.queuePair({ sendCq: cq, maxSendWr: depth * 2, maxReceiveWr: depth })
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

/** Where atomics put the value before, 8 bytes for each row. */
async function makeScratch(domain: ProtectionDomain, depth: number) {
  using memfd = Memfd.create(Math.max(depth * 8, 4096), { name: 'p2pdma-atomics' })
  const values = memfd.map()
  try {
    const scratch = await domain.register(values, { access: MemoryAccess.LOCAL_WRITE })
    return { scratch, values }
  } catch (error) {
    values.unmap()
    throw error
  }
}

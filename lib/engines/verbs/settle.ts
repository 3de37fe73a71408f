/** What becomes of rows that a queue pair had when it broke, or when its peer went. */
import { Stage } from '../../abi.js'
import { Op, Status } from '../../move-notify/importer/batch.js'
import type { RegionTable } from './region-table.js'
import type { Rows } from './rows.js'
import type { WorkQueues } from './work-queues.js'

/**
 * The peer has received the first `received` messages of this life, empty ones
 * too: those are done. Atomics may or may not be, and nobody counts them; what
 * else the queue pair had is ours again.
 */
export function settle(
  { sends, receives }: WorkQueues,
  received: number,
  table: RegionTable,
): void {
  let delivered = -1
  const { head, tail } = sends
  for (let position = head; position < tail; position++) {
    const slot = sends.slot(position)
    if (sends.stage[slot] !== Stage.HANDED || sends.op[slot] !== Op.SEND) continue
    if ((sends.message[slot] ?? 0) >= received) continue
    sends.finish(position, Status.OK, sends.length[slot] ?? 0)
    delivered = position
  }
  for (let position = head; position < tail; position++) {
    const slot = sends.slot(position)
    if (sends.stage[slot] !== Stage.HANDED) continue
    const op = sends.op[slot]
    const isWrite = op === Op.COPY && !table.isRemote(sends.source[slot] ?? 0)
    if (op === Op.FETCH_ADD) sends.finish(position, Status.OUTCOME_UNKNOWN, 0)
    else if (position < delivered && isWrite) {
      // Done, in order: who was told of it by the message may have changed the memory since.
      sends.finish(position, Status.OK, sends.length[slot] ?? 0)
    } else sends.takeBack(position)
  }
  for (let position = receives.head; position < receives.tail; position++) {
    receives.takeBack(position)
  }
}

/** There is no peer any more. */
export function abandon({ sends, receives }: WorkQueues): void {
  end(sends)
  end(receives)
}

function end(rows: Rows): void {
  for (let position = rows.head; position < rows.tail; position++) {
    const slot = rows.slot(position)
    const stage = rows.stage[slot]
    if (stage === Stage.DONE) continue
    const op = rows.op[slot]
    const isUnknown = stage === Stage.HANDED && (op === Op.SEND || op === Op.FETCH_ADD)
    const unbegun = op === Op.COPY || op === Op.FETCH_ADD ? Status.NOT_MAPPED : Status.CANCELLED
    rows.finish(position, isUnknown ? Status.OUTCOME_UNKNOWN : unbegun, 0)
  }
  rows.endHanding()
}

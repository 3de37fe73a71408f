/** What becomes of rows that a queue pair had when it broke, or when its peer went. */
import { Stage } from '../../abi.js'
import { Op, Status } from '../../move-notify/importer/batch.js'
import type { RegionTable } from './region-table.js'
import type { Rows } from './rows.js'

/** Rows of a queue pair, and what can be made of them. */
export interface Settling {
  readonly sends: Rows
  readonly receives: Rows
  /** `rows`: one of these. Nothing happens to a row that is not there. */
  finish(rows: Rows, position: number, status: number, result: number): void
  /** The queue pair has it no more, and has not done it. */
  takeBack(rows: Rows, position: number): void
}

/**
 * The peer has received the first `received` messages of this life, empty ones
 * too: those are done. Atomics may or may not be, and nobody counts them; what
 * else the queue pair had is ours again.
 */
export function settle(work: Settling, received: number, table: RegionTable): void {
  const { sends, receives } = work
  let delivered = -1
  const { head, tail } = sends
  for (let position = head; position < tail; position++) {
    const slot = sends.slot(position)
    if (sends.stage[slot] !== Stage.HANDED || sends.op[slot] !== Op.SEND) continue
    if ((sends.message[slot] ?? 0) >= received) continue
    work.finish(sends, position, Status.OK, sends.length[slot] ?? 0)
    delivered = position
  }
  for (let position = head; position < tail; position++) {
    const slot = sends.slot(position)
    if (sends.stage[slot] !== Stage.HANDED) continue
    const op = sends.op[slot]
    const isWrite = op === Op.COPY && !table.isRemote(sends.source[slot] ?? 0)
    if (op === Op.FETCH_ADD) work.finish(sends, position, Status.OUTCOME_UNKNOWN, 0)
    else if (position < delivered && isWrite) {
      // Done, in order: who was told of it by the message may have changed the memory since.
      work.finish(sends, position, Status.OK, sends.length[slot] ?? 0)
    } else work.takeBack(sends, position)
  }
  for (let position = receives.head; position < receives.tail; position++) {
    work.takeBack(receives, position)
  }
}

/** There is no peer any more. */
export function abandon(work: Settling): void {
  for (const rows of [work.sends, work.receives]) end(work, rows)
}

function end(work: Settling, rows: Rows): void {
  for (let position = rows.head; position < rows.tail; position++) {
    const slot = rows.slot(position)
    const stage = rows.stage[slot]
    if (stage === Stage.DONE) continue
    const op = rows.op[slot]
    const isUnknown = stage === Stage.HANDED && (op === Op.SEND || op === Op.FETCH_ADD)
    const unbegun = op === Op.COPY || op === Op.FETCH_ADD ? Status.NOT_MAPPED : Status.CANCELLED
    work.finish(rows, position, isUnknown ? Status.OUTCOME_UNKNOWN : unbegun, 0)
  }
}

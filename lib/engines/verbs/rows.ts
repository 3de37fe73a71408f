/**
 * Operations that a channel has accepted and not yet given back, oldest first.
 * Native code writes all of it (native/verbs/rows/rows.h), and here it is read; but what
 * becomes of rows in errors, settle.ts and backend.ts decide, and have it written
 * (`WorkQueues.finish()`, `takeBack()`). `uses` is as Uses says.
 */
import { RowCursor as Cursor, Stage } from '../../abi.js'
import { Op, namesSource, namesTarget } from '../../move-notify/importer/batch.js'
import type { NativeRowColumns } from '../../native-verbs.js'
import { sharedColumn } from '../queue/shared-columns.js'
import { Uses } from '../queue/uses.js'

export { Stage }

/** Positions count from 0 and are never used again; a row's slot is its position modulo the ring. */
export class Rows implements NativeRowColumns {
  readonly op: Uint8Array
  readonly stage: Uint8Array
  readonly source: Uint32Array
  readonly target: Uint32Array
  readonly sourceOffset: Float64Array
  readonly targetOffset: Float64Array
  readonly length: Float64Array
  readonly operand: Float64Array
  readonly cookie: Float64Array
  readonly result: Float64Array
  readonly status: Uint8Array
  /** Of a message that was handed over: its number in this life of the queue pair. */
  readonly message: Float64Array
  /** Which attachments they name. */
  readonly uses: Uses
  readonly #cursors: Float64Array
  readonly #at: number
  readonly #mask: number
  /** Before it all have ended. */
  #ended = 0

  /** Its cursors stand in `cursors` from `at` on; `untold`: as `Uses.untold`, another's, too. */
  constructor(depth: number, cursors: Float64Array, at: number, untold?: Uint32Array) {
    this.#cursors = cursors
    this.#at = at
    this.#mask = depth - 1
    this.op = sharedColumn(depth, Uint8Array)
    this.stage = sharedColumn(depth, Uint8Array)
    this.source = sharedColumn(depth, Uint32Array)
    this.target = sharedColumn(depth, Uint32Array)
    this.sourceOffset = sharedColumn(depth, Float64Array)
    this.targetOffset = sharedColumn(depth, Float64Array)
    this.length = sharedColumn(depth, Float64Array)
    this.operand = sharedColumn(depth, Float64Array)
    this.cookie = sharedColumn(depth, Float64Array)
    this.result = sharedColumn(depth, Float64Array)
    this.status = sharedColumn(depth, Uint8Array)
    this.message = sharedColumn(depth, Float64Array)
    this.uses = new Uses(depth, untold)
  }

  /** The oldest. */
  get head(): number {
    return this.#cursors[this.#at + Cursor.HEAD] ?? 0
  }

  /** The next one to hand over. */
  get next(): number {
    return this.#cursors[this.#at + Cursor.NEXT] ?? 0
  }

  /** The next one to accept. */
  get tail(): number {
    return this.#cursors[this.#at + Cursor.TAIL] ?? 0
  }

  /** The queue pair has so many. */
  get handed(): number {
    return this.#cursors[this.#at + Cursor.HANDED] ?? 0
  }

  get size(): number {
    return this.tail - this.head
  }

  /** How many have ended so far, those that have been given back among them. */
  get ended(): number {
    const { head, tail } = this
    let ended = head
    for (let position = head; position < tail; position++) {
      if (this.stage[this.slot(position)] === Stage.DONE) ended++
    }
    return ended
  }

  /** Of those that the queue pair has. */
  get bytesHanded(): number {
    const { head, tail } = this
    let bytes = 0
    for (let position = head; position < tail; position++) {
      const slot = this.slot(position)
      if (this.stage[slot] === Stage.HANDED) bytes += this.length[slot] ?? 0
    }
    return bytes
  }

  slot(position: number): number {
    return position & this.#mask
  }

  /** Whether the oldest can be given back. */
  get isOldestDone(): boolean {
    return this.head < this.tail && this.stage[this.slot(this.head)] === Stage.DONE
  }

  /** Whether one that is not done names this id. */
  names(id: number): boolean {
    if (this.#last(id, (stage) => stage !== Stage.DONE) >= 0) return true
    this.uses.end(id)
    return false
  }

  /** Whether one that the queue pair has names this id. */
  hasHanded(id: number): boolean {
    return this.handed > 0 && this.#last(id, (stage) => stage === Stage.HANDED) >= 0
  }

  /**
   * The position of the last row that names this id and is in such a stage; -1: there is none. Of
   * rows that end in order it is the very last that names it; those before it are looked at
   * where errors have ended some out of order.
   */
  #last(id: number, isIt: (stage: number) => boolean): number {
    const row = this.uses.lastRow(id)
    if (row < 0) return -1
    const { head, tail } = this
    let ended = Math.max(this.#ended, head)
    while (ended < tail && this.stage[this.slot(ended)] === Stage.DONE) ended++
    this.#ended = ended
    const last = head + this.slot(row - head)
    if (last >= tail || !this.#isNamed(row, id)) return -1
    for (let position = last; position >= ended; position--) {
      const slot = this.slot(position)
      if (isIt(this.stage[slot] ?? Stage.DONE) && this.#isNamed(slot, id)) return position
    }
    return -1
  }

  #isNamed(slot: number, id: number): boolean {
    const op = this.op[slot] ?? Op.NOP
    return (
      (namesSource(op) && this.source[slot] === id) || (namesTarget(op) && this.target[slot] === id)
    )
  }
}

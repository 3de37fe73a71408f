/**
 * Which attachments the rows of a queue name, without a look at the rows: of each attachment the
 * last row that names it. Rows end in order, so an attachment is in use for as long as that one
 * row is under way and names it still. Native code writes it as it accepts rows
 * (native/support/uses.h); nothing is to be done when they end.
 */
import { slotOf } from '../../move-notify/importer/ids.js'
import { grownColumn, sharedColumn } from './shared-columns.js'

export class Uses {
  /**
   * Two words by slot of an attachment id: whose they are, and 1 + the row. The next row that
   * names it is told of where that is 0, or where they are another's.
   */
  last = sharedColumn(128, Uint32Array)
  /** How many ids are to be told of, and these; each row names two at most. */
  readonly untold: Uint32Array

  /** `rows`: of the ring; `untold`: of another ring, in both of which there are so many. */
  constructor(rows: number, untold: Uint32Array = sharedColumn(1 + 2 * rows, Uint32Array)) {
    this.untold = untold
  }

  /** Makes room for attachments in so many slots. */
  grow(slots: number): void {
    if (2 * slots > this.last.length) this.last = grownColumn(this.last, 2 * slots, Uint32Array)
  }

  /** The last row that names this id; its place may be another's by now. -1: none. */
  lastRow(id: number): number {
    const at = 2 * slotOf(id)
    return this.last[at] === id ? (this.last[at + 1] ?? 0) - 1 : -1
  }

  /** A row that names this id lies in `row` now, later than all others that do. */
  moved(id: number, row: number): void {
    const at = 2 * slotOf(id)
    if (this.last[at] === id) this.last[at + 1] = row + 1
  }

  /** It is not in use: the next row that names it is told of. */
  end(id: number): void {
    const at = 2 * slotOf(id)
    if (this.last[at] === id) this.last[at + 1] = 0
  }

  /** Whether there is anything to `tell()`: asked after each batch. */
  get hasUntold(): boolean {
    return this.untold[0] !== 0
  }

  /** Tells of the ids that rows name which were not in use before. */
  tell(onUse: ((id: number) => void) | undefined): void {
    const { untold } = this
    const count = untold[0] ?? 0
    untold[0] = 0
    for (let i = 1; i <= count; i++) onUse?.(untold[i] ?? 0)
  }
}

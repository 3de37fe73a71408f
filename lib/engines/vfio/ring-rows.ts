/** By slot of a ring: what was posted there. Shared memory: native/ring writes it too. */
import { sharedMemory } from '../../shared-memory.js'
import { Uses } from '../queue/uses.js'

export class RingRows {
  readonly cookies: Float64Array
  readonly ids: Uint32Array
  readonly offsets: Float64Array
  readonly lengths: Float64Array
  /** Which attachments they name. */
  readonly uses: Uses

  constructor(entries: number) {
    const memory = sharedMemory(entries * 28)
    this.cookies = new Float64Array(memory, 0, entries)
    this.offsets = new Float64Array(memory, entries * 8, entries)
    this.lengths = new Float64Array(memory, entries * 16, entries)
    this.ids = new Uint32Array(memory, entries * 24, entries)
    this.uses = new Uses(entries)
  }

  /** Of several, the oldest first. */
  move(from: number, to: number): void {
    this.cookies[to] = this.cookies[from] ?? 0
    this.ids[to] = this.ids[from] ?? 0
    this.offsets[to] = this.offsets[from] ?? 0
    this.lengths[to] = this.lengths[from] ?? 0
    this.uses.moved(this.ids[to] ?? 0, to)
  }

  /** Moves `count` rows from `head` on, round the end, to the slots from 0 on. */
  rewind(head: number, count: number): void {
    const end = this.ids.length
    const first = Math.min(count, end - head)
    for (const column of [this.cookies, this.ids, this.offsets, this.lengths]) {
      const wrapped = column.slice(0, count - first)
      column.copyWithin(0, head, head + first)
      column.set(wrapped, first)
    }
    for (let row = 0; row < count; row++) this.uses.moved(this.ids[row] ?? 0, row)
  }
}

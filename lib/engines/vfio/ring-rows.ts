/** By slot of a ring: what was posted there. Shared memory: native/ring writes it too. */
import { Stage } from '../../abi.js'
import { sharedMemory } from '../../shared-memory.js'
import { Uses } from '../queue/uses.js'

export class RingRows {
  readonly cookies: Float64Array
  readonly ids: Uint32Array
  readonly offsets: Float64Array
  readonly lengths: Float64Array
  /** Of the device's storage, where it has one: bytes from its start. */
  readonly places: Float64Array
  /** Which of the queue's operations. */
  readonly kinds: Uint8Array
  /** `Stage`, where operations do not end in order. */
  readonly stages: Uint8Array
  /** Which attachments they name. */
  readonly uses: Uses
  readonly #columns: readonly (Float64Array | Uint32Array | Uint8Array)[]

  constructor(entries: number) {
    const memory = sharedMemory(entries * 38)
    this.cookies = new Float64Array(memory, 0, entries)
    this.offsets = new Float64Array(memory, entries * 8, entries)
    this.lengths = new Float64Array(memory, entries * 16, entries)
    this.places = new Float64Array(memory, entries * 24, entries)
    this.ids = new Uint32Array(memory, entries * 32, entries)
    this.kinds = new Uint8Array(memory, entries * 36, entries)
    this.stages = new Uint8Array(memory, entries * 37, entries)
    const { cookies, offsets, lengths, places, ids, kinds, stages } = this
    this.#columns = [cookies, offsets, lengths, places, ids, kinds, stages]
    this.uses = new Uses(entries)
  }

  /** Whether its completion has been reaped, and it only keeps its place. */
  isReaped(slot: number): boolean {
    return this.stages[slot] === Stage.REAPED
  }

  /** Of several, the oldest first. */
  move(from: number, to: number): void {
    for (const column of this.#columns) column[to] = column[from] ?? 0
    this.uses.moved(this.ids[to] ?? 0, to)
  }

  /** Moves `count` rows from `head` on, round the end, to the slots from 0 on. */
  rewind(head: number, count: number): void {
    const end = this.ids.length
    const first = Math.min(count, end - head)
    for (const column of this.#columns) {
      const wrapped = column.slice(0, count - first)
      column.copyWithin(0, head, head + first)
      column.set(wrapped, first)
    }
    for (let row = 0; row < count; row++) this.uses.moved(this.ids[row] ?? 0, row)
  }
}

/** Operations that a channel has accepted and not yet given back, oldest first. */
import type { Batch } from '../../move-notify/batch.js'

/** How far one is. */
export const Stage = {
  /** Held here: not handed to the queue pair, or taken back from it. */
  HELD: 0,
  /** The queue pair has it. */
  HANDED: 1,
  /** Its result is known. */
  DONE: 2,
} as const

/** Positions count from 0 and are never used again; a row's slot is its position modulo the ring. */
export class Rows {
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
  readonly #mask: number
  /** The oldest, the next one to hand over, the next one to accept. */
  head = 0
  next = 0
  tail = 0
  /** Of those, the queue pair has so many. */
  handed = 0

  constructor(depth: number) {
    this.#mask = depth - 1
    this.op = new Uint8Array(depth)
    this.stage = new Uint8Array(depth)
    this.source = new Uint32Array(depth)
    this.target = new Uint32Array(depth)
    this.sourceOffset = new Float64Array(depth)
    this.targetOffset = new Float64Array(depth)
    this.length = new Float64Array(depth)
    this.operand = new Float64Array(depth)
    this.cookie = new Float64Array(depth)
    this.result = new Float64Array(depth)
    this.status = new Uint8Array(depth)
  }

  get size(): number {
    return this.tail - this.head
  }

  slot(position: number): number {
    return position & this.#mask
  }

  /** Whether this position is held or handed now. */
  has(position: number): boolean {
    return position >= this.head && position < this.tail
  }

  push(batch: Batch, row: number): void {
    const slot = this.tail++ & this.#mask
    this.op[slot] = batch.op[row] ?? 0
    this.stage[slot] = Stage.HELD
    this.source[slot] = batch.source[row] ?? 0
    this.target[slot] = batch.target[row] ?? 0
    this.sourceOffset[slot] = batch.sourceOffset[row] ?? 0
    this.targetOffset[slot] = batch.targetOffset[row] ?? 0
    this.length[slot] = batch.length[row] ?? 0
    this.operand[slot] = batch.operand[row] ?? 0
    this.cookie[slot] = batch.cookie[row] ?? 0
  }

  markHanded(position: number): void {
    this.stage[position & this.#mask] = Stage.HANDED
    this.handed++
  }

  finish(position: number, status: number, result: number): void {
    const slot = position & this.#mask
    if (this.stage[slot] === Stage.HANDED) this.handed--
    this.stage[slot] = Stage.DONE
    this.status[slot] = status
    this.result[slot] = result
  }

  /** The queue pair has it no more, and has not done it. */
  takeBack(position: number): void {
    const slot = position & this.#mask
    if (this.stage[slot] !== Stage.HANDED) return
    this.stage[slot] = Stage.HELD
    this.handed--
    if (position < this.next) this.next = position
  }

  /** Whether one that is not done names this id. */
  names(id: number, sources: boolean, targets: boolean): boolean {
    for (let position = this.head; position < this.tail; position++) {
      const slot = position & this.#mask
      if (this.stage[slot] === Stage.DONE) continue
      if ((sources && this.source[slot] === id) || (targets && this.target[slot] === id))
        return true
    }
    return false
  }
}

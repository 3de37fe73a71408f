/**
 * The reference: what each buffer must hold, in plain arrays. Work is given
 * cells that no other work in progress writes, so that the order of what is
 * concurrent cannot matter, and every byte can be said.
 */
import type { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'

export const CELL = 4096
export const CELLS = 48
export const SIZE = CELL * CELLS

/** mulberry32: the seed is printed, and repeats the choices (not the machine's timing). */
export function generator(seed: number) {
  let state = seed >>> 0
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const below = (bound: number) => Math.floor(next() * bound)
  return {
    below,
    chance: (share: number) => next() < share,
    pick: <T>(from: readonly T[]): T => from[below(from.length)] as T,
  }
}

/** What a rejection says of the target's bytes. */
export type Doubt =
  /** All as before, or all as after. */
  | 'either'
  /** As after up to some byte, from there as before: it was cut off. */
  | 'prefix'

interface Range {
  model: Model
  at: number
  length: number
}

/** Work in progress: it reads one range and writes another. */
export class Job {
  readonly source: Range | null
  readonly target: Range
  /** What the target will hold; taken when it is done, since the source does not change. */
  readonly effect: (job: Job) => Uint8Array

  constructor(source: Range | null, target: Range, effect: (job: Job) => Uint8Array) {
    this.source = source
    this.target = target
    this.effect = effect
    source?.model.read(source, 1)
    target.model.written(target, true)
  }

  done(): void {
    const { model, at } = this.target
    model.bytes.set(this.effect(this), at)
    this.end()
  }

  /** Nothing has been done. */
  end(): void {
    if (this.source !== null) this.source.model.read(this.source, -1)
    this.target.model.written(this.target, false)
  }

  /**
   * It may have been done; its cells stay taken until the memory has been
   * looked at. `isCutOff` says then whether something ended it in its middle.
   */
  doubtful(doubt: Doubt, isCutOff: () => boolean = () => false): void {
    this.target.model.doubts.push({ job: this, doubt, isCutOff, after: this.effect(this) })
  }
}

export class Model {
  readonly bytes = new Uint8Array(SIZE)
  doubts: { job: Job; doubt: Doubt; isCutOff: () => boolean; after: Uint8Array }[] = []
  readonly #readers = new Uint16Array(CELLS)
  readonly #writer = new Uint8Array(CELLS)

  read({ at, length }: Range, by: number): void {
    for (let cell = at / CELL; cell < (at + length) / CELL; cell++) {
      this.#readers[cell] = (this.#readers[cell] ?? 0) + by
    }
  }

  written({ at, length }: Range, taken: boolean): void {
    this.#writer.fill(taken ? 1 : 0, at / CELL, (at + length) / CELL)
  }

  canRead(cell: number, cells: number): boolean {
    return this.#writer.subarray(cell, cell + cells).every((taken) => taken === 0)
  }

  canWrite(cell: number, cells: number): boolean {
    const readers = this.#readers.subarray(cell, cell + cells)
    return this.canRead(cell, cells) && readers.every((count) => count === 0)
  }

  slice({ at, length }: Range): Uint8Array {
    return this.bytes.slice(at, at + length)
  }

  /** Settles the doubts, then compares every byte. Nothing may be in progress. */
  async mismatch(buffer: MovableBuffer): Promise<string | null> {
    return buffer.withCpuAccess('r', (cpu) => {
      const memory = Buffer.from(cpu.view())
      for (const { job, doubt: told, isCutOff, after } of this.doubts.splice(0)) {
        const doubt = isCutOff() ? 'prefix' : told
        const { at, length } = job.target
        const now = memory.subarray(at, at + length)
        const before = this.slice(job.target)
        if (!isExplained(now, before, after, doubt)) return `${doubt} at ${at}: neither`
        this.bytes.set(now, at)
        job.end()
      }
      if (memory.equals(this.bytes)) return null
      const at = memory.findIndex((byte, i) => byte !== this.bytes[i])
      return `byte ${at} is ${memory[at]}, not ${this.bytes[at]}`
    })
  }
}

function isExplained(
  now: Uint8Array,
  before: Uint8Array,
  after: Uint8Array,
  doubt: Doubt,
): boolean {
  const is = (expected: Uint8Array, from = 0, to?: number) =>
    Buffer.compare(now.subarray(from, to), expected.subarray(from, to)) === 0
  if (is(before) || is(after)) return true
  if (doubt === 'either') return false
  let same = 0
  while (now[same] === after[same]) same++
  return is(before, same)
}

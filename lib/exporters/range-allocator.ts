/** Ranges of one memory: best fit, and neighbours that are free become one. */
import { P2pdmaError, checkInteger, rangeError } from '../errors.js'

interface Range {
  start: number
  /** Exclusive. */
  end: number
}

export class RangeAllocator {
  readonly size: number
  readonly #granularity: number
  /** Ascending, apart. */
  readonly #free: Range[]
  readonly #taken = new Map<number, number>()
  #left: number

  /** `size`: a multiple of the granularity. */
  constructor(size: number, granularity: number) {
    this.size = size
    this.#granularity = granularity
    this.#free = [{ start: 0, end: size }]
    this.#left = size
  }

  /** Bytes free, in one piece or many. */
  get left(): number {
    return this.#left
  }

  /** Takes `size` bytes, rounded up; returns where they begin. ENOSPC where no piece is as large. */
  allocate(size: number): number {
    checkInteger('size', size, 1)
    const length = this.rounded(size)
    let best = -1
    for (const [index, { start, end }] of this.#free.entries()) {
      const known = this.#free[best]
      if (end - start < length) continue
      if (known === undefined || end - start < known.end - known.start) best = index
    }
    const range = this.#free[best]
    if (range === undefined) {
      const pieces = this.#left < length ? '' : ', in pieces'
      throw new P2pdmaError(`No ${length} bytes left: ${this.#left} of ${this.size} are${pieces}`, {
        code: 'ENOSPC',
      })
    }
    const { start } = range
    range.start += length
    if (range.start === range.end) this.#free.splice(best, 1)
    this.#taken.set(start, length)
    this.#left -= length
    return start
  }

  /** Gives back what `allocate` has returned. */
  free(start: number): void {
    const length = this.#taken.get(start)
    if (length === undefined) throw rangeError('start', 'what was allocated', start)
    this.#taken.delete(start)
    this.#left += length
    const end = start + length
    const at = this.#free.findIndex((each) => each.start > start)
    const index = at < 0 ? this.#free.length : at
    const before = this.#free[index - 1]
    const after = this.#free[index]
    const joinsBefore = before?.end === start
    const joinsAfter = after?.start === end
    if (joinsBefore && joinsAfter) {
      before.end = after.end
      this.#free.splice(index, 1)
    } else if (joinsBefore) before.end = end
    else if (joinsAfter) after.start = start
    else this.#free.splice(index, 0, { start, end })
  }

  rounded(size: number): number {
    return Math.ceil(size / this.#granularity) * this.#granularity
  }
}

/** Addresses that a device may use: first fit over the ranges that the IOMMU can translate. */
import { brand } from '../../brand.js'
import { P2pdmaError, checkInteger, rangeError } from '../../errors.js'

/** Both inclusive. */
export interface IovaRange {
  start: number
  end: number
}

/**
 * Between two allocations: a device that runs past its end meets a fault, not
 * its neighbour.
 */
const GUARD_PAGES = 1

/** What is as large as a large page begins at one's boundary: the IOMMU may map it by these. */
const LARGE_PAGE = 2 << 20

export class IovaAllocator {
  static {
    brand(this, (value) => #pageSize in value)
  }

  /** What the IOMMU can translate, ascending. */
  readonly ranges: readonly IovaRange[]
  readonly #pageSize: number
  /** Ascending, apart; `end` exclusive. */
  readonly #free: { start: number; end: number }[]
  /** Bytes taken, guards included, by address. */
  readonly #taken = new Map<number, number>()

  constructor(ranges: readonly IovaRange[], pageSize: number) {
    this.#pageSize = pageSize
    this.ranges = ranges
    this.#free = ranges
      // Address 0 is left out: too many devices take it for none.
      .map(({ start, end }) => ({
        start: Math.max(pageSize, roundUp(start, pageSize)),
        end: Math.floor((end + 1) / pageSize) * pageSize,
      }))
      .filter(({ start, end }) => end > start)
  }

  /** How many allocations have not been given back. */
  get taken(): number {
    return this.#taken.size
  }

  /** Takes `size` bytes, rounded up to pages; ENOSPC where they are not to be had. */
  allocate(size: number): number {
    checkInteger('size', size, 1)
    const length = (Math.ceil(size / this.#pageSize) + GUARD_PAGES) * this.#pageSize
    const alignment = size >= LARGE_PAGE ? LARGE_PAGE : this.#pageSize
    const index = this.#free.findIndex(
      ({ start, end }) => end - roundUp(start, alignment) >= length,
    )
    const range = this.#free[index]
    if (range === undefined) {
      throw new P2pdmaError(`The IOMMU has no ${size} bytes of addresses left`, { code: 'ENOSPC' })
    }
    const iova = roundUp(range.start, alignment)
    const left = [
      { start: range.start, end: iova },
      { start: iova + length, end: range.end },
    ]
    this.#free.splice(index, 1, ...left.filter(({ start, end }) => start < end))
    this.#taken.set(iova, length)
    return iova
  }

  /** Gives back what `allocate` has returned. */
  free(iova: number): void {
    const length = this.#taken.get(iova)
    if (length === undefined) throw rangeError('iova', 'an address that was allocated', iova)
    this.#taken.delete(iova)
    const end = iova + length
    const at = this.#free.findIndex(({ start }) => start > iova)
    const index = at < 0 ? this.#free.length : at
    const before = this.#free[index - 1]
    const after = this.#free[index]
    if (before?.end === iova && after?.start === end) {
      before.end = after.end
      this.#free.splice(index, 1)
    } else if (before?.end === iova) before.end = end
    else if (after?.start === end) after.start = iova
    else this.#free.splice(index, 0, { start: iova, end })
  }

  /** ERR_OUT_OF_RANGE unless the IOMMU can translate all of it. */
  check(iova: number, size: number): void {
    const last = iova + size - 1
    if (this.ranges.some(({ start, end }) => iova >= start && last <= end)) return
    const known = this.ranges
      .map(({ start, end }) => `0x${start.toString(16)}-0x${end.toString(16)}`)
      .join(', ')
    throw new P2pdmaError(
      `iova 0x${iova.toString(16)} with ${size} bytes is not within what the IOMMU translates: ${known}`,
      { code: 'ERR_OUT_OF_RANGE', argument: 'iova' },
    )
  }
}

/** Not by bit operations: addresses have up to 53 bits. */
function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple
}

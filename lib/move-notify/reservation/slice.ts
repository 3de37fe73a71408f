/** Items handled before the event loop gets a turn: about a tenth of a millisecond's work. */
export const SLICE_ITEMS = 256

/** Counts a loop's items; every SLICE_ITEMS it hands back a turn to wait for. */
export class Slice {
  #left = SLICE_ITEMS

  /** Undefined while the slice lasts, so that the common case has no await. */
  next(): Promise<void> | undefined {
    if (--this.#left > 0) return undefined
    this.#left = SLICE_ITEMS
    return new Promise((resolve) => setImmediate(resolve))
  }
}

/** What many calls share: so many of them in one turn of the event loop, the others later. */
export class SharedSlice {
  readonly #items: number
  #left: number
  #waiting: (() => void)[] = []

  constructor(items: number) {
    this.#items = items
    this.#left = items
  }

  /** Undefined while the slice lasts, as in `Slice`. */
  next(): Promise<void> | undefined {
    if (this.#left === this.#items) setImmediate(this.#begin)
    if (this.#left > 0) {
      this.#left--
      return undefined
    }
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  /** The next turn: those who have waited longest come first. */
  readonly #begin = () => {
    const now = this.#waiting.splice(0, this.#items)
    this.#left = this.#items - now.length
    if (now.length > 0) setImmediate(this.#begin)
    for (const resolve of now) resolve()
  }
}

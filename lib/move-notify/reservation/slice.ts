/** Items handled before the event loop gets a turn: about a tenth of a millisecond's work. */
export const SLICE_ITEMS = 256

/** Counts items, of one loop or of many calls; behind each `items` the next ones are a turn later. */
export class Slice {
  readonly #items: number
  #left: number
  #waiting: (() => void)[] = []

  constructor(items = SLICE_ITEMS) {
    this.#items = items
    this.#left = items
  }

  /** Undefined while the slice lasts, so that the common case has no await. */
  next(): Promise<void> | undefined {
    if (this.#waiting.length === 0 && --this.#left > 0) return undefined
    return new Promise((resolve) => {
      this.#waiting.push(resolve)
      if (this.#waiting.length === 1) setImmediate(() => this.#begin())
    })
  }

  /** The next slice: those who came first, and who comes still in this turn. */
  #begin(): void {
    const now = this.#waiting.splice(0, this.#items)
    this.#left = this.#items - now.length + 1
    for (const resolve of now) resolve()
    if (this.#waiting.length > 0) setImmediate(() => this.#begin())
  }
}

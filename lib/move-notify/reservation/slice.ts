/** Items handled before the event loop gets a turn: about a tenth of a millisecond's work. */
export const SLICE_ITEMS = 256

/** Counts items; every SLICE_ITEMS it hands back a turn to wait for. */
export class Slice {
  #left = SLICE_ITEMS

  /** Undefined while the slice lasts, so that the common case has no await. */
  next(): Promise<void> | undefined {
    if (--this.#left > 0) return undefined
    this.#left = SLICE_ITEMS
    return new Promise((resolve) => setImmediate(resolve))
  }
}

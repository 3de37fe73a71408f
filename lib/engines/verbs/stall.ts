/**
 * A device is to report what it cannot deliver (RETRY_EXC_ERR). Soft-RoCE does not always: with
 * the answers filtered it sends and waits for ever. So whoever has sent something looks now and
 * then whether anything of it completes.
 */

/** From one look to the next, ms. */
const LOOK_MS = 500
/** What is under way may be slow: so many bytes in a millisecond, over all queue pairs. */
const SLOWEST = 1000

export interface StallHost {
  /**
   * Takes what has completed. Returns whether there is anything to look for later, whether
   * the device has something of it, and how much has ended so far.
   */
  look(): { isUsed: boolean; isBusy: boolean; ended: number }
  /** Of all that the device has been given, over all queue pairs, bytes. */
  bytesUnderWay(): number
  onStall(ms: number): void
}

export class Stall {
  readonly #host: StallHost
  readonly #limitMs: number
  #timer: NodeJS.Timeout | null = null
  #ended = 0
  /** Looks in a row that saw nothing: a process that was stopped meanwhile has looked once. */
  #looks = 0

  constructor(limitMs: number, host: StallHost) {
    this.#limitMs = limitMs
    this.#host = host
  }

  /** Something has been sent. */
  watch(): void {
    if (this.#timer === null && this.#limitMs !== Infinity) this.#wait()
  }

  #wait(): void {
    this.#timer = setTimeout(() => this.#look(), LOOK_MS).unref()
  }

  #look(): void {
    this.#timer = null
    const { isUsed, isBusy, ended } = this.#host.look()
    this.#looks = isBusy && ended === this.#ended ? this.#looks + 1 : 0
    this.#ended = ended
    const ms = this.#looks * LOOK_MS
    if (ms >= this.#limitMs && ms >= this.#limitMs + this.#host.bytesUnderWay() / SLOWEST) {
      this.#looks = 0
      this.#host.onStall(ms)
    }
    if (isUsed) this.#wait()
    else this.#looks = 0
  }

  close(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
  }
}

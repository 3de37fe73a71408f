/** `--seconds`: when the work has to be over, and when the process. */

/** Of the time, what is left for closing everything; ms at least and at most. */
const CLOSING_SHARE = 0.2
const CLOSING_MS = { least: 500, most: 12_000 }

/** And for the process itself to end, which has memory to give back. */
const EXIT_SHARE = 0.05
const EXIT_MS = 2000

export class TimeBound {
  /** `performance.now()` at which no work goes on; Infinity without a bound. */
  readonly workEndsAt: number
  /** And at which nothing is waited for any more. */
  readonly endsAt: number
  readonly #abort = new AbortController()
  readonly #timer: NodeJS.Timeout | null

  /** `since`: a `performance.now()`. `seconds`: null for no bound. */
  constructor(seconds: number | null, since: number) {
    const ms = seconds === null ? Infinity : seconds * 1000
    const end = since + ms
    this.endsAt = seconds === null ? Infinity : end - Math.min(EXIT_MS, EXIT_SHARE * ms)
    const closing = Math.min(CLOSING_MS.most, Math.max(CLOSING_MS.least, CLOSING_SHARE * ms))
    this.workEndsAt = seconds === null ? Infinity : end - closing
    const left = Math.max(0, this.workEndsAt - performance.now())
    this.#timer = seconds === null ? null : setTimeout(() => this.#abort.abort(), left)
  }

  /** Aborted when the work has to be over. */
  get signal(): AbortSignal {
    return this.#abort.signal
  }

  get isOver(): boolean {
    return this.#abort.signal.aborted
  }

  close(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
  }
}

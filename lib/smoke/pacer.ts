/** Holds traffic to a rate: who wants to send waits for his turn; one timer, however many wait. */

/** How much may go at once after a rest, ms at the rate. */
const BURST_MS = 50

interface Waiting {
  bytes: number
  isWanted: () => boolean
  go: () => void
}

export class Pacer {
  readonly #bytesPerMs: number
  /** When all that has been let through is through at the rate. */
  #clearAt = 0
  #waiting: Waiting[] = []
  #timer: NodeJS.Timeout | null = null
  #isOver = false

  /** `gbps`: 10^9 bits per second; null: no bound. */
  constructor(gbps: number | null) {
    this.#bytesPerMs = gbps === null ? Infinity : (gbps * 1e9) / 8 / 1000
  }

  /**
   * Null where these bytes may go at once, else what resolves when they may. First come,
   * first served; who is not wanted any more when his turn comes goes at once, and sends
   * nothing.
   */
  take(bytes: number, isWanted = () => true): Promise<void> | null {
    if (this.#bytesPerMs === Infinity || this.#isOver) return null
    if (this.#waiting.length === 0 && this.#isClear()) {
      this.#spend(bytes)
      return null
    }
    return new Promise((go) => {
      this.#waiting.push({ bytes, isWanted, go })
      this.#arm()
    })
  }

  #isClear(): boolean {
    return this.#clearAt <= performance.now()
  }

  #spend(bytes: number): void {
    const since = Math.max(this.#clearAt, performance.now() - BURST_MS)
    this.#clearAt = since + bytes / this.#bytesPerMs
  }

  #arm(): void {
    if (this.#timer !== null || this.#waiting.length === 0) return
    // Not longer than setTimeout takes: who is early arms it again.
    const ms = Math.min(60_000, Math.max(0, Math.ceil(this.#clearAt - performance.now())))
    this.#timer = setTimeout(() => this.#serve(), ms)
  }

  #serve(): void {
    this.#timer = null
    while (this.#waiting.length > 0 && this.#isClear()) {
      const { bytes, isWanted, go } = this.#waiting.shift() as Waiting
      if (isWanted()) this.#spend(bytes)
      go()
    }
    this.#arm()
  }

  /** Whoever waits goes at once: the run ends. */
  release(): void {
    this.#isOver = true
    if (this.#timer !== null) clearTimeout(this.#timer)
    for (const { go } of this.#waiting.splice(0)) go()
  }
}

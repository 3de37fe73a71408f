/** Nothing that the smoke test waits for may take for ever. */
import { P2pdmaError } from '../errors.js'
import { Patience } from '../kernel/patience.js'

interface Wait {
  what: string
  /** By the watchdog's own clock. */
  since: number
}

export interface WatchdogOptions {
  /** `performance.now()` beyond which nothing may last, whatever it is. */
  endsAt?: number
  /** What may be behind it, as far as anybody knows. */
  explain?: () => string | null
}

const UNEXPLAINED = 'the device or the library hangs'
const TOO_SHORT = 'it needs more time than that'

/** Longest delay that setTimeout takes, ms. */
const LONGEST = 0x7fffffff

export class Watchdog {
  readonly #limitMs: number
  readonly #tickMs: number
  readonly #waits = new Set<Wait>()
  #tick: Patience
  readonly #last: NodeJS.Timeout | null
  /** Set once it is known what runs. */
  explain: () => string | null
  #hung: (error: P2pdmaError) => void = () => {}
  /** Rejects when something has taken longer than the limit, or the time is over. */
  readonly hung: Promise<never>
  #tripped = false
  /** Free time, ms: not that in which the process was busy, or stopped. */
  #clock = 0

  constructor(limitMs: number, { endsAt = Infinity, explain = () => null }: WatchdogOptions = {}) {
    this.#limitMs = limitMs
    this.#tickMs = Math.min(1000, limitMs / 4)
    this.explain = explain
    this.hung = new Promise((_resolve, reject) => (this.#hung = reject))
    this.hung.catch(() => {})
    this.#tick = this.#next()
    const left = Math.max(0, endsAt - performance.now())
    this.#last = left > LONGEST ? null : setTimeout(() => this.#timeIsOver(), left)
  }

  /** Watches over `work`; `what` completes the sentence "... has taken more than 60 s". */
  async over<T>(what: string, work: Promise<T>): Promise<T> {
    const wait = { what, since: this.#clock }
    this.#waits.add(wait)
    try {
      return await work
    } finally {
      this.#waits.delete(wait)
    }
  }

  /** The same, and rejects when it trips. */
  race<T>(what: string, work: Promise<T>): Promise<T> {
    return Promise.race([this.over(what, work), this.hung])
  }

  #next(): Patience {
    return new Patience(this.#tickMs, () => {
      this.#clock += this.#tickMs
      this.#look()
      this.#tick = this.#next()
    })
  }

  #look(): void {
    const late = [...this.#waits].find(({ since }) => this.#clock - since > this.#limitMs)
    if (late === undefined) return
    this.#trip(
      `${late.what} has taken more than ${Math.round(this.#limitMs / 1000)} s`,
      UNEXPLAINED,
    )
  }

  #timeIsOver(): void {
    const [wait] = this.#waits
    this.#trip(`the time is over${wait === undefined ? '' : `, while ${wait.what}`}`, TOO_SHORT)
  }

  #trip(message: string, otherwise: string): void {
    if (this.#tripped) return
    this.#tripped = true
    const why = this.explain() ?? otherwise
    this.#hung(
      new P2pdmaError(message, {
        code: 'ETIMEDOUT',
        hint: `${why}: the run was given up, and the process ends`,
      }),
    )
  }

  get isTripped(): boolean {
    return this.#tripped
  }

  close(): void {
    this.#tick.end()
    if (this.#last !== null) clearTimeout(this.#last)
  }
}

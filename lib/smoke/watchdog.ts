/** Nothing that the smoke test waits for may take for ever. */
import { P2pdmaError } from '../errors.js'

interface Wait {
  what: string
  since: number
}

export class Watchdog {
  readonly #limitMs: number
  readonly #waits = new Set<Wait>()
  readonly #timer: NodeJS.Timeout
  #hung: (error: P2pdmaError) => void = () => {}
  /** Rejects when something has taken longer than the limit. */
  readonly hung: Promise<never>
  #tripped = false

  constructor(limitMs: number) {
    this.#limitMs = limitMs
    this.hung = new Promise((_resolve, reject) => (this.#hung = reject))
    this.hung.catch(() => {})
    this.#timer = setInterval(() => this.#look(), Math.min(1000, limitMs / 4))
  }

  /** Watches over `work`; `what` completes the sentence "... has taken more than 60 s". */
  async over<T>(what: string, work: Promise<T>): Promise<T> {
    const wait = { what, since: performance.now() }
    this.#waits.add(wait)
    try {
      return await work
    } finally {
      this.#waits.delete(wait)
    }
  }

  #look(): void {
    const now = performance.now()
    for (const { what, since } of this.#waits) {
      if (now - since <= this.#limitMs) continue
      const seconds = Math.round(this.#limitMs / 1000)
      const error = new P2pdmaError(`${what} has taken more than ${seconds} s`, {
        code: 'ETIMEDOUT',
        hint: 'the device or the library hangs: the run was given up, nothing was cleaned up',
      })
      this.#tripped = true
      this.#hung(error)
      return
    }
  }

  get isTripped(): boolean {
    return this.#tripped
  }

  close(): void {
    clearInterval(this.#timer)
  }
}

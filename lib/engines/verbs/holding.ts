/**
 * Who waits for completions keeps the process alive. It is let go a little
 * later than it could be: one who waits again at once, for one message after
 * the other, would pay for two calls each time.
 */
const LET_GO_MS = 20

export class Holding {
  readonly #set: (hold: boolean) => void
  readonly #holders = new Set<object>()
  #isHeld = false
  #timer: NodeJS.Timeout | null = null

  /** `set`: has whatever brings the completions keep the process alive, or not. */
  constructor(set: (hold: boolean) => void) {
    this.#set = set
  }

  hold(who: object, hold: boolean): void {
    if (hold) this.#holders.add(who)
    else this.#holders.delete(who)
    if (this.#isHeld === this.#holders.size > 0) return
    if (this.#isHeld) this.#timer ??= setTimeout(() => this.#letGo(), LET_GO_MS).unref()
    else this.#change(true)
  }

  #letGo(): void {
    this.#timer = null
    if (this.#holders.size === 0) this.#change(false)
  }

  #change(hold: boolean): void {
    this.#isHeld = hold
    this.#set(hold)
  }
}

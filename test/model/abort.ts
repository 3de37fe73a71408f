/** AbortController for the model: listeners run in order, at once, and an error in one escapes. */
type Listener = () => void

export class ModelSignal {
  #aborted = false
  reason: unknown = undefined
  readonly #listeners: Listener[] = []

  get aborted(): boolean {
    return this.#aborted
  }

  addEventListener(_type: 'abort', listener: Listener): void {
    if (!this.#listeners.includes(listener)) this.#listeners.push(listener)
  }

  removeEventListener(_type: 'abort', listener: Listener): void {
    const at = this.#listeners.indexOf(listener)
    if (at >= 0) this.#listeners.splice(at, 1)
  }

  throwIfAborted(): void {
    if (this.aborted) throw this.reason
  }

  /** Who still listens; a model checks that nothing is left behind. */
  get listenerCount(): number {
    return this.#listeners.length
  }

  fire(reason: unknown): void {
    if (this.#aborted) return
    this.#aborted = true
    this.reason = reason
    for (const listener of this.#listeners.splice(0)) listener()
  }
}

export class ModelAbortController {
  readonly signal = new ModelSignal()

  abort(reason: unknown = new Error('aborted')): void {
    this.signal.fire(reason)
  }
}

import { abortError } from '../../errors.js'

/**
 * The operations of a queue that listen to signals. One listener for each
 * signal, however many operations share it: to add and to remove one costs an
 * EventTarget as much as it has listeners.
 */
export class AbortWatch<T extends { fail(error: Error): void }> {
  readonly #watched = new Map<AbortSignal, { operations: Set<T>; listener: () => void }>()
  readonly #onAbort: (operation: T) => void

  /** `onAbort` is told of each before it is rejected. */
  constructor(onAbort: (operation: T) => void) {
    this.#onAbort = onAbort
  }

  add(signal: AbortSignal, operation: T): void {
    let entry = this.#watched.get(signal)
    if (entry === undefined) {
      const listener = () => this.#abort(signal)
      entry = { operations: new Set(), listener }
      this.#watched.set(signal, entry)
      signal.addEventListener('abort', listener, { once: true })
    }
    entry.operations.add(operation)
  }

  remove(signal: AbortSignal, operation: T): void {
    const entry = this.#watched.get(signal)
    if (entry === undefined) return
    entry.operations.delete(operation)
    if (entry.operations.size > 0) return
    this.#watched.delete(signal)
    signal.removeEventListener('abort', entry.listener)
  }

  #abort(signal: AbortSignal): void {
    const entry = this.#watched.get(signal)
    if (entry === undefined) return
    this.#watched.delete(signal)
    for (const operation of entry.operations) {
      this.#onAbort(operation)
      operation.fail(abortError(signal))
    }
  }
}

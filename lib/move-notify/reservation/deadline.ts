/** Waiting that ends: a promise raced against a time or an AbortSignal. */
import { abortError, checkOptions, checkSignal } from '../../errors.js'
import { Patience } from '../../kernel/patience.js'

export { Patience, waitUntil } from '../../kernel/patience.js'

/** A wait that can be given up. */
export interface Abortable {
  /** Rejects with ABORT_ERR; what was waited for is not held then. */
  signal?: AbortSignal | undefined
}

export function checkAbortable(options: Abortable): Abortable {
  checkSignal(checkOptions(options).signal)
  return options
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw abortError(signal)
}

/** One time limit for several waits, one after the other. */
export class Allowance {
  #left: number

  /** `ms` may be Infinity: no limit. */
  constructor(ms: number) {
    this.#left = ms
  }

  /**
   * `work`'s outcome; the rejection with `late()` when it has none within what is left; or
   * ABORT_ERR as soon as the signal says so. The work itself goes on. No timer and no
   * listener is left.
   */
  spend<T>(work: Promise<T>, late: () => Error, signal?: AbortSignal): Promise<T> {
    if (signal === undefined && this.#left === Infinity) return work
    if (signal?.aborted === true) {
      work.catch(() => {})
      return Promise.reject(abortError(signal))
    }
    return new Promise<T>((resolve, reject) => {
      const patience = new Patience(this.#left, () => {
        end()
        reject(late())
      })
      const onAbort = () => {
        end()
        if (signal !== undefined) reject(abortError(signal))
      }
      const end = () => {
        patience.end()
        signal?.removeEventListener('abort', onAbort)
        if (this.#left !== Infinity) this.#left = Math.max(0, patience.left)
      }
      signal?.addEventListener('abort', onAbort, { once: true })
      work.then(resolve, reject).finally(end)
    })
  }
}

/**
 * `work`'s outcome, or the rejection with `late()` when it has none after `ms` milliseconds
 * in which the event loop was free to see it, and one more turn (see Patience).
 */
export function withDeadline<T>(work: Promise<T>, ms: number, late: () => Error): Promise<T> {
  return new Allowance(ms).spend(work, late)
}

/** `work`'s outcome, or ABORT_ERR as soon as the signal says so; the work itself goes on. */
export function withSignal<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  return new Allowance(Infinity).spend(work, () => new Error('never'), signal)
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

/** Waiting that ends: a promise raced against a time or an AbortSignal. */
import { abortError, checkOptions, checkSignal } from '../errors.js'
import { Patience } from '../kernel/patience.js'

export { Patience, waitUntil } from '../kernel/patience.js'

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

/**
 * `work`'s outcome, or the rejection with `late()` when it has none after `ms` milliseconds
 * in which the event loop was free to see it, and one more turn (see Patience).
 */
export function withDeadline<T>(work: Promise<T>, ms: number, late: () => Error): Promise<T> {
  if (ms === Infinity) return work
  return new Promise<T>((resolve, reject) => {
    const patience = new Patience(ms, () => reject(late()))
    work.then(resolve, reject).finally(() => patience.end())
  })
}

/** `work`'s outcome, or ABORT_ERR as soon as the signal says so; the work itself goes on. */
export function withSignal<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work
  if (signal.aborted) {
    work.catch(() => {})
    return Promise.reject(abortError(signal))
  }
  return new Promise<T>((resolve, reject) => {
    const onAbort = () => reject(abortError(signal))
    signal.addEventListener('abort', onAbort, { once: true })
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort))
  })
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

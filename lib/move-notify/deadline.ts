/** Waiting that ends: a promise raced against a time or an AbortSignal. */
import { abortError, checkOptions, checkSignal } from '../errors.js'

/** Longest delay that setTimeout takes, ms; more would fire at once. */
const LONGEST = 0x7fffffff

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

/** `work`'s outcome, or the rejection with `late()` when it has none after `ms` milliseconds. */
export function withDeadline<T>(work: Promise<T>, ms: number, late: () => Error): Promise<T> {
  if (ms === Infinity) return work
  return new Promise<T>((resolve, reject) => {
    const timer = setTimeout(() => reject(late()), Math.min(ms, LONGEST))
    work.then(resolve, reject).finally(() => clearTimeout(timer))
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

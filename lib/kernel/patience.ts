/**
 * Bounds of waiting. A time that has passed is no proof that somebody else hangs: this
 * process may have been busy, stopped (SIGSTOP, a debugger) or not been run. So a bound
 * counts only time in which the event loop was free to look, and once it has passed
 * there is one more look.
 */

/** What a single turn takes off a bound at most, however long it was, ms. */
const SLICE_MS = 100
/** Of a short bound, one turn takes no more than this part. */
const SLICES = 4

function sliceOf(ms: number): number {
  return Math.max(1, Math.min(SLICE_MS, ms / SLICES))
}

/** Calls back once, after `ms` of free time and one more turn of I/O and completions. */
export class Patience implements Disposable {
  readonly #slice: number
  readonly #onEnd: () => void
  #left: number
  /** Of the slice under way. */
  #start = 0
  #timer: NodeJS.Timeout | undefined
  #turn: NodeJS.Immediate | undefined

  /** `ms` may be Infinity: no bound. */
  constructor(ms: number, onEnd: () => void) {
    this.#left = ms
    this.#slice = sliceOf(ms)
    this.#onEnd = onEnd
    if (ms !== Infinity) this.#wait()
  }

  #wait(): void {
    this.#start = performance.now()
    this.#timer = setTimeout(() => {
      this.#left = this.left
      if (this.#left >= 1) this.#wait()
      // Timers come before I/O in a turn of the loop, immediates after it.
      else this.#turn = setImmediate(this.#onEnd)
    }, this.#next)
  }

  get #next(): number {
    return Math.min(this.#slice, this.#left)
  }

  /** What is left of the bound, ms. */
  get left(): number {
    // A timer that was set late in a long turn fires at once: what counts is the clock.
    return this.#left - Math.min(this.#next, performance.now() - this.#start)
  }

  /** What was waited for has come: there will be no call. */
  end(): void {
    clearTimeout(this.#timer)
    clearImmediate(this.#turn)
  }

  [Symbol.dispose](): void {
    this.end()
  }
}

/**
 * Looks every `everyMs` milliseconds until `isTrue` says so; false when it does not
 * within `ms` of free time. The last look comes after the bound.
 */
export async function waitUntil(isTrue: () => boolean, ms: number, everyMs = 1): Promise<boolean> {
  const longest = Math.max(everyMs, sliceOf(ms))
  let left = ms
  while (!isTrue()) {
    if (left <= 0) return false
    const start = performance.now()
    await new Promise((resolve) => setTimeout(resolve, everyMs))
    left -= Math.min(longest, performance.now() - start)
  }
  return true
}

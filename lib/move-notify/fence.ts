import { brand } from '../brand.js'
import {
  P2pdmaError,
  checkMilliseconds,
  checkOptions,
  checkSignal,
  looksLike,
  typeError,
} from '../errors.js'
import { withDeadline, withSignal } from './deadline.js'

export interface WaitOptions {
  signal?: AbortSignal | undefined
  /** Milliseconds; unbounded when absent. */
  timeoutMs?: number | undefined
}

/**
 * Something that is signalled once, perhaps with an error (kernel:
 * include/linux/dma-fence.h). Made from work in flight; a `SyncFile`'s wait
 * is such work.
 */
export class Fence {
  static {
    brand(this, (value) => #done in value)
  }

  #signaled = false
  #error: Error | null = null
  readonly #done: Promise<void>

  private constructor(work: Promise<unknown>) {
    if (!looksLike(work, { then: 'function' })) throw typeError('work', 'a promise', work)
    const onDone = () => {
      this.#signaled = true
    }
    const onFailed = (error: unknown) => {
      this.#signaled = true
      this.#error = fenceError(error)
    }
    try {
      this.#done = work.then(onDone, onFailed)
    } catch {
      // An object with a promise's prototype.
      throw typeError('work', 'a Promise', work)
    }
  }

  /** Signalled when `work` settles; with its error when it rejects. */
  static of(work: Promise<unknown>): Fence {
    return new Fence(work)
  }

  /** A fence signalled by hand, and the function that signals it. */
  static create(): { fence: Fence; signal: (error?: Error) => void } {
    let signal: (error?: Error) => void = () => {}
    const work = new Promise<void>((resolve, reject) => {
      signal = (error) => (error === undefined ? resolve() : reject(error))
    })
    return { fence: new Fence(work), signal }
  }

  get signaled(): boolean {
    return this.#signaled
  }

  /** Why it failed, or null. */
  get error(): Error | null {
    return this.#error
  }

  /** Resolves once signalled; rejects with ERR_FENCE_FAILED, ETIMEDOUT or ABORT_ERR. */
  async wait(options: WaitOptions = {}): Promise<void> {
    const { signal, timeoutMs = Infinity } = checkOptions(options)
    checkSignal(signal)
    checkMilliseconds('timeoutMs', timeoutMs)
    if (!this.#signaled) {
      const late = () =>
        new P2pdmaError(`a fence was not signalled within ${timeoutMs} ms`, {
          code: 'ETIMEDOUT',
          hint: 'the work behind it hangs; its memory is quarantined, not reused',
        })
      const bounded = withDeadline(this.#done, timeoutMs, late)
      await withSignal(bounded, signal)
    }
    if (this.#error !== null) throw this.#error
  }
}

function fenceError(cause: unknown): P2pdmaError {
  const why = cause instanceof Error ? cause.message : String(cause)
  return new P2pdmaError(`a fence was signalled with an error: ${why}`, {
    code: 'ERR_FENCE_FAILED',
    cause,
  })
}

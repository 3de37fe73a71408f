import { brand } from '../../brand.js'
import {
  P2pdmaError,
  checkMilliseconds,
  checkOptions,
  checkSignal,
  looksLike,
  typeError,
} from '../../errors.js'
import { Allowance, throwIfAborted } from './deadline.js'

export interface FenceWaitOptions {
  signal?: AbortSignal | undefined
  /** Milliseconds; unbounded when absent. */
  timeoutMs?: number | undefined
}

/** @internal */
export interface CheckedWait {
  signal: AbortSignal | undefined
  timeoutMs: number
}

/** Checks a wait's options; throws ABORT_ERR where it is over before it begins. @internal */
export function checkWait(options: FenceWaitOptions): CheckedWait {
  const { signal, timeoutMs = Infinity } = checkOptions(options)
  checkSignal(signal)
  checkMilliseconds('timeoutMs', timeoutMs)
  throwIfAborted(signal)
  return { signal, timeoutMs }
}

/** Bounds a wait for one or more fences as a whole. @internal */
export function boundedWait(
  work: Promise<void>,
  { signal, timeoutMs }: CheckedWait,
): Promise<void> {
  const late = () =>
    new P2pdmaError(`a fence was not signalled within ${timeoutMs} ms`, {
      code: 'ETIMEDOUT',
      hint: 'the work behind it hangs; its memory is quarantined, not reused',
    })
  return new Allowance(timeoutMs).spend(work, late, signal)
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
  /** Never rejects. */
  readonly #done: Promise<void>

  private constructor(work: Promise<unknown>) {
    if (!looksLike(work, { then: 'function' })) throw typeError('work', 'a promise', work)
    try {
      this.#done = work.then(
        () => this.#signal(null),
        (error: unknown) => this.#signal(fenceError(error)),
      )
    } catch {
      // An object with a promise's prototype.
      throw typeError('work', 'a Promise', work)
    }
  }

  /** Once: as dma_fence_signal(), a second time changes nothing. */
  #signal(error: Error | null): void {
    if (this.#signaled) return
    this.#signaled = true
    this.#error = error
  }

  /** Signalled when `work` settles; with its error when it rejects. */
  static of(work: Promise<unknown>): Fence {
    return new Fence(work)
  }

  /** A fence signalled by hand, and the function that signals it: it is so when that returns. */
  static create(): { fence: Fence; signal: (error?: Error) => void } {
    let resolve = () => {}
    const fence = new Fence(new Promise<void>((done) => (resolve = done)))
    const signal = (error?: Error) => {
      fence.#signal(error === undefined ? null : fenceError(error))
      resolve()
    }
    return { fence, signal }
  }

  get signaled(): boolean {
    return this.#signaled
  }

  /** Why it failed, or null. */
  get error(): Error | null {
    return this.#error
  }

  /** Resolves once signalled; rejects with ERR_FENCE_FAILED, ETIMEDOUT or ABORT_ERR. */
  async wait(options: FenceWaitOptions = {}): Promise<void> {
    const limits = checkWait(options)
    if (!this.#signaled) await boundedWait(this.#done, limits)
    if (this.#error !== null) throw this.#error
  }

  /** Resolves once signalled, with an error or without. @internal */
  get done(): Promise<void> {
    return this.#done
  }
}

function fenceError(cause: unknown): P2pdmaError {
  const why = cause instanceof Error ? cause.message : String(cause)
  const { errno, syscall } = (cause ?? {}) as { errno?: unknown; syscall?: unknown }
  return new P2pdmaError(`a fence was signalled with an error: ${why}`, {
    code: 'ERR_FENCE_FAILED',
    errno: typeof errno === 'number' ? errno : undefined,
    syscall: typeof syscall === 'string' ? syscall : undefined,
    cause,
  })
}

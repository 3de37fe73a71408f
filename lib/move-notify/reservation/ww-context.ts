/**
 * The two things that the locks of ww-mutex.ts are taken with: the class, which
 * decides who backs off, and the context, which is one task's acquisition
 * (ww_class and ww_acquire_ctx in include/linux/ww_mutex.h).
 */
import { brand } from '../../brand.js'
import { closedError, P2pdmaError, typeError } from '../../errors.js'

export type WwAlgorithm = 'wait-die' | 'wound-wait'

/** @internal A wait that can be ended from outside. */
export interface Waiting {
  kill(reason: Error): void
}

/** Locks that may be taken together. dma_resv's class is Wait-Die. */
export class WwClass {
  static {
    brand(this, (value) => #stamp in value)
  }

  readonly algorithm: WwAlgorithm
  #stamp = 0

  constructor(algorithm: WwAlgorithm) {
    if (algorithm !== 'wait-die' && algorithm !== 'wound-wait') {
      throw typeError('algorithm', "'wait-die' or 'wound-wait'", algorithm)
    }
    this.algorithm = algorithm
  }

  /** Starts an acquisition (ww_acquire_init). The earlier one is the older, and wins. */
  acquire(): AcquireContext {
    return new AcquireContext(this, ++this.#stamp)
  }
}

/**
 * One task's acquisition of several locks. It keeps its stamp over all its
 * retries: in the end it is the oldest, which is why it cannot starve.
 */
export class AcquireContext {
  static {
    brand(this, (value) => #state in value)
  }

  /** Its age within the class: the smaller, the older. */
  readonly stamp: number
  readonly class: WwClass
  /** Locks held. Written by WwMutex only. */
  readonly held: number = 0
  /** Wound-Wait: an older context wants a lock of ours. Written by WwMutex only. */
  readonly wounded: boolean = false
  /** @internal The one lock it waits for. */
  waiter: Waiting | null = null
  #state: 'acquiring' | 'done' | 'finished' = 'acquiring'

  /** @internal Use `WwClass.acquire()`. */
  constructor(wwClass: WwClass, stamp: number) {
    if (!(wwClass instanceof WwClass)) throw typeError('wwClass', 'a WwClass', wwClass)
    this.class = wwClass
    this.stamp = stamp
  }

  /** Promises to take no more locks (ww_acquire_done); a later lock throws. */
  done(): void {
    if (this.#state === 'finished') throw closedError('acquire context')
    this.#state = 'done'
  }

  /** Ends the acquisition (ww_acquire_fini); a second time is a no-op. Throws while locks are held. */
  fini(): void {
    if (this.held > 0 || this.waiter !== null) {
      throw new P2pdmaError(
        this.held > 0 ? `acquire context still holds ${this.held} locks` : 'acquire context waits',
        { code: 'ERR_INVALID_STATE' },
      )
    }
    this.#state = 'finished'
  }

  [Symbol.dispose](): void {
    this.fini()
  }

  /** @internal Throws unless it may take a lock of this class now. */
  check(wwClass: WwClass): void {
    if (this.#state === 'finished') throw closedError('acquire context')
    if (this.class !== wwClass) {
      throw new P2pdmaError('context is of another class than the lock', {
        code: 'ERR_INVALID_ARG_VALUE',
        argument: 'context',
      })
    }
    if (this.#state === 'done' || this.waiter !== null) {
      throw new P2pdmaError(
        this.waiter === null ? 'acquire context is done' : 'acquire context waits for another lock',
        { code: 'ERR_INVALID_STATE' },
      )
    }
  }
}

type Writable = { -readonly [K in 'held' | 'wounded']: AcquireContext[K] }

/** @internal */
export function retain(context: Writable): void {
  context.held++
}

/** @internal With the last lock gone it has backed off, and the wound is healed. */
export function release(context: Writable): void {
  if (--context.held === 0) context.wounded = false
}

/** @internal */
export function markWounded(context: Writable): void {
  context.wounded = true
}

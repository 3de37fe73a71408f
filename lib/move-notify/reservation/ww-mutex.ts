/**
 * The kernel's wait/wound mutex for tasks that take turns on one event loop:
 * a lock of which one needs several, in no fixed order, without deadlock.
 * Rules: Documentation/locking/ww-mutex-design.rst; order of the wait list and
 * who backs off: kernel/locking/ww_mutex.h.
 *
 * The lock is handed over inside `unlock()`, so one with waiters is never free
 * and nobody overtakes them. The races that ww_mutex_set_context_fastpath()
 * repairs do not exist here.
 */
import { constants } from 'node:os'
import { brand, notOwn } from '../../brand.js'
import {
  abortError,
  checkOptions,
  checkSignal,
  looksLike,
  P2pdmaError,
  typeError,
} from '../../errors.js'
import {
  AcquireContext,
  markWounded,
  release,
  retain,
  WwClass,
  type Waiting,
} from './ww-context.js'

export { AcquireContext, WwClass } from './ww-context.js'
export type { WwAlgorithm } from './ww-context.js'

export interface LockOptions {
  /** Gives up waiting: rejects with ABORT_ERR, the lock not held. */
  signal?: AbortSignal | undefined
}

/** One who waits. Exists only where a lock is contended. */
class Waiter implements Waiting {
  readonly mutex: WwMutex
  readonly context: AcquireContext | null
  readonly resolve: () => void
  readonly reject: (reason: Error) => void
  readonly signal: AbortSignal | undefined
  readonly onAbort: () => void
  next: Waiter | null = null

  constructor(
    mutex: WwMutex,
    context: AcquireContext | null,
    signal: AbortSignal | undefined,
    resolve: () => void,
    reject: (reason: Error) => void,
  ) {
    this.mutex = mutex
    this.context = context
    this.resolve = resolve
    this.reject = reject
    this.signal = signal
    this.onAbort = () => {
      if (signal !== undefined) this.kill(abortError(signal))
    }
  }

  /** Ends the wait with the lock. */
  grant(): void {
    this.#end()
    this.resolve()
  }

  /** Ends the wait without it. */
  kill(reason: Error): void {
    this.#end()
    this.reject(reason)
  }

  #end(): void {
    this.mutex.remove(this)
    if (this.context !== null) this.context.waiter = null
    this.signal?.removeEventListener('abort', this.onAbort)
  }
}

let isMutex: (value: unknown) => value is WwMutex

export class WwMutex {
  static {
    isMutex = (value): value is WwMutex =>
      typeof value === 'object' && value !== null && #waiters in value
    brand(this, isMutex, { hot: ['locked'], promising: ['lock', 'lockSlow'] })
  }

  readonly #class: WwClass
  /** `true`: locked without a context. */
  #owner: AcquireContext | true | null = null
  /** First of those who wait; the ones with a context are in the order of their stamps. */
  #waiters: Waiter | null = null

  constructor(wwClass: WwClass) {
    if (!(wwClass instanceof WwClass)) throw typeError('wwClass', 'a WwClass', wwClass)
    this.#class = wwClass
  }

  get locked(): boolean {
    if (!isMutex(this)) throw notOwn('WwMutex', this)
    return this.#owner !== null
  }

  /** Under which context it is held; null as well when it is held without one. */
  get holder(): AcquireContext | null {
    return this.#owner === true ? null : this.#owner
  }

  /** Takes the lock if it is free (ww_mutex_trylock). Allocates nothing. */
  tryLock(context?: AcquireContext): boolean {
    if (context !== undefined) checkContext(context, this.#class)
    if (this.#owner !== null) return false
    this.#own(context ?? null)
    return true
  }

  /**
   * Takes the lock (ww_mutex_lock). Rejects with EDEADLK where the context
   * must unlock all it holds and come back with `lockSlow()`, with EALREADY
   * where it holds this lock, with ABORT_ERR. Without a context: in turn, and
   * never together with another lock.
   */
  lock(context?: AcquireContext, options?: LockOptions): Promise<void> {
    try {
      const signal = signalOf(options)
      if (signal?.aborted === true) throw abortError(signal)
      if (this.tryLock(context)) return Promise.resolve()
      return this.#wait(context ?? null, signal)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /**
   * Waits for the lock that was contended, after a full back-off
   * (ww_mutex_lock_slow). Who holds nothing is in nobody's way, so this never
   * rejects with EDEADLK.
   */
  lockSlow(context: AcquireContext, options?: LockOptions): Promise<void> {
    if (!(context instanceof AcquireContext)) {
      return Promise.reject(typeError('context', 'an AcquireContext', context))
    }
    if (context.held > 0) {
      return Promise.reject(
        new P2pdmaError(`lockSlow() with ${context.held} locks held: unlock them first`, {
          code: 'ERR_INVALID_STATE',
        }),
      )
    }
    return this.lock(context, options)
  }

  /** Hands the lock to the first who waits. Throws EPERM unless held under exactly this context. */
  unlock(context?: AcquireContext): void {
    const owner = this.#owner
    if (owner === null || owner !== (context ?? true)) {
      throw new P2pdmaError(
        owner === null ? 'unlock() of a lock not held' : 'unlock() by another than the holder',
        { code: 'EPERM', errno: -constants.errno.EPERM, syscall: 'ww_mutex_unlock' },
      )
    }
    if (owner !== true) release(owner)
    this.#owner = null
    const first = this.#waiters
    if (first === null) return
    this.#own(first.context)
    first.grant()
  }

  /** @internal Takes a waiter out of the list. */
  remove(waiter: Waiter): void {
    if (this.#waiters === waiter) {
      this.#waiters = waiter.next
    } else {
      let before = this.#waiters
      while (before !== null && before.next !== waiter) before = before.next
      if (before !== null) before.next = waiter.next
    }
    waiter.next = null
  }

  #own(context: AcquireContext | null): void {
    this.#owner = context ?? true
    if (context !== null) retain(context)
  }

  /** __mutex_lock_common() from the point where the lock is seen held. */
  #wait(context: AcquireContext | null, signal: AbortSignal | undefined): Promise<void> {
    if (context !== null) {
      if (this.#owner === context) throw lockError('EALREADY', 'the context holds this lock')
      if (this.#mustBackOff(context)) throw deadlock()
    }
    return new Promise((resolve, reject) => {
      const waiter = new Waiter(this, context, signal, resolve, reject)
      this.#insert(waiter)
      signal?.addEventListener('abort', waiter.onAbort, { once: true })
      if (context === null) return
      context.waiter = waiter
      if (context.class.algorithm === 'wound-wait') this.#wound(context)
      else this.#killBehind(waiter, context)
    })
  }

  /** __ww_mutex_check_kill(). Who holds nothing may always wait. */
  #mustBackOff(context: AcquireContext): boolean {
    if (context.held === 0) return false
    if (context.class.algorithm === 'wound-wait') return context.wounded
    const owner = this.#owner
    if (owner !== null && owner !== true && owner.stamp < context.stamp) return true
    // The first with a context is the oldest of those who wait.
    let first = this.#waiters
    while (first !== null && first.context === null) first = first.next
    return first !== null && first.context !== null && first.context.stamp < context.stamp
  }

  /**
   * __ww_mutex_add_waiter(): before the first younger one. Those without a
   * context are passed over, not counted; one without goes to the end.
   */
  #insert(waiter: Waiter): void {
    const stamp = waiter.context?.stamp ?? Infinity
    let after: Waiter | null = null
    let next = this.#waiters
    while (next !== null && (next.context === null || next.context.stamp < stamp)) {
      after = next
      next = next.next
    }
    // Without a younger one in the list its place is the end, which is where the walk stopped.
    waiter.next = next
    if (after === null) this.#waiters = waiter
    else after.next = waiter
  }

  /** __ww_mutex_die(): the younger ones behind that hold locks back off now. */
  #killBehind(waiter: Waiter, context: AcquireContext): void {
    for (let behind = waiter.next; behind !== null;) {
      const next = behind.next
      const other = behind.context
      if (other !== null && other.held > 0 && other.stamp > context.stamp) behind.kill(deadlock())
      behind = next
    }
  }

  /**
   * __ww_mutex_wound(): a younger holder backs off at its next contended lock;
   * if it waits for one, now. A context without locks wounds nobody: nobody
   * can be waiting for it.
   */
  #wound(context: AcquireContext): void {
    const owner = this.#owner
    if (context.held === 0 || owner === null || owner === true) return
    if (owner.stamp < context.stamp) return
    markWounded(owner)
    owner.waiter?.kill(deadlock())
  }
}

/**
 * Takes all the locks, in any order, under one context: the loop of
 * ww-mutex-design.rst with the stamp kept and the contended lock taken first.
 * Locks named twice, or held before, are taken once. Returns undefined, without
 * a promise, when none was contended. Rejects with all it took unlocked; with
 * EDEADLK only if the context holds other locks, which its owner has to unlock.
 */
export function lockAll(
  context: AcquireContext,
  mutexes: Iterable<WwMutex>,
  options?: LockOptions,
): Promise<void> | void {
  let list: readonly WwMutex[]
  try {
    list = checkList(context, mutexes)
    const signal = signalOf(options)
    if (signal?.aborted === true) throw abortError(signal)
  } catch (error) {
    return Promise.reject(error)
  }
  const before = context.held > 0 ? new Set(list.filter((m) => m.holder === context)) : null
  try {
    for (const mutex of list) {
      if (mutex.tryLock(context) || mutex.holder === context) continue
      return lockContended(context, [...list], before, options)
    }
  } catch (error) {
    unlockAll(context, list, before)
    return Promise.reject(error)
  }
}

function checkList(context: AcquireContext, mutexes: Iterable<WwMutex>): readonly WwMutex[] {
  if (!(context instanceof AcquireContext)) throw typeError('context', 'a context', context)
  if (!looksLike(mutexes, { [Symbol.iterator]: 'function' }) || ArrayBuffer.isView(mutexes)) {
    throw typeError('mutexes', 'iterable', mutexes)
  }
  const list: readonly WwMutex[] = Array.isArray(mutexes) ? mutexes : [...mutexes]
  for (const mutex of list) {
    if (!(mutex instanceof WwMutex)) throw typeError('mutexes', 'WwMutex objects', mutex)
  }
  return list
}

async function lockContended(
  context: AcquireContext,
  list: readonly WwMutex[],
  before: Set<WwMutex> | null,
  options: LockOptions | undefined,
): Promise<void> {
  let contended: WwMutex | null = null
  for (;;) {
    let current: WwMutex | null = contended
    try {
      if (contended !== null) await contended.lockSlow(context, options)
      for (const mutex of list) {
        if (mutex.holder === context || mutex.tryLock(context)) continue
        current = mutex
        await mutex.lock(context, options)
      }
      return
    } catch (error) {
      unlockAll(context, list, before)
      if (context.held > 0 || !isDeadlock(error)) throw error
      contended = current
    }
  }
}

function unlockAll(
  context: AcquireContext,
  list: readonly WwMutex[],
  except: Set<WwMutex> | null,
): void {
  for (const mutex of list) {
    if (mutex.holder === context && except?.has(mutex) !== true) mutex.unlock(context)
  }
}

/** Whether this says: unlock all you hold, then `lockSlow()` the contended lock. */
export function isDeadlock(error: unknown): boolean {
  return error instanceof P2pdmaError && error.code === 'EDEADLK'
}

/** Checked before anybody waits: a waiter without a listener would be granted the lock. */
function signalOf(options: LockOptions | undefined): AbortSignal | undefined {
  if (options === undefined) return undefined
  const { signal } = checkOptions(options)
  checkSignal(signal)
  return signal
}

function checkContext(context: AcquireContext, wwClass: WwClass): void {
  if (!(context instanceof AcquireContext)) throw typeError('context', 'a context', context)
  context.check(wwClass)
}

function deadlock(): P2pdmaError {
  return lockError('EDEADLK', 'an older context comes first: unlock all, then lockSlow()')
}

function lockError(code: 'EDEADLK' | 'EALREADY', message: string): P2pdmaError {
  return new P2pdmaError(message, {
    code,
    errno: -constants.errno[code],
    syscall: 'ww_mutex_lock',
  })
}

/**
 * What every object of libibverbs has in common: it closes once, off the event
 * loop, after the calls that use it and after its children.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { brand } from '../../brand.js'
import { closedError, looksLike, typeError } from '../../errors.js'
import { type NativeKinds, nativeVerbs, type NativeVerbs } from '../../native-verbs.js'
import { call, callAsync, type CallOptions } from '../call.js'

/** How long a close waits for a child that the garbage collector has, ms: rxe takes up to 50 s. */
const PATIENCE = 60_000

/** `Kind`: of the native object that it owns. */
export abstract class VerbsObject<Kind extends string = string> {
  static {
    brand(this, (value) => #native in value, { promising: ['close', 'make'] })
  }

  /** @internal */
  protected readonly closing: CallOptions = {}
  readonly #native: NativeKinds[Kind]
  readonly #parents: readonly VerbsObject[]
  /** Weakly: what nobody else holds is the garbage collector's to close. */
  readonly #children = new Set<WeakRef<VerbsObject>>()
  readonly #self = new WeakRef<VerbsObject>(this)
  readonly #calls = new Set<Promise<unknown>>()
  #sweepAt = 64
  #closing: Promise<void> | null = null

  /** @internal */
  protected constructor(native: NativeKinds[Kind], parents: readonly VerbsObject[]) {
    if (!looksLike(native, { closed: 'boolean' })) {
      throw typeError('native', 'a native object: this class has no public constructor', native)
    }
    this.#native = native
    this.#parents = parents
    for (const parent of parents) parent.#adopt(this.#self)
  }

  #adopt(child: WeakRef<VerbsObject>): void {
    if (this.#children.size >= this.#sweepAt) {
      for (const each of this.#children) if (each.deref() === undefined) this.#children.delete(each)
      this.#sweepAt = Math.max(64, 2 * this.#children.size)
    }
    this.#children.add(child)
  }

  /** Whether it was made of that one. @internal */
  isOf(parent: VerbsObject): boolean {
    return this.#parents.includes(parent)
  }

  /** What it is called in messages. @internal */
  protected abstract get what(): string

  get closed(): boolean {
    return this.#closing !== null || this.#native.closed
  }

  /** The native object, for the other classes and the engine; ERR_CLOSED after `close()`. @internal */
  get handle(): NativeKinds[Kind] {
    if (this.closed) throw closedError(this.what)
    return this.#native
  }

  /** A call off the loop, which a close waits for. @internal */
  protected async run<T>(fn: () => Promise<T>, options?: CallOptions): Promise<T> {
    if (this.closed) throw closedError(this.what)
    const running = callAsync(fn, options)
    this.#calls.add(running)
    try {
      return await running
    } finally {
      this.#calls.delete(running)
    }
  }

  /**
   * A call that makes a child of this and of `others`; it is taken back where one closes meanwhile.
   * @internal
   */
  protected make<Made extends NativeVerbs, Child>(
    others: readonly VerbsObject[],
    fn: () => Promise<Made>,
    wrap: (native: Made) => Child,
    options?: CallOptions,
  ): Promise<Child> {
    return this.run(async () => {
      const native = await fn()
      const gone = [this, ...others].find(({ closed }) => closed)
      try {
        if (gone !== undefined) throw closedError(gone.what)
        return wrap(native)
      } catch (error) {
        await nativeVerbs()
          .verbsClose(native)
          .catch(() => {})
        throw error
      }
    }, options)
  }

  /** Closes its children, and then itself. Idempotent; rejects where the kernel refuses. */
  close(): Promise<void> {
    this.#closing ??= this.#native.closed ? Promise.resolve() : this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    try {
      this.onClose()
      await Promise.allSettled(this.#calls)
      await Promise.all([...this.#children].map(async (child) => child.deref()?.close()))
      await this.#release()
    } catch (error) {
      this.#closing = null
      throw error
    }
    this.#leave()
  }

  /** EBUSY: the reaper of what was collected has not come to a child yet. */
  async #release(): Promise<void> {
    const start = performance.now()
    for (let wait = 1; ; wait = Math.min(2 * wait, 100)) {
      try {
        await callAsync(() => nativeVerbs().verbsClose(this.#native), this.closing)
        return
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException
        if (code !== 'EBUSY' || performance.now() - start > PATIENCE) throw error
        await sleep(wait)
      }
    }
  }

  #leave(): void {
    for (const parent of this.#parents) parent.#children.delete(this.#self)
  }

  /** Closes it on the event loop; what it has of children stays. @internal */
  protected closeHere(): void {
    if (this.closed) return
    this.onClose()
    call(() => {
      nativeVerbs().verbsCloseNow(this.#native)
    }, this.closing)
    this.#leave()
  }

  /** Before anything else of a close. @internal */
  protected onClose(): void {
    return
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

/** What every class has that owns a file descriptor. */
import { brand } from '../brand.js'
import { closedError, looksLike, typeError } from '../errors.js'
import { type FdStat, type NativeFd, native } from '../native.js'
import { call } from './call.js'
import { startWait, type Wait, type WaitOptions } from './poll.js'

export abstract class OwnedFd {
  static {
    brand(this, (value) => #fd in value)
  }

  readonly #fd: NativeFd
  #waits: Set<Wait> | null = null

  /** @internal */
  protected constructor(fd: NativeFd) {
    if (!looksLike(fd, { number: 'number' })) {
      throw typeError('fd', 'a native descriptor', fd)
    }
    this.#fd = fd
  }

  /** The descriptor's number, or -1 after `close()`. It stays this object's own. */
  get fd(): number {
    return this.#fd.number
  }

  get closed(): boolean {
    return this.#fd.number < 0
  }

  /** The native descriptor, for the other classes of lib/kernel; ERR_CLOSED after `close()`. @internal */
  get handle(): NativeFd {
    if (this.#fd.number < 0) throw closedError(this.constructor.name)
    return this.#fd
  }

  /** Type, size and identity of the file. */
  stat(): FdStat {
    return call(() => native.statFd(this.handle))
  }

  /** A second owner of the same file, with a descriptor of its own. */
  abstract dup(): OwnedFd

  /** Gives the file away as a plain descriptor, the caller's to close; this is closed. */
  release(): number {
    const fd = call(() => native.giveFd(this.handle))
    this.close()
    return fd
  }

  /** Waits for one event of `Ready`; `close()` rejects it with ERR_CLOSED. */
  protected async waitFor(event: number, options: WaitOptions): Promise<void> {
    const wait = startWait(this.handle, event, options)
    this.#waits ??= new Set()
    this.#waits.add(wait)
    try {
      await wait.promise
    } finally {
      this.#waits?.delete(wait)
    }
  }

  /** Closes the descriptor; a call under way keeps it until it returns. Idempotent. */
  close(): void {
    this.#fd.close()
    const waits = this.#waits
    this.#waits = null
    for (const wait of waits ?? []) wait.cancel(closedError(this.constructor.name))
  }

  [Symbol.dispose](): void {
    this.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close()
    return Promise.resolve()
  }
}

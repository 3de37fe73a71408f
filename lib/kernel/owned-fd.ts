/** What every class has that owns a file descriptor. */
import { closedError } from '../errors.js'
import { type FdStat, type NativeFd, native } from '../native.js'
import { call } from './call.js'

export abstract class OwnedFd {
  readonly #fd: NativeFd

  protected constructor(fd: NativeFd) {
    this.#fd = fd
  }

  /** The descriptor's number, or -1 after `close()`. It stays this object's own. */
  get fd(): number {
    return this.#fd.number
  }

  get closed(): boolean {
    return this.#fd.number < 0
  }

  /** The native descriptor, for the other classes of lib/kernel; ERR_CLOSED after `close()`. */
  get handle(): NativeFd {
    if (this.#fd.number < 0) throw closedError(this.constructor.name)
    return this.#fd
  }

  /** Size and identity, as fstat(2) and lseek(2) see them. */
  stat(): FdStat {
    return call(() => native.statFd(this.handle))
  }

  /** A second owner of the same file, with a descriptor of its own. */
  abstract dup(): OwnedFd

  /** Closes the descriptor; a call under way keeps it until it returns. Idempotent. */
  close(): void {
    this.#fd.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close()
    return Promise.resolve()
  }
}

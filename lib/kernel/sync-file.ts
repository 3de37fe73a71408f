/** A sync_file: one or more fences as a file descriptor. */
import { brand } from '../brand.js'
import { P2pdmaError, checkInteger, typeError } from '../errors.js'
import { native, type NativeFd } from '../native.js'
import { call } from './call.js'
import { OwnedFd } from './owned-fd.js'
import { Ready, type WaitOptions } from './poll.js'

export interface FenceInfo {
  /** The driver that signals it. */
  readonly driver: string
  /** The driver's name for its timeline. */
  readonly timeline: string
  /** 0 while active, 1 once signalled, a negative errno where it failed. */
  readonly status: number
  /** When it was signalled (CLOCK_MONOTONIC); 0 while active. */
  readonly timestampNs: bigint
}

export interface SyncFileInfo {
  readonly name: string
  /** Of all its fences together: 0 while one is active, 1 signalled, or a negative errno. */
  readonly status: number
  readonly fences: readonly FenceInfo[]
}

export class SyncFile extends OwnedFd {
  static {
    brand(this)
  }

  private constructor(fd: NativeFd) {
    super(fd)
  }

  /** Owns a descriptor fresh from the kernel. @internal */
  static fromHandle(fd: NativeFd): SyncFile {
    return new SyncFile(fd)
  }

  /** Takes over an open sync_file by number; ERR_NOT_SYNC_FILE for another kind of file. */
  static adopt(fd: number): SyncFile {
    checkInteger('fd', fd, 0, 0x7fffffff)
    // Looked at through a duplicate: a file of another kind stays the caller's.
    const look = call(() => native.dupFd(fd))
    try {
      native.syncFileInfo(look, 0)
    } catch (cause) {
      throw new P2pdmaError('fd is not a sync_file', {
        code: 'ERR_NOT_SYNC_FILE',
        argument: 'fd',
        cause,
      })
    } finally {
      look.close()
    }
    return new SyncFile(call(() => native.adoptFd(fd)))
  }

  /** 0 while active, 1 once signalled, a negative errno where it failed. */
  get status(): number {
    return call(() => native.syncFileInfo(this.handle, 0)).status
  }

  /** All that the kernel tells: asked for twice, for the number and then for the fences. */
  info(): SyncFileInfo {
    let capacity = 0
    for (;;) {
      const { name, status, count, fences } = call(() => native.syncFileInfo(this.handle, capacity))
      if (fences.length === count) return { name, status, fences }
      capacity = count
    }
  }

  /**
   * Resolves when every fence has signalled. Rejects with ERR_FENCE_FAILED
   * where one signalled an error (`errno` has it), ETIMEDOUT, ABORT_ERR, or
   * ERR_CLOSED where this is closed meanwhile.
   */
  async wait(options: WaitOptions = {}): Promise<void> {
    // Looked at through a duplicate, should this be closed in between.
    using held = this.dup()
    await this.waitFor(Ready.READABLE, options)
    const { status } = held
    if (status < 0) {
      throw new P2pdmaError(`The fence failed with error ${status}`, {
        code: 'ERR_FENCE_FAILED',
        errno: status,
      })
    }
  }

  /** A new sync_file with the fences of both. Both stay as they are. */
  merge(other: SyncFile, name = 'p2pdma'): SyncFile {
    if (!(other instanceof SyncFile)) throw typeError('other', 'a SyncFile', other)
    if (typeof name !== 'string') throw typeError('name', 'a string', name)
    return new SyncFile(call(() => native.syncFileMerge(this.handle, other.handle, name)))
  }

  /** Tells the driver by when somebody needs it (CLOCK_MONOTONIC, nanoseconds). */
  setDeadline(deadlineNs: bigint): void {
    call(() => native.syncFileSetDeadline(this.handle, deadlineNs, 0), {
      doing: 'sync-file.deadline',
    })
  }

  dup(): SyncFile {
    return new SyncFile(call(() => native.dupFd(this.handle)))
  }
}

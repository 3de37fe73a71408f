/** A dma-buf: one file descriptor of it. Two objects may be of the same buffer. */
import { readFileSync } from 'node:fs'
import { brand } from '../brand.js'
import {
  P2pdmaError,
  checkInteger,
  checkOptions,
  checkSignal,
  rangeError,
  typeError,
} from '../errors.js'
import { native, type NativeFd } from '../native.js'
import { call } from './call.js'
import { beginCpuAccess, type CpuAccessMode, endCpuAccess, modeFlags } from './cpu-access.js'
import { type DmaBufInfo, parseFdinfo } from './fdinfo.js'
import { Mapping, type MapOptions } from './mapping.js'
import { OwnedFd } from './owned-fd.js'
import { Ready, type WaitOptions } from './poll.js'
import { SyncFile } from './sync-file.js'

/** DMA_BUF_NAME_LEN less the NUL. */
const MAX_NAME = 31

const exchange = { doing: 'sync-file.exchange' } as const

export interface CpuAccessOptions {
  /** The window's start, bytes, page-aligned. Default 0. */
  offset?: number
  /** The window's bytes, at most 4 GiB. Default: to the end. */
  length?: number
  /** Aborts the wait for the buffer's fences. */
  signal?: AbortSignal
}

export class DmaBuf extends OwnedFd {
  static {
    brand(this, null, { promising: ['readable', 'writable'] })
  }

  private constructor(fd: NativeFd) {
    super(fd)
  }

  /** Owns a descriptor fresh from the kernel. @internal */
  static fromHandle(fd: NativeFd): DmaBuf {
    return new DmaBuf(fd)
  }

  /** Owns a duplicate of somebody's descriptor; ERR_NOT_DMA_BUF for another kind of file. */
  static ofDuplicate(fd: number): DmaBuf {
    checkInteger('fd', fd, 0, 0x7fffffff)
    const copy = call(() => native.dupFd(fd))
    try {
      if (call(() => native.statFd(copy)).type === 'dma-buf') return new DmaBuf(copy)
    } catch (error) {
      copy.close()
      throw error
    }
    copy.close()
    throw new P2pdmaError('fd is not a dma-buf', { code: 'ERR_NOT_DMA_BUF', argument: 'fd' })
  }

  /** Takes over an open dma-buf by number; ERR_NOT_DMA_BUF for another kind of file. */
  static adopt(fd: number): DmaBuf {
    // Looked at through a duplicate: a file of another kind stays the caller's.
    DmaBuf.ofDuplicate(fd).close()
    return new DmaBuf(call(() => native.adoptFd(fd)))
  }

  /** Bytes. */
  get size(): number {
    return this.stat().size
  }

  /** The same for every descriptor of the same buffer, and for no other buffer that lives. */
  get identity(): string {
    const { device, inode } = this.stat()
    return `${device}:${inode}`
  }

  /** Whether both are of the same buffer. */
  equals(other: DmaBuf): boolean {
    if (!(other instanceof DmaBuf)) throw typeError('other', 'a DmaBuf', other)
    return this.identity === other.identity
  }

  /** What the kernel tells of it: size, references, exporter, name. */
  info(): DmaBufInfo {
    const path = `/proc/self/fdinfo/${this.handle.number}`
    const info = parseFdinfo(call(() => readFileSync(path, 'utf8')))
    if (info === null) {
      throw new P2pdmaError('This kernel tells nothing of a dma-buf in fdinfo', {
        code: 'ERR_UNSUPPORTED',
        hint: 'needs Linux 5.3 or later',
      })
    }
    return info
  }

  /** Its name; empty where it has none. */
  get name(): string {
    return this.info().name
  }

  /** Names it for those who look at /proc and debugfs; at most 31 bytes. */
  setName(name: string): void {
    if (typeof name !== 'string') throw typeError('name', 'a string', name)
    if (Buffer.byteLength(name) > MAX_NAME) {
      throw rangeError('name', `at most ${MAX_NAME} bytes`, name)
    }
    call(() => native.dmaBufSetName(this.handle, name), { doing: 'dma-buf.name' })
  }

  /** Maps it shared. Around any access of the CPU's put `beginCpuAccess` and `endCpuAccess`. */
  map(options: MapOptions = {}): Mapping {
    return Mapping.ofHandle(this.handle, options)
  }

  /**
   * Begins CPU access: waits until those are done that the mode conflicts
   * with, on the event loop, then has the exporter make the memory coherent.
   */
  async beginCpuAccess(mode: CpuAccessMode, options: WaitOptions = {}): Promise<void> {
    const writes = modeFlags(mode) !== modeFlags('r')
    await (writes ? this.writable(options) : this.readable(options))
    await beginCpuAccess(this.handle, mode)
  }

  /** Ends CPU access that began with the same mode. */
  async endCpuAccess(mode: CpuAccessMode): Promise<void> {
    await endCpuAccess(this.handle, mode)
  }

  /**
   * Gives `fn` a view of the memory between begin and end of CPU access, and
   * resolves with what it returns. The view is detached when that settles.
   */
  async withCpuAccess<T>(
    mode: CpuAccessMode,
    fn: (view: Uint8Array<ArrayBuffer>) => T | Promise<T>,
    options: CpuAccessOptions = {},
  ): Promise<T> {
    if (typeof fn !== 'function') throw typeError('fn', 'a function', fn)
    const { offset = 0, length, signal } = checkOptions(options)
    checkSignal(signal)
    // A descriptor of its own: the access ends even where `fn` closes this one.
    using held = this.dup()
    using mapping = held.map({ offset, ...(length === undefined ? {} : { length }) })
    await held.beginCpuAccess(mode, { signal })
    try {
      return await fn(new Uint8Array(mapping.view()))
    } finally {
      mapping.unmap()
      await held.endCpuAccess(mode)
    }
  }

  /** A snapshot of the fences that such an access would wait for. */
  exportSyncFile(mode: CpuAccessMode): SyncFile {
    const flags = modeFlags(mode)
    return SyncFile.fromHandle(
      call(() => native.dmaBufExportSyncFile(this.handle, flags), exchange),
    )
  }

  /** Adds a fence that stands for such an access, for others to wait on. */
  importSyncFile(mode: CpuAccessMode, syncFile: SyncFile): void {
    if (!(syncFile instanceof SyncFile)) throw typeError('syncFile', 'a SyncFile', syncFile)
    const flags = modeFlags(mode)
    call(() => native.dmaBufImportSyncFile(this.handle, flags, syncFile.handle), exchange)
  }

  /** Resolves when no writer is left (poll's POLLIN). */
  readable(options: WaitOptions = {}): Promise<void> {
    return this.waitFor(Ready.READABLE, options)
  }

  /** Resolves when neither readers nor writers are left (poll's POLLOUT). */
  writable(options: WaitOptions = {}): Promise<void> {
    return this.waitFor(Ready.WRITABLE, options)
  }

  dup(): DmaBuf {
    return new DmaBuf(call(() => native.dupFd(this.handle)))
  }
}

/**
 * A CPU mapping of a file: of a memfd, a dma-buf, or a device.
 *
 * Its views are detached when it is unmapped. What a native request still
 * holds (the thread pool's `fs.read`, `crypto.randomFill`, zlib) is a pointer
 * into addresses that stay reserved, with nothing behind them, until the
 * request is done: a late write goes nowhere, and never into a newer mapping.
 */
import { brand } from '../brand.js'
import {
  P2pdmaError,
  checkBigInt,
  checkBoolean,
  checkInteger,
  checkOptions,
  closedError,
  looksLike,
  rangeError,
  typeError,
} from '../errors.js'
import { native, type NativeFd, type NativeMapping } from '../native.js'
import { call, callAsync, translate } from './call.js'
import { F_SEAL_SHRINK } from './constants.js'

export interface MapOptions {
  /** Bytes from the file's start, page-aligned. Default 0. */
  offset?: number
  /** Bytes. Default: to the file's end, where the file has a size. */
  length?: number
  /** Map writable. Default true; a read-only mapping has no views. */
  write?: boolean
  /** Fault every page in now; this blocks. Default false. */
  populate?: boolean
}

/** The largest view that V8 gives an ArrayBuffer on every supported Node. */
export const MAX_VIEW = 2 ** 32

/** Bytes that one job in the thread pool works on. */
const SLICE = 8 << 20

/** What is copied (or populated) at once on the event loop: as long as a job takes to reach the pool and back. */
const NOW = 64 << 10

/** Where reading a device's memory is slower than this it is the pool's; ms. */
const NOW_MS = 1
const NOW_LEAST = 4096

export class Mapping {
  static {
    brand(this, (value) => #native in value)
  }

  readonly #native: NativeMapping
  /** Whether it is of a device's memory: no views then, and copies by wide aligned accesses. */
  readonly isDevice: boolean
  /** What reading a byte took the last time, ms: each load of a BAR waits for the device. */
  #msPerByte: number | null = null
  /** Bytes of one of its memory's pages, where these are huge. @internal */
  readonly hugePage: number | undefined

  private constructor(handle: NativeMapping, isDevice = false, hugePage?: number) {
    if (!looksLike(handle, { length: 'number', unmap: 'function' })) {
      throw typeError('handle', 'a native mapping: use Mapping.map()', handle)
    }
    this.#native = handle
    this.isDevice = isDevice
    this.hugePage = hugePage
  }

  /**
   * Maps a file shared, by a descriptor's number, of which only the file is used:
   * the mapping outlives the descriptor.
   *
   * A file that can shrink kills the process that touches its mapping
   * (SIGBUS), so a memfd must have F_SEAL_SHRINK (ERR_SEAL_MISSING), a plain
   * file is refused (ERR_INVALID_ARG_VALUE), and nothing is mapped beyond a
   * file's end (ERR_OUT_OF_RANGE).
   */
  static map(fd: number, options: MapOptions = {}): Mapping {
    checkInteger('fd', fd, 0, 0x7fffffff)
    const held = call(() => native.dupFd(fd))
    try {
      return Mapping.ofHandle(held, options)
    } finally {
      held.close()
    }
  }

  /** `map` by a descriptor of ours. @internal */
  static ofHandle(fd: NativeFd, options: MapOptions = {}): Mapping {
    const { pageSize } = native
    const offset = checkInteger('offset', checkOptions(options).offset ?? 0)
    if (offset % pageSize !== 0) {
      throw rangeError('offset', `a multiple of the page size, ${pageSize}`, offset)
    }
    const write = checkBoolean('write', options.write ?? true)
    const populate = checkBoolean('populate', options.populate ?? false)
    return Mapping.#map(fd, offset, options.length, write, populate)
  }

  static #map(
    fd: NativeFd,
    offset: number,
    wanted: number | undefined,
    write: boolean,
    populate: boolean,
  ): Mapping {
    const stat = call(() => native.statFd(fd))
    const sized = stat.type === 'memfd' || stat.type === 'dma-buf'
    if (stat.type === 'memfd' && ((stat.seals ?? 0) & F_SEAL_SHRINK) === 0) {
      throw new P2pdmaError('A memfd without F_SEAL_SHRINK may shrink under its mapping', {
        code: 'ERR_SEAL_MISSING',
        argument: 'fd',
        hint: 'add the seal F_SEAL_SHRINK first',
      })
    }
    if (!sized && stat.type !== 'device') {
      throw new P2pdmaError('fd must be a dma-buf, a sealed memfd or a device', {
        code: 'ERR_INVALID_ARG_VALUE',
        argument: 'fd',
      })
    }
    if (!sized && wanted === undefined) throw typeError('length', 'a number', wanted)
    const length = checkInteger('length', wanted ?? stat.size - offset, 1)
    if (sized && length > stat.size - offset) {
      throw rangeError('length', `at most ${stat.size - offset}, to the end of the file`, length)
    }
    // A dma-buf is always mapped from its start: DRM's shmem helper takes no notice of the
    // offset and puts page 0 there (drm_gem_shmem_helper.c, drm_gem_shmem_fault).
    const lead = stat.type === 'dma-buf' ? offset : 0
    const hugePage = stat.pageSize === native.pageSize ? undefined : stat.pageSize
    try {
      const mapped = native.mapFd(fd, offset, length, write, populate, lead, false)
      return new Mapping(mapped, false, hugePage)
    } catch (error) {
      throw translate(error, { bytes: lead + length, hugePage })
    }
  }

  /**
   * Maps a region of a device whose driver knows where its memory ends; both
   * numbers are the driver's. For the other classes of lib/kernel.
   * @internal
   */
  static ofRegion(fd: NativeFd, offset: number, length: number): Mapping {
    return new Mapping(
      call(() => native.mapFd(fd, offset, length, true, false, 0, true), { bytes: length }),
      true,
    )
  }

  /** The native object, for the native engines: `UnwrapMapping` of mapping.h takes it. @internal */
  get handle(): NativeMapping {
    return this.#native
  }

  /** Bytes; 0 after `unmap()`. */
  get length(): number {
    return this.#native.length
  }

  get closed(): boolean {
    return this.#native.length === 0
  }

  /**
   * A window of the mapping, at most 4 GiB (ERR_OUT_OF_RANGE). It is detached
   * (`byteLength` 0) by `unmap()`. Make few of them: the garbage collector
   * counts each with its whole size.
   */
  view(offset = 0, length?: number): ArrayBuffer {
    this.#checkOpen()
    if (this.isDevice) {
      throw new P2pdmaError('The memory of a device has no views', {
        code: 'ERR_UNSUPPORTED',
        syscall: 'mmap',
        hint: 'copy it to and from a mapping of ordinary memory: copyFrom()',
      })
    }
    const bytes = this.#lengthFrom(offset, length)
    if (bytes > MAX_VIEW) throw rangeError('length', `at most 4 GiB (${MAX_VIEW})`, bytes)
    this.#checkRange('length', offset, bytes)
    return call(() => this.#native.view(offset, bytes))
  }

  /** Detaches all views and lets go of the memory. Idempotent. */
  unmap(): void {
    call(() => this.#native.unmap())
  }

  [Symbol.dispose](): void {
    this.unmap()
  }

  /**
   * Copies bytes from `source` (of any mapping) to `offset` here, off the
   * event loop unless they are few. Rejects with ERR_CLOSED when either is
   * unmapped meanwhile.
   */
  async copyFrom(
    source: Mapping,
    sourceOffset: number,
    offset: number,
    length: number,
  ): Promise<void> {
    if (this.copyNow(source, sourceOffset, offset, length)) return
    await inSlices(length, (at, bytes) =>
      native.copySlice(this.#native, offset + at, source.#native, sourceOffset + at, bytes),
    )
  }

  /** As `copyFrom`, at once, where that is short; false, and nothing done, elsewhere. */
  copyNow(source: Mapping, sourceOffset: number, offset: number, length: number): boolean {
    if (!(source instanceof Mapping)) throw typeError('source', 'a Mapping', source)
    checkInteger('sourceOffset', sourceOffset)
    checkInteger('offset', offset)
    checkInteger('length', length)
    this.#checkOpen()
    source.#checkOpen()
    this.#checkRange('length', offset, length)
    source.#checkRange('length', sourceOffset, length)
    if (length > NOW) return false
    if (source.isDevice && !source.#isQuick(length)) {
      // Not known, or slow the last time, perhaps by bad luck: its first bytes tell.
      if (length <= NOW_LEAST) return this.#copyTimed(source, sourceOffset, offset, length)
      this.#copyTimed(source, sourceOffset, offset, NOW_LEAST)
      if (!source.#isQuick(length)) return false
    }
    return this.#copyTimed(source, sourceOffset, offset, length)
  }

  #copyTimed(source: Mapping, sourceOffset: number, offset: number, length: number): true {
    const start = source.isDevice ? performance.now() : 0
    call(() => native.copySliceNow(this.#native, offset, source.#native, sourceOffset, length, 0))
    if (source.isDevice && length >= NOW_LEAST) {
      source.#msPerByte = (performance.now() - start) / length
    }
    return true
  }

  /**
   * Makes every page of the range present, off the event loop unless they are
   * few, so that who writes there later meets no page fault. Both numbers:
   * multiples of the page size. A device's memory, and any on a kernel before
   * 5.14, stays as it is.
   */
  async populate(offset = 0, wanted?: number): Promise<void> {
    this.#checkOpen()
    const length = this.#lengthFrom(offset, wanted)
    const { pageSize } = native
    if (offset % pageSize !== 0) throw rangeError('offset', `a multiple of ${pageSize}`, offset)
    if (length % pageSize !== 0) throw rangeError('length', `a multiple of ${pageSize}`, length)
    this.#checkRange('length', offset, length)
    try {
      if (length <= NOW) call(() => native.populateSliceNow(this.#native, offset, length))
      else {
        await inSlices(length, (at, bytes) =>
          native.populateSlice(this.#native, offset + at, bytes),
        )
      }
    } catch (error) {
      // Of a mapping without pages, as of an advice that it does not know: madvise_populate (mm/madvise.c).
      if ((error as P2pdmaError).code !== 'EINVAL') throw error
    }
  }

  /**
   * Writes those 64-bit words of `source` to `offset` here that differ from
   * `before`, both from their starts, and no others; off the event loop. Both
   * numbers: multiples of 8.
   */
  async storeChanges(
    offset: number,
    source: Mapping,
    before: Mapping,
    length: number,
  ): Promise<void> {
    this.#checkWords(offset, length)
    if (!(source instanceof Mapping)) throw typeError('source', 'a Mapping', source)
    if (!(before instanceof Mapping)) throw typeError('before', 'a Mapping', before)
    source.#checkWords(0, length)
    before.#checkWords(0, length)
    await inSlices(length, (at, bytes) =>
      native.storeChangesSlice(
        this.#native,
        offset + at,
        source.#native,
        before.#native,
        at,
        bytes,
      ),
    )
  }

  /** Overwrites bytes with a 64-bit pattern, off the event loop. Both numbers: multiples of 8. */
  async fill(pattern: bigint, offset = 0, wanted?: number): Promise<void> {
    checkBigInt('pattern', pattern)
    this.#checkOpen()
    const length = this.#lengthFrom(offset, wanted)
    this.#checkWords(offset, length)
    await inSlices(length, (at, bytes) =>
      native.fillSlice(this.#native, offset + at, bytes, pattern),
    )
  }

  /**
   * How many runs of 64-bit words differ from the pattern, off the event loop.
   * Both numbers: multiples of 8.
   */
  async countRuns(pattern: bigint, offset = 0, wanted?: number): Promise<number> {
    checkBigInt('pattern', pattern)
    this.#checkOpen()
    const length = this.#lengthFrom(offset, wanted)
    this.#checkWords(offset, length)
    let runs = 0
    let inRun = false
    await inSlices(length, async (at, bytes) => {
      const slice = await native.countRunsSlice(this.#native, offset + at, bytes, pattern, inRun)
      runs += slice.runs
      inRun = slice.inRun
    })
    return runs
  }

  /** How many bytes of it may be read on the event loop; of a device's by what was measured. */
  #isQuick(length: number): boolean {
    return this.#msPerByte !== null && this.#msPerByte * length <= NOW_MS
  }

  #checkOpen(): void {
    if (this.closed) throw closedError('Mapping')
  }

  #checkRange(argument: string, offset: number, length: number): void {
    if (offset + length > this.length) {
      throw rangeError(argument, `within the mapping of ${this.length} bytes`, offset + length)
    }
  }

  /** What is wanted, or all from `offset` on: known only once that is a number. */
  #lengthFrom(offset: number, wanted: number | undefined): number {
    checkInteger('offset', offset, 0, this.length)
    return checkInteger('length', wanted === undefined ? this.length - offset : wanted)
  }

  #checkWords(offset: number, length: number): void {
    this.#checkOpen()
    checkInteger('offset', offset)
    checkInteger('length', length)
    if (offset % 8 !== 0) throw rangeError('offset', 'a multiple of 8', offset)
    if (length % 8 !== 0) throw rangeError('length', 'a multiple of 8', length)
    this.#checkRange('length', offset, length)
  }
}

/** One job after the other, so that one long operation leaves the pool's other threads alone. */
async function inSlices(
  length: number,
  job: (at: number, bytes: number) => Promise<void>,
): Promise<void> {
  for (let at = 0; at < length; at += SLICE) {
    await callAsync(() => job(at, Math.min(SLICE, length - at)))
  }
}

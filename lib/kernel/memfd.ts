/** memfd: shared memory without a name, the embedded default and udmabuf's raw material. */
import { brand } from '../brand.js'
import {
  checkBoolean,
  checkInteger,
  checkOptions,
  P2pdmaError,
  rangeError,
  typeError,
} from '../errors.js'
import { native, type NativeFd } from '../native.js'
import { call, translate } from './call.js'
import { F_SEAL_SHRINK, MFD_ALLOW_SEALING, MFD_HUGETLB, MFD_HUGE_SHIFT } from './constants.js'
import { Mapping, type MapOptions } from './mapping.js'
import { OwnedFd } from './owned-fd.js'

export interface MemfdOptions {
  /** Shown in /proc/PID/maps; at most 249 bytes. Default `p2pdma`. */
  name?: string
  /** Seals to begin with, F_SEAL_*. Default F_SEAL_SHRINK. */
  seals?: number
  /** Whether seals can be added. Default true. */
  sealable?: boolean
  /** Huge pages: true for the system's default size, or a size in bytes. Default false. */
  hugetlb?: boolean | number
}

/** The longest name: NAME_MAX less the `memfd:` in front (mm/memfd.c). */
const MAX_NAME = 249

export class Memfd extends OwnedFd {
  static {
    brand(this)
  }

  /** Adopts a descriptor that is known to be a memfd. */
  private constructor(fd: NativeFd) {
    super(fd)
  }

  /**
   * Creates one of `size` bytes, zeroed; with huge pages, rounded up to them.
   * Sealed against shrinking unless told otherwise: what can shrink cannot be mapped.
   */
  static create(size: number, options: MemfdOptions = {}): Memfd {
    checkInteger('size', size, 0)
    const name = checkOptions(options).name ?? 'p2pdma'
    if (typeof name !== 'string') throw typeError('name', 'a string', name)
    if (Buffer.byteLength(name) > MAX_NAME) {
      throw rangeError('name', `at most ${MAX_NAME} bytes`, name)
    }
    const sealable = checkBoolean('sealable', options.sealable ?? true)
    const seals = checkInteger('seals', options.seals ?? (sealable ? F_SEAL_SHRINK : 0), 0, 0x3f)
    const flags = (sealable ? MFD_ALLOW_SEALING : 0) | hugeFlags(options.hugetlb ?? false)
    const memfd = new Memfd(call(() => native.createMemfd(name, flags), { doing: 'memfd.create' }))
    try {
      memfd.truncate(roundUp(size, memfd.pageSize))
      if (seals !== 0) memfd.addSeals(seals)
    } catch (error) {
      memfd.close()
      throw error
    }
    return memfd
  }

  /** Takes over an open memfd by number; ERR_INVALID_ARG_VALUE for another kind of file. */
  static adopt(fd: number): Memfd {
    checkInteger('fd', fd, 0, 0x7fffffff)
    // Looked at through a duplicate: a file of another kind stays the caller's.
    const look = call(() => native.dupFd(fd))
    try {
      if (call(() => native.statFd(look)).type !== 'memfd') {
        throw new P2pdmaError('fd must be a memfd', {
          code: 'ERR_INVALID_ARG_VALUE',
          argument: 'fd',
        })
      }
    } finally {
      look.close()
    }
    return new Memfd(call(() => native.adoptFd(fd)))
  }

  /** Bytes. */
  get size(): number {
    return this.stat().size
  }

  /** Bytes of one of its pages: the system's, or the huge page's. */
  get pageSize(): number {
    return this.stat().pageSize
  }

  /** Sets the size, bytes; EPERM where a seal forbids it. */
  truncate(size: number): void {
    checkInteger('size', size)
    try {
      native.truncateFd(this.handle, size)
    } catch (error) {
      throw translate(error, { doing: 'memfd.resize', seals: () => this.getSeals() })
    }
  }

  /** F_SEAL_* that are set. */
  getSeals(): number {
    return call(() => native.getSeals(this.handle))
  }

  /** Adds seals; EPERM once F_SEAL_SEAL is set. */
  addSeals(seals: number): void {
    checkInteger('seals', seals, 0, 0x3f)
    try {
      native.addSeals(this.handle, seals)
    } catch (error) {
      throw translate(error, { doing: 'memfd.seal', seals: () => this.getSeals() })
    }
  }

  /** Maps it shared. It is sealed against shrinking first, since a mapping needs that. */
  map(options: MapOptions = {}): Mapping {
    if ((this.getSeals() & F_SEAL_SHRINK) === 0) this.addSeals(F_SEAL_SHRINK)
    return Mapping.ofHandle(this.handle, options)
  }

  dup(): Memfd {
    return new Memfd(call(() => native.dupFd(this.handle)))
  }
}

function hugeFlags(hugetlb: boolean | number): number {
  if (hugetlb === false) return 0
  if (hugetlb === true) return MFD_HUGETLB
  checkInteger('hugetlb', hugetlb, native.pageSize)
  const log = Math.log2(hugetlb)
  if (!Number.isInteger(log)) throw rangeError('hugetlb', 'a power of two', hugetlb)
  return (MFD_HUGETLB | (log << MFD_HUGE_SHIFT)) >>> 0
}

/** `value` rounded up to a multiple of `unit`. */
export function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit
}

/** udmabuf: a dma-buf of a memfd's pages. */
import { constants, readFileSync } from 'node:fs'
import { checkArray, checkInteger, checkOptions, typeError } from '../errors.js'
import { native, type NativeFd } from '../native.js'
import { call, callAsync, type CallOptions } from './call.js'
import { F_SEAL_FUTURE_WRITE, F_SEAL_SHRINK, F_SEAL_WRITE } from './constants.js'
import { DmaBuf } from './dma-buf.js'
import { OwnedFd } from './owned-fd.js'

/** Part of a memfd, for `Udmabuf.createList`. */
export interface UdmabufItem {
  memfd: OwnedFd
  /** Bytes, page-aligned. */
  offset: number
  /** Bytes, a multiple of the page size. */
  size: number
}

export interface UdmabufLimits {
  /** Items of one list at most. */
  listLimit: number
  /** Bytes of one buffer at most. */
  sizeLimit: number
}

const DEVICE = '/dev/udmabuf'

/** The kernel's own defaults (drivers/dma-buf/udmabuf.c), where sysfs does not tell. */
const DEFAULT_LIST_LIMIT = 1024
const DEFAULT_SIZE_LIMIT_MB = 64

export const Udmabuf = {
  /**
   * Makes a dma-buf of `size` bytes of a memfd from `offset` on, both
   * page-aligned. The memfd needs F_SEAL_SHRINK, and neither F_SEAL_WRITE nor
   * F_SEAL_FUTURE_WRITE. The pages are shared with the memfd, not copied.
   */
  async create(memfd: OwnedFd, offset: number, size: number): Promise<DmaBuf> {
    checkMemfd('memfd', memfd)
    checkInteger('offset', offset)
    checkInteger('size', size)
    const device = openDevice()
    try {
      const about = refusal([{ memfd, offset, size }])
      const create = () => native.udmabufCreate(device, memfd.handle, offset, size)
      const fd = await callAsync(create, about)
      return DmaBuf.fromHandle(fd)
    } finally {
      device.close()
    }
  },

  /** Makes one dma-buf of several parts, in their order. */
  async createList(items: readonly UdmabufItem[]): Promise<DmaBuf> {
    checkArray('items', items)
    items.forEach((item: UdmabufItem, i) => {
      const { memfd, offset, size } = checkOptions(item, `items[${i}]`)
      checkMemfd(`items[${i}].memfd`, memfd)
      checkInteger(`items[${i}].offset`, offset)
      checkInteger(`items[${i}].size`, size)
    })
    const device = openDevice()
    try {
      const fd = await callAsync(
        () =>
          native.udmabufCreateList(
            device,
            items.map((item) => item.memfd.handle),
            BigUint64Array.from(items, (item) => BigInt(item.offset)),
            BigUint64Array.from(items, (item) => BigInt(item.size)),
          ),
        refusal(items),
      )
      return DmaBuf.fromHandle(fd)
    } finally {
      device.close()
    }
  },

  /** The module's parameters. */
  limits(): UdmabufLimits {
    return {
      listLimit: parameter('list_limit') ?? DEFAULT_LIST_LIMIT,
      sizeLimit: (parameter('size_limit_mb') ?? DEFAULT_SIZE_LIMIT_MB) * 2 ** 20,
    }
  },
} as const

function openDevice(): NativeFd {
  const path = DEVICE
  return call(() => native.openFd(path, constants.O_RDWR), { doing: 'udmabuf.open', path })
}

function checkMemfd(argument: string, value: unknown): void {
  if (!(value instanceof OwnedFd)) throw typeError(argument, 'a Memfd', value)
}

interface Part {
  offset: number
  size: number
  stat: ReturnType<OwnedFd['stat']>
}

/** What a refusal is explained by; the reasons are looked for only where there is one. */
function refusal(items: readonly UdmabufItem[]): CallOptions {
  const parts = items.map(({ memfd, offset, size }) => ({ offset, size, stat: memfd.stat() }))
  const bytes = parts.reduce((sum, { size }) => sum + size, 0)
  const huge = parts.findLast(({ stat }) => stat.pageSize !== native.pageSize)
  const wrong = () => whyRefused(parts, bytes)
  return { doing: 'udmabuf.create', bytes, hugePage: huge?.stat.pageSize, wrong }
}

/** The kernel says EINVAL to everything. */
function whyRefused(parts: readonly Part[], bytes: number): string {
  const { listLimit, sizeLimit } = Udmabuf.limits()
  const reasons = new Set<string>()
  if (parts.length === 0) reasons.add('the list is empty')
  if (parts.length > listLimit) {
    reasons.add(`at most ${listLimit} items: module parameter list_limit`)
  }
  for (const { offset, size, stat } of parts) {
    const { pageSize, seals, size: fileSize } = stat
    if (offset % pageSize !== 0) reasons.add(`offset must be a multiple of ${pageSize}`)
    if (size % native.pageSize !== 0 || size === 0) {
      reasons.add(`size must be a multiple of ${native.pageSize}, and not 0`)
    }
    if (offset + size > fileSize) reasons.add('offset and size must lie inside the memfd')
    if (((seals ?? 0) & F_SEAL_SHRINK) === 0) reasons.add('the memfd needs F_SEAL_SHRINK')
    if (((seals ?? 0) & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) !== 0) {
      reasons.add('the memfd must not have F_SEAL_WRITE or F_SEAL_FUTURE_WRITE')
    }
  }
  if (bytes > sizeLimit) {
    reasons.add(`at most ${sizeLimit} bytes: module parameter size_limit_mb`)
  }
  return [...reasons].join('; ')
}

function parameter(name: string): number | null {
  try {
    return Number(readFileSync(`/sys/module/udmabuf/parameters/${name}`, 'utf8'))
  } catch {
    return null
  }
}

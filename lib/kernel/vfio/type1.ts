/** VFIO's container with the type1 (v2) IOMMU, and the group of the device that it is for. */
import { constants } from 'node:fs'
import { P2pdmaError, checkInteger, closedError, rangeError, typeError } from '../../errors.js'
import { native, type NativeFd } from '../../native.js'
import { call, callAsync, translate } from '../call.js'
import { Mapping } from '../mapping.js'
import { GroupFlag, TYPE1V2_IOMMU, VFIO_API_VERSION } from './abi.js'
import type { IommuSpace } from './iommu-space.js'
import { IovaAllocator } from './iova-allocator.js'
import { groupMembers } from './group-members.js'

const CONTAINER = '/dev/vfio/vfio'

const mapHints = {
  EEXIST: 'something is mapped there: unmap it first',
  EFAULT: 'type1 takes memory with pages (a memfd) and BARs; not a dma-buf that maps bare frames',
  ENOMEM: 'raise the limit of locked memory (ulimit -l)',
  ENOSPC: 'raise the limit of mappings: module parameter vfio_iommu_type1.dma_entry_limit',
  EINVAL: 'address, offset and size must be multiples of the IOMMU page, and not overlap a mapping',
}

/** One of this process per group: the kernel lets a group be opened once. */
const open = new Map<string, Type1Space>()

export class Type1Space implements IommuSpace {
  readonly kind = 'type1'
  readonly group: string
  readonly pageSize: number
  readonly iovas: IovaAllocator
  readonly #container: NativeFd
  readonly #groupFd: NativeFd
  #users = 1

  private constructor(group: string, container: NativeFd, groupFd: NativeFd) {
    this.group = group
    this.#container = container
    this.#groupFd = groupFd
    const { pageSizes, ranges } = call(() => native.vfioIommuInfo(container))
    this.pageSize = Number(pageSizes & -pageSizes) || native.pageSize
    this.iovas = new IovaAllocator(usable(ranges), this.pageSize)
  }

  /** The space of an IOMMU group, by its number; shared by all devices of that group. */
  static open(group: string): Type1Space {
    const known = open.get(group)
    if (known !== undefined) {
      known.#users++
      return known
    }
    const path = `/dev/vfio/${group}`
    const container = call(() => native.openFd(CONTAINER, constants.O_RDWR), {
      path: CONTAINER,
      hints: {
        ENOENT: 'load the driver: `modprobe vfio-pci`',
        ENODEV: 'load the driver: `modprobe vfio-pci`',
        EACCES: 'run as root, or give the user /dev/vfio',
      },
    })
    let groupFd: NativeFd | undefined
    try {
      checkContainer(container)
      groupFd = call(() => native.openFd(path, constants.O_RDWR), {
        path,
        hints: {
          ENOENT: `bind a device of group ${group} to vfio-pci: \`p2pdma bind\``,
          EBUSY: `another process has group ${group} open`,
          EACCES: `run as root, or give the user ${path}`,
        },
      })
      join(group, groupFd, container)
      const space = new Type1Space(group, container, groupFd)
      open.set(group, space)
      return space
    } catch (error) {
      groupFd?.close()
      container.close()
      throw error
    }
  }

  /** Opens one of the group's devices, by the name that sysfs gives it. */
  device(name: string): Promise<NativeFd> {
    this.#checkOpen()
    return callAsync(() => native.vfioGroupGetDevice(this.#groupFd, name), {
      hints: {
        ENODEV: `${name} is not bound to vfio-pci: \`p2pdma bind ${name}\``,
        EBUSY: `${name} is open already`,
      },
    })
  }

  async map(iova: number, mapping: Mapping, offset: number, size: number, access: number) {
    this.#checkMap(iova, mapping, offset, size, access)
    await callAsync(
      () => native.vfioStartMapDma(this.#container, iova, mapping.handle, offset, size, access),
      { hints: mapHints },
    )
  }

  mapNow(iova: number, mapping: Mapping, offset: number, size: number, access: number): void {
    this.#checkMap(iova, mapping, offset, size, access)
    try {
      native.vfioMapDma(this.#container, iova, mapping.handle, offset, size, access)
    } catch (error) {
      throw translate(error, { hints: mapHints })
    }
  }

  async unmap(iova: number, size: number): Promise<void> {
    this.#checkRange(iova, size)
    await callAsync(() => native.vfioStartUnmapDma(this.#container, iova, size))
  }

  unmapNow(iova: number, size: number): void {
    this.#checkRange(iova, size)
    call(() => {
      native.vfioUnmapDma(this.#container, iova, size)
    })
  }

  close(): void {
    if (this.#users === 0 || --this.#users > 0) return
    open.delete(this.group)
    // vfio_iommu_type1_release takes every mapping away with the last descriptor.
    this.#groupFd.close()
    this.#container.close()
  }

  #checkOpen(): void {
    if (this.#users === 0) throw closedError('The IOMMU space')
  }

  #checkRange(iova: number, size: number): void {
    this.#checkOpen()
    checkInteger('iova', iova)
    checkInteger('size', size, 1)
    for (const [name, value] of [
      ['iova', iova],
      ['size', size],
    ] as const) {
      if (value % this.pageSize !== 0) {
        throw rangeError(name, `a multiple of the IOMMU's page size, ${this.pageSize}`, value)
      }
    }
    this.iovas.check(iova, size)
  }

  #checkMap(iova: number, mapping: Mapping, offset: number, size: number, access: number): void {
    if (!(mapping instanceof Mapping)) throw typeError('mapping', 'a Mapping', mapping)
    checkInteger('access', access, 1, 3)
    this.#checkRange(iova, size)
    checkInteger('offset', offset, 0, mapping.length)
    if (offset % this.pageSize !== 0) {
      throw rangeError('offset', `a multiple of the IOMMU's page size, ${this.pageSize}`, offset)
    }
    checkInteger('size', size, 1, mapping.length - offset)
  }
}

function checkContainer(container: NativeFd): void {
  const version = call(() => native.vfioApiVersion(container))
  const hasType1 = call(() => native.vfioCheckExtension(container, TYPE1V2_IOMMU))
  if (version === VFIO_API_VERSION && hasType1) return
  throw new P2pdmaError('This kernel has no VFIO container with the type1 IOMMU', {
    code: 'ERR_UNSUPPORTED',
    hint: 'load the driver: `modprobe vfio_iommu_type1`; switch the IOMMU on (intel_iommu=on)',
  })
}

/** Puts the group into the container: from then on the devices' DMA goes through our tables. */
function join(group: string, groupFd: NativeFd, container: NativeFd): void {
  if ((call(() => native.vfioGroupStatus(groupFd)) & GroupFlag.VIABLE) === 0) {
    const others = groupMembers(group)
      .filter(({ driver }) => driver !== null && driver !== 'vfio-pci' && driver !== 'pcieport')
      .map(({ address, driver }) => `${address} (${driver})`)
    throw new P2pdmaError(
      `IOMMU group ${group} is not viable: in the way ${others.length === 1 ? 'is' : 'are'} ${others.join(', ')}`,
      { code: 'ERR_GROUP_NOT_VIABLE', hint: 'bind every device of the group: `p2pdma bind`' },
    )
  }
  call(() => {
    native.vfioGroupSetContainer(groupFd, container)
  })
  call(
    () => {
      native.vfioSetIommu(container, TYPE1V2_IOMMU)
    },
    {
      hints: { EPERM: 'no interrupt remapping: vfio_iommu_type1.allow_unsafe_interrupts=1' },
    },
  )
}

/** Addresses above 2^53 are of no use to us. */
function usable(ranges: bigint[] | null): { start: number; end: number }[] {
  const list = ranges ?? [0n, (1n << 48n) - 1n]
  const known = []
  for (let i = 0; i + 1 < list.length; i += 2) {
    const start = list[i] ?? 0n
    const end = list[i + 1] ?? 0n
    const last = BigInt(Number.MAX_SAFE_INTEGER - 4095)
    if (start < last) known.push({ start: Number(start), end: Number(end < last ? end : last) })
  }
  return known
}

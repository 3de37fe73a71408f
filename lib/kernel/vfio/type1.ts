/** VFIO's container with the type1 (v2) IOMMU, and the group of the device that it is for. */
import { constants } from 'node:fs'
import { brand } from '../../brand.js'
import { P2pdmaError } from '../../errors.js'
import { native, type NativeFd } from '../../native.js'
import { call, callAsync, translate } from '../call.js'
import { GroupFlag, TYPE1V2_IOMMU, VFIO_API_VERSION } from './abi.js'
import { type DmaRequest, DmaSpace, usableRanges } from './dma-space.js'
import { notViableError } from './group-errors.js'
import { IovaAllocator } from './iova-allocator.js'

export const CONTAINER = '/dev/vfio/vfio'

/** One of this process per group: the kernel lets a group be opened once. */
const open = new Map<string, Type1Space>()

export class Type1Space extends DmaSpace {
  static {
    brand(this, (value) => #container in value)
  }

  readonly kind = 'type1'
  readonly group: string
  readonly pageSize: number
  readonly iovas: IovaAllocator
  protected readonly mapping = 'type1.map'
  readonly #container: NativeFd
  readonly #groupFd: NativeFd

  private constructor(group: string, container: NativeFd, groupFd: NativeFd) {
    super()
    this.group = group
    this.#container = container
    this.#groupFd = groupFd
    const { pageSizes, ranges } = call(() => native.vfioIommuInfo(container))
    this.pageSize = Number(pageSizes & -pageSizes) || native.pageSize
    this.iovas = new IovaAllocator(
      usableRanges(ranges ?? [0n, (1n << 48n) - 1n], this.pageSize),
      this.pageSize,
    )
  }

  /** The one that is open for this group. */
  static known(group: string): Type1Space | undefined {
    return open.get(group)
  }

  /** The space of an IOMMU group, by its number; shared by all devices of that group. */
  static open(group: string): Type1Space {
    const known = open.get(group)
    if (known !== undefined) return known.share()
    const path = `/dev/vfio/${group}`
    const container = call(() => native.openFd(CONTAINER, constants.O_RDWR), {
      path: CONTAINER,
      doing: 'vfio.container',
    })
    let groupFd: NativeFd | undefined
    try {
      checkContainer(container)
      groupFd = call(() => native.openFd(path, constants.O_RDWR), {
        path,
        doing: 'vfio.group',
        of: group,
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
  async device(name: string): Promise<NativeFd> {
    this.checkOpen()
    return callAsync(() => native.vfioGroupGetDevice(this.#groupFd, name), {
      doing: 'vfio.device',
      of: name,
    })
  }

  protected startMap({ iova, mapping, offset, size, access }: DmaRequest): Promise<void> {
    return native.vfioStartMapDma(this.#container, iova, mapping.handle, offset, size, access)
  }

  protected mapOnLoop({ iova, mapping, offset, size, access }: DmaRequest): void {
    native.vfioMapDma(this.#container, iova, mapping.handle, offset, size, access)
  }

  protected startUnmap(iova: number, size: number): Promise<void> {
    return native.vfioStartUnmapDma(this.#container, iova, size)
  }

  protected unmapOnLoop(iova: number, size: number): void {
    native.vfioUnmapDma(this.#container, iova, size)
  }

  protected release(): void {
    open.delete(this.group)
    // vfio_iommu_type1_release takes every mapping away with the last descriptor.
    this.#groupFd.close()
    this.#container.close()
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
    throw notViableError(group)
  }
  try {
    native.vfioGroupSetContainer(groupFd, container)
  } catch (error) {
    // vfio_group_ioctl_set_container: a driver came in between.
    const { code } = error as NodeJS.ErrnoException
    throw code === 'EPERM' || code === 'EBUSY' ? notViableError(group, error) : translate(error)
  }
  call(
    () => {
      native.vfioSetIommu(container, TYPE1V2_IOMMU)
    },
    { doing: 'vfio.iommu' },
  )
}

/** /dev/iommu, with the device file that VFIO has for it: an address space as a file. */
import { constants } from 'node:fs'
import { brand } from '../../brand.js'
import { P2pdmaError } from '../../errors.js'
import { native, type NativeFd } from '../../native.js'
import { explain } from '../../failures/index.js'
import { call, callAsync, translate } from '../call.js'
import { IommufdMap } from './abi.js'
import { type DmaRequest, DmaSpace, usableRanges } from './dma-space.js'
import { notViableError } from './group-errors.js'
import { DmaAccess } from './iommu-space.js'
import { IovaAllocator } from './iova-allocator.js'
import { inTheWay } from './sysfs.js'

export const IOMMUFD = '/dev/iommu'

/** One per group: the devices of a group have their translation in common. */
const open = new Map<string, IommufdSpace>()

export class IommufdSpace extends DmaSpace {
  static {
    brand(this, (value) => #iommufd in value)
  }

  readonly kind = 'iommufd'
  readonly group: string
  protected readonly mapping = 'iommufd.map'
  readonly #iommufd: NativeFd
  readonly #id: number
  #layout: { pageSize: number; iovas: IovaAllocator } | null = null

  private constructor(group: string, iommufd: NativeFd, id: number) {
    super()
    this.group = group
    this.#iommufd = iommufd
    this.#id = id
  }

  /** The one that is open for this group. */
  static known(group: string): IommufdSpace | undefined {
    return open.get(group)
  }

  /** The space of an IOMMU group, by its number; shared by all devices of that group. */
  static open(group: string): IommufdSpace {
    const known = open.get(group)
    if (known !== undefined) return known.share()
    const iommufd = call(() => native.openFd(IOMMUFD, constants.O_RDWR), {
      path: IOMMUFD,
      doing: 'iommufd.open',
    })
    try {
      const id = call(() => native.iommufdAllocate(iommufd))
      const space = new IommufdSpace(group, iommufd, id)
      open.set(group, space)
      return space
    } catch (error) {
      iommufd.close()
      throw error
    }
  }

  /** Opens a device of the group by its file, and puts it into this space. */
  async device(path: string): Promise<NativeFd> {
    this.checkOpen()
    const device = call(() => native.openFd(path, constants.O_RDWR), {
      path,
      doing: 'iommufd.device',
    })
    try {
      await this.#bind(device)
      await callAsync(() => native.vfioAttachIommufd(device, this.#id))
      this.checkOpen()
      this.#layout ??= this.#measure()
      return device
    } catch (error) {
      device.close()
      throw error
    }
  }

  get pageSize(): number {
    return this.#known.pageSize
  }

  get iovas(): IovaAllocator {
    return this.#known.iovas
  }

  protected startMap(request: DmaRequest): Promise<void> {
    const { iova, mapping, device, offset, size, access } = request
    const flags = mapFlags(access)
    if (device === undefined) {
      const { handle } = mapping
      return native.iommufdStartMap(this.#iommufd, this.#id, iova, handle, offset, size, flags)
    }
    const file = device.dmaBuf()
    return native.iommufdStartMapFile(this.#iommufd, this.#id, iova, file, offset, size, flags)
  }

  protected mapOnLoop(request: DmaRequest): void {
    const { iova, mapping, device, offset, size, access } = request
    const flags = mapFlags(access)
    if (device === undefined) {
      native.iommufdMap(this.#iommufd, this.#id, iova, mapping.handle, offset, size, flags)
    } else {
      native.iommufdMapFile(this.#iommufd, this.#id, iova, device.dmaBuf(), offset, size, flags)
    }
  }

  protected startUnmap(iova: number, size: number): Promise<void> {
    return native.iommufdStartUnmap(this.#iommufd, this.#id, iova, size)
  }

  protected unmapOnLoop(iova: number, size: number): void {
    native.iommufdUnmap(this.#iommufd, this.#id, iova, size)
  }

  protected release(): void {
    open.delete(this.group)
    // iommufd_fops_release destroys the address space with all that is mapped.
    this.#iommufd.close()
  }

  async #bind(device: NativeFd): Promise<void> {
    try {
      await native.vfioBindIommufd(device, this.#iommufd)
    } catch (error) {
      // EBUSY: a driver has another device of the group (iommu_device_claim_dma_owner),
      // or a process has the device by its group (vfio_device_block_group).
      const { code } = error as NodeJS.ErrnoException
      if (code === 'EBUSY' && inTheWay(this.group).length > 0) {
        throw notViableError(this.group, error)
      }
      // EINVAL: somebody has it by this same file (vfio_df_open()), as nothing else of ours is wrong.
      const { hint } = explain({ code: 'EBUSY', doing: 'iommufd.bind' })
      if (code === 'EINVAL') {
        throw new P2pdmaError('The device is open already', { code: 'EBUSY', hint, cause: error })
      }
      throw translate(error, { doing: 'iommufd.bind' })
    }
  }

  // The ranges are those of the devices in it (iopt_table_enforce_dev_resv_regions).
  #measure() {
    const { alignment, ranges } = call(() => native.iommufdRanges(this.#iommufd, this.#id))
    const pageSize = Math.max(Number(alignment), native.pageSize)
    return { pageSize, iovas: new IovaAllocator(usableRanges(ranges, pageSize), pageSize) }
  }

  get #known() {
    if (this.#layout !== null) return this.#layout
    throw new P2pdmaError('No device is in the IOMMU space', { code: 'ERR_INVALID_STATE' })
  }
}

function mapFlags(access: number): number {
  const read = (access & DmaAccess.READ) === 0 ? 0 : IommufdMap.READABLE
  const write = (access & DmaAccess.WRITE) === 0 ? 0 : IommufdMap.WRITEABLE
  return IommufdMap.FIXED_IOVA | read | write
}

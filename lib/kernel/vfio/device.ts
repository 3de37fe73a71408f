/** A PCI device that VFIO has handed to us. */
import { constants } from 'node:fs'
import { P2pdmaError, checkInteger, closedError, typeError } from '../../errors.js'
import { native, type NativeFd } from '../../native.js'
import { call, callAsync } from '../call.js'
import { DmaBuf } from '../dma-buf.js'
import { Mapping } from '../mapping.js'
import { DeviceFlag, Region, RegionFlag } from './abi.js'
import { ConfigSpace } from './config-space.js'
import { groupOf } from './group-members.js'
import type { IommuSpace } from './iommu-space.js'
import { Interrupts } from './interrupts.js'
import { Registers } from './registers.js'
import { Type1Space } from './type1.js'

export interface RegionInfo {
  index: number
  /** Bytes; 0 where the device has no such region. */
  size: number
  readable: boolean
  writable: boolean
  /** Whether the CPU can map it. */
  mappable: boolean
  /** What can be mapped, where that is not all of it: bytes from its start. */
  areas: { offset: number; size: number }[] | null
  /** Whether the table of MSI-X lies in a part that can be mapped. */
  msixMappable: boolean
}

export class VfioDevice {
  /** `0000:00:11.0` */
  readonly address: string
  readonly space: IommuSpace
  readonly config: ConfigSpace
  readonly interrupts: Interrupts
  readonly regions: readonly RegionInfo[]
  /** Whether it can be reset by itself. */
  readonly resettable: boolean
  readonly #fd: NativeFd
  readonly #offsets: readonly number[]
  readonly #mappings = new Set<Mapping>()
  readonly #registers = new Set<Registers>()

  private constructor(address: string, space: IommuSpace, fd: NativeFd) {
    this.address = address
    this.space = space
    this.#fd = fd
    const { flags, regions } = call(() => native.vfioDeviceInfo(fd))
    if ((flags & DeviceFlag.PCI) === 0) {
      throw new P2pdmaError(`${address} is no PCI device to VFIO`, { code: 'ERR_UNSUPPORTED' })
    }
    this.resettable = (flags & DeviceFlag.RESET) !== 0
    const offsets: number[] = []
    const infos: RegionInfo[] = []
    for (let index = 0; index < regions; index++) {
      const info = regionInfo(fd, index)
      offsets.push(info.offset)
      infos.push(info.region)
    }
    this.#offsets = offsets
    this.regions = infos
    this.config = new ConfigSpace(
      () => this.#handle,
      offsets[Region.CONFIG] ?? 0,
      infos[Region.CONFIG]?.size ?? 0,
      () => [...this.#mappings].every((mapping) => mapping.closed),
    )
    this.interrupts = new Interrupts(address, () => this.#handle)
  }

  /**
   * Opens a device that is bound to vfio-pci, by its address. ENODEV where it
   * is bound to something else, ERR_NO_IOMMU where no IOMMU stands behind it,
   * ERR_GROUP_NOT_VIABLE where a kernel driver has others of its IOMMU group.
   * While it is open nobody else can open it.
   */
  static async open(address: string): Promise<VfioDevice> {
    if (typeof address !== 'string') throw typeError('address', 'a string', address)
    const group = groupOf(address)
    if (group === null) throw noGroupError(address)
    const space = Type1Space.open(group)
    let fd: NativeFd | undefined
    try {
      fd = await space.device(address)
      return new VfioDevice(address, space, fd)
    } catch (error) {
      fd?.close()
      space.close()
      throw error
    }
  }

  get closed(): boolean {
    return this.#fd.number < 0
  }

  get vendorId(): number {
    return this.config.read16(0)
  }

  get deviceId(): number {
    return this.config.read16(2)
  }

  /** Maps a region, whole; ERR_NOT_MAPPABLE where the CPU cannot. Closed with the device. */
  mapRegion(index: number): Mapping {
    const { size, mappable, areas } = this.region(index)
    if (size === 0 || !mappable || areas !== null) {
      throw new P2pdmaError(`Region ${index} of ${this.address} cannot be mapped`, {
        code: 'ERR_NOT_MAPPABLE',
        argument: 'index',
        hint: size === 0 ? 'the device has no such region' : 'it is an I/O BAR, or holds MSI-X',
      })
    }
    const mapping = Mapping.ofRegion(this.#handle, this.#offsets[index] ?? 0, size)
    this.#mappings.add(mapping)
    return mapping
  }

  /** The registers of a region that can be mapped. Closed with the device. */
  openRegisters(index: number): Registers {
    const registers = new Registers(this.mapRegion(index))
    this.#registers.add(registers)
    return registers
  }

  region(index: number): RegionInfo {
    this.#checkOpen()
    checkInteger('index', index, 0, this.regions.length - 1)
    return this.regions[index] as RegionInfo
  }

  /**
   * A dma-buf of page-aligned ranges of a BAR (all of it by default), which
   * kernel importers can map: VFIO_DEVICE_FEATURE_DMA_BUF. A reset, or memory
   * switched off in config space, revokes it (vfio_pci_dmabuf.c).
   */
  async exportDmaBuf(
    index: number,
    ranges: readonly { offset: number; size: number }[] = [
      { offset: 0, size: this.region(index).size },
    ],
  ): Promise<DmaBuf> {
    const { size } = this.region(index)
    const list: unknown = ranges
    if (!Array.isArray(list)) throw typeError('ranges', 'an array', list)
    const pairs = new BigUint64Array(ranges.length * 2)
    ranges.forEach((range, i) => {
      pairs[2 * i] = BigInt(checkInteger('ranges', range?.offset, 0, size))
      pairs[2 * i + 1] = BigInt(checkInteger('ranges', range?.size, 1, size - range.offset))
    })
    const fd = await callAsync(
      () => native.vfioExportDmaBuf(this.#handle, index, constants.O_RDWR, pairs),
      { unsupported: ['ENOTTY', 'EOPNOTSUPP'], since: '6.19' },
    )
    return DmaBuf.fromHandle(fd)
  }

  /** Resets the function: VFIO_DEVICE_RESET. */
  async reset(): Promise<void> {
    this.#checkOpen()
    await callAsync(() => native.vfioReset(this.#fd), { unsupported: ['ENOTTY'] })
  }

  /**
   * Takes bus mastering, interrupts, registers and mappings away, and gives the
   * device back to VFIO. Idempotent.
   */
  close(): void {
    if (this.closed) return
    try {
      this.config.setMaster(false)
    } catch {
      // It has fallen off the bus; the kernel does the same once more.
    }
    this.interrupts.close()
    for (const registers of this.#registers) registers.close()
    for (const mapping of this.#mappings) mapping.unmap()
    this.#fd.close()
    this.space.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  get #handle(): NativeFd {
    this.#checkOpen()
    return this.#fd
  }

  #checkOpen(): void {
    if (this.closed) throw closedError(`The device ${this.address}`)
  }
}

function regionInfo(fd: NativeFd, index: number): { offset: number; region: RegionInfo } {
  let info
  try {
    info = native.vfioRegionInfo(fd, index)
  } catch {
    // EINVAL: VGA's region, of a device that is none.
    info = { flags: 0, size: 0, offset: 0, areas: null, msixMappable: false }
  }
  const { flags, size, offset, areas, msixMappable } = info
  const pairs: { offset: number; size: number }[] = []
  for (let i = 0; areas !== null && i + 1 < areas.length; i += 2) {
    pairs.push({ offset: areas[i] ?? 0, size: areas[i + 1] ?? 0 })
  }
  return {
    offset,
    region: {
      index,
      size,
      readable: (flags & RegionFlag.READ) !== 0,
      writable: (flags & RegionFlag.WRITE) !== 0,
      mappable: (flags & RegionFlag.MMAP) !== 0,
      areas: areas === null ? null : pairs,
      msixMappable,
    },
  }
}

function noGroupError(address: string): P2pdmaError {
  return new P2pdmaError(`${address} has no IOMMU group, or does not exist`, {
    code: 'ERR_NO_IOMMU',
    argument: 'address',
    hint: 'switch the IOMMU on: in the firmware, and intel_iommu=on on the command line',
  })
}

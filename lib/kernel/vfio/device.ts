/** A PCI device that VFIO has handed to us. */
import { EventEmitter } from 'node:events'
import { constants } from 'node:fs'
import { brand } from '../../brand.js'
import {
  P2pdmaError,
  checkArray,
  checkInteger,
  checkOptions,
  closedError,
  deviceLostError,
  isDeviceLost,
  looksLike,
  rangeError,
  typeError,
} from '../../errors.js'
import { native, type NativeFd } from '../../native.js'
import { call, callAsync } from '../call.js'
import { DmaBuf } from '../dma-buf.js'
import { Mapping } from '../mapping.js'
import { DeviceFlag, Region } from './abi.js'
import { ConfigSpace } from './config-space.js'
import { parseBdf } from '../pci/address.js'
import { type DeviceMemory, type DeviceMemoryUse, noteDeviceMemory } from './device-memory.js'
import { Interrupts } from './interrupts.js'
import type { IommuSpace } from './iommu-space.js'
import { listenToNotices } from './notices.js'
import { openDevice, type OpenedDevice, type SpaceKind } from './open-device.js'
import { regionInfo, type RegionInfo } from './region.js'
import { Registers } from './registers.js'

export interface VfioOpenOptions {
  /**
   * Only this kind of IOMMU space; ERR_UNSUPPORTED where the kernel has none.
   * Default: iommufd where there is one that takes device memory (Linux 6.19), else type1.
   */
  space?: SpaceKind
}

/** The devices that this thread has open, or is opening or closing. */
const claimed = new Set<string>()

/** What is left to be done for a device that nobody has closed. */
interface Leftover extends OpenedDevice {
  address: string
  abandon: () => void
}

const forgotten = new FinalizationRegistry<Leftover>(({ fd, space, address, abandon }) => {
  abandon()
  fd.close()
  space.close()
  claimed.delete(address)
})

export interface VfioDeviceEvents {
  /**
   * The kernel wants the device back: it is being removed, or unbound, and that waits
   * until nobody has it open. Where nobody listens the device closes itself. Who
   * listens has to: end what it does with the device (its engines, exporters and
   * importers, and any dma-buf of it that another process holds), then `close()`. The
   * kernel asks again every 10 s (vfio_main.c, vfio_unregister_group_dev).
   */
  request: []
  /**
   * The kernel was told of an uncorrectable error of the device (PCIe AER), or
   * has given it up after one. After a non-fatal one the device may be as it was. A
   * fatal one resets its link, and the device has lost what it was told, its
   * configuration space too, until it is closed and opened again: `config.hasMemory`
   * tells. Where nobody listens nothing is thrown: see `VfioDevice.error`.
   */
  error: [P2pdmaError]
}

/** Memory of a device that is used by somebody else than its owner. */
export interface MemoryUser {
  /** The device closes: stops what uses its memory; bounded, and never rejects. */
  letGo(): Promise<void>
}

/**
 * A PCI device that is bound to vfio-pci, opened. It emits `request` when the kernel
 * wants it back, and `error` after an uncorrectable error: see `VfioDeviceEvents`.
 */
export class VfioDevice extends EventEmitter<VfioDeviceEvents> {
  static {
    brand(this, (value) => #fd in value, { promising: ['close'] })
  }

  /** `0000:00:11.0` */
  readonly address: string
  /** What the device reaches by DMA; closed with the device. */
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
  /** By region. */
  readonly #memory = new Map<number, DeviceMemory & { exported: NativeFd | null }>()
  readonly #resets = new Set<Promise<void>>()
  readonly #users = new Set<MemoryUser>()
  readonly #abandon: () => void
  #error: P2pdmaError | null = null
  #closing: Promise<void> | null = null

  private constructor(address: string, opened: OpenedDevice) {
    super()
    if (!looksLike(opened, { fd: 'object' }) || !looksLike(opened.fd, { number: 'number' })) {
      throw typeError('opened', 'an open device: use VfioDevice.open()', opened)
    }
    const { fd, space } = opened
    this.address = address
    this.space = space
    this.#fd = fd
    const { flags, regions } = call(() => native.vfioDeviceInfo(fd))
    if ((flags & DeviceFlag.PCI) === 0) {
      throw new P2pdmaError(`${address} is no PCI device to VFIO`, { code: 'ERR_UNSUPPORTED' })
    }
    this.resettable = (flags & DeviceFlag.RESET) !== 0
    const infos = Array.from({ length: regions }, (_, index) => regionInfo(fd, index))
    this.#offsets = infos.map(({ offset }) => offset)
    this.regions = infos.map(({ region }) => region)
    const config = infos[Region.CONFIG]
    this.config = new ConfigSpace(
      () => this.#handle,
      config?.offset ?? 0,
      config?.region.size ?? 0,
      () => [...this.#mappings].some((mapping) => !mapping.closed),
    )
    this.interrupts = new Interrupts(address, () => this.#handle)
    this.#abandon = listenFor(new WeakRef(this), fd, this.interrupts.abandon)
    forgotten.register(this, { fd, space, address, abandon: this.#abandon }, this)
  }

  /** @internal */
  onRequest(): void {
    if (this.closed) return
    const hint = 'it is being removed, or unbound from vfio-pci: open it again when it is back'
    this.#error = deviceLostError(this.address, hint)
    if (!this.emit('request')) void this.close()
  }

  /** @internal */
  onError(): void {
    if (this.closed) return
    this.#error ??= new P2pdmaError(`${this.address} has reported an uncorrectable error`, {
      code: 'ERR_DEVICE',
      hint: 'see the kernel log (AER); after a fatal error: close it, and open it again',
    })
    // Without a listener it would be thrown.
    if (this.listenerCount('error') > 0) this.emit('error', this.#error)
  }

  /**
   * Opens a device that is bound to vfio-pci, by its address. The device can
   * do no DMA at first: `config.setMaster(true)`.
   *
   * Rejects with ENODEV where there is no such device, ERR_NOT_BOUND where VFIO
   * does not have it, ERR_NO_IOMMU where no IOMMU stands behind it,
   * ERR_GROUP_NOT_VIABLE where kernel drivers have others of its IOMMU group
   * (the message says which), EBUSY where it is open already.
   */
  static async open(address: string, options: VfioOpenOptions = {}): Promise<VfioDevice> {
    const name = parseBdf(address)
    const { space } = checkOptions(options)
    if (space !== undefined && (space as unknown) !== 'type1' && (space as unknown) !== 'iommufd') {
      throw typeError('space', "'type1' or 'iommufd'", space)
    }
    if (claimed.has(name)) {
      throw new P2pdmaError(`${name} is open already`, {
        code: 'EBUSY',
        argument: 'address',
        hint: 'close it first, and wait for its close() to end',
      })
    }
    claimed.add(name)
    try {
      const opened = await openDevice(name, space)
      try {
        return new VfioDevice(name, opened)
      } catch (error) {
        await native.closeFd(opened.fd)
        opened.space.close()
        throw error
      }
    } catch (error) {
      claimed.delete(name)
      throw error
    }
  }

  get closed(): boolean {
    return this.#closing !== null
  }

  /** What the kernel said last: that it wants the device back (ERR_DEVICE_LOST), or ERR_DEVICE. */
  get error(): P2pdmaError | null {
    return this.#error
  }

  get vendorId(): number {
    return this.config.read16(0)
  }

  get deviceId(): number {
    return this.config.read16(2)
  }

  /**
   * Maps a region, whole; ERR_NOT_MAPPABLE where the CPU cannot,
   * ERR_INVALID_STATE while its memory is switched off. Unmapped when the device
   * is closed. A reset holds accesses back until it is over.
   */
  mapRegion(index: number): Mapping {
    const { size, mappable, areas } = this.region(index)
    if (size === 0 || !mappable || areas !== null) {
      throw new P2pdmaError(`Region ${index} of ${this.address} cannot be mapped`, {
        code: 'ERR_NOT_MAPPABLE',
        argument: 'index',
        hint: size === 0 ? 'the device has no such region' : 'it is no memory, or holds MSI-X',
      })
    }
    if (!this.config.hasMemory) {
      throw new P2pdmaError(`The memory of ${this.address} is switched off`, {
        code: 'ERR_INVALID_STATE',
        argument: 'index',
        hint: 'set Command.MEMORY in its Config.COMMAND, and its power state to D0',
      })
    }
    const mapping = Mapping.ofRegion(this.#handle, this.#offsets[index] ?? 0, size)
    const memory = this.#memoryOf(index)
    noteDeviceMemory(mapping, memory)
    for (const each of this.#mappings) if (each.closed) this.#mappings.delete(each)
    this.#mappings.add(mapping)
    return mapping
  }

  /** The registers of a region that can be mapped. Closed with the device. */
  openRegisters(index: number): Registers {
    const registers = new Registers(this.mapRegion(index), { owned: true })
    for (const each of this.#registers) if (each.closed) this.#registers.delete(each)
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
   * kernel importers can map: VFIO_DEVICE_FEATURE_DMA_BUF. A reset, memory
   * switched off in config space, and the device's close revoke it; the first
   * two end, and importers can map it again (vfio_pci_dmabuf.c,
   * vfio_pci_dma_buf_move). It has no CPU mapping. ERR_NOT_EXPORTABLE where the
   * region is no BAR.
   */
  async exportDmaBuf(
    index: number,
    ranges?: readonly { offset: number; size: number }[],
  ): Promise<DmaBuf> {
    const { size } = this.region(index)
    if (index >= Region.ROM || size === 0) {
      throw new P2pdmaError(`Region ${index} of ${this.address} is no BAR`, {
        code: 'ERR_NOT_EXPORTABLE',
        argument: 'index',
      })
    }
    const pairs = rangePairs(ranges ?? [{ offset: 0, size }], size)
    const fd = await callAsync(
      () => native.vfioStartExportDmaBuf(this.#handle, index, constants.O_RDWR, pairs),
      { doing: 'vfio.export' },
    )
    return DmaBuf.fromHandle(fd)
  }

  /**
   * Resets the function: VFIO_DEVICE_RESET. Its registers are as after power-on,
   * its configuration space as before; DMA mappings stay. ERR_UNSUPPORTED where
   * it cannot be reset by itself.
   */
  async reset(): Promise<void> {
    this.#checkOpen()
    if (!this.resettable) {
      throw new P2pdmaError(`${this.address} cannot be reset by itself`, {
        code: 'ERR_UNSUPPORTED',
        syscall: 'ioctl VFIO_DEVICE_RESET',
        hint: `no method in /sys/bus/pci/devices/${this.address}/reset_method`,
      })
    }
    const reset = callAsync(() => native.vfioReset(this.#fd), { doing: 'vfio.reset' })
    this.#resets.add(reset)
    try {
      await reset
    } finally {
      this.#resets.delete(reset)
    }
  }

  /**
   * Takes bus mastering, interrupts, registers and mappings away at once, and
   * its memory out of every IOMMU space of this process; then gives the device
   * back to VFIO, which may reset it. Resolves when it can be opened again; never
   * rejects. Idempotent.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(): Promise<void> {
    forgotten.unregister(this)
    // During a reset it would wait for its end; the kernel does the same at the device's last close
    // (vfio_pci_core_disable).
    if (this.#resets.size === 0) this.#stopDma()
    this.#abandon()
    for (const each of [...this.#registers, ...this.#mappings]) unmap(each)
    const fd = this.#fd
    const memory = [...this.#memory.values()]
    // What follows sees the device closed.
    await Promise.allSettled(this.#resets)
    await Promise.all([...this.#users].map((user) => user.letGo()))
    await Promise.all(memory.flatMap(({ uses }) => [...uses].map((use) => use.revoke())))
    for (const { exported } of memory) exported?.close()
    await native.closeFd(fd)
    this.space.close()
    claimed.delete(this.address)
  }

  #stopDma(): void {
    try {
      this.config.setMaster(false)
    } catch {
      // It has fallen off the bus.
    }
  }

  /** Who uses its memory is told before it closes. @internal */
  addUser(user: MemoryUser): void {
    this.#checkOpen()
    this.#users.add(user)
  }

  /** @internal */
  removeUser(user: MemoryUser): void {
    this.#users.delete(user)
  }

  #memoryOf(index: number): DeviceMemory {
    const known = this.#memory.get(index)
    if (known !== undefined) return known
    const { size } = this.region(index)
    const memory = {
      uses: new Set<DeviceMemoryUse>(),
      exported: null as NativeFd | null,
      dmaBuf: () => {
        const pairs = BigUint64Array.of(0n, BigInt(size))
        memory.exported ??= native.vfioExportDmaBuf(this.#handle, index, constants.O_RDWR, pairs)
        return memory.exported
      },
    }
    this.#memory.set(index, memory)
    return memory
  }

  get #handle(): NativeFd {
    this.#checkOpen()
    return this.#fd
  }

  #checkOpen(): void {
    if (!this.closed) return
    throw isDeviceLost(this.#error) ? this.#error : closedError(`The device ${this.address}`)
  }
}

/** ENOMEM, at the limit of mappings: the rest of a close goes on. */
function unmap(owner: Registers | Mapping): void {
  try {
    owner[Symbol.dispose]()
  } catch {
    // The addresses stay as they are until the collector takes them.
  }
}

function rangePairs(
  ranges: readonly { offset: number; size: number }[],
  size: number,
): BigUint64Array {
  const list = checkArray('ranges', ranges)
  if (list.length < 1 || list.length > 4096) throw rangeError('ranges', '1 to 4096', list.length)
  const pairs: bigint[] = []
  for (const each of list) {
    const range = checkOptions((each ?? undefined) as { offset: number; size: number }, 'ranges')
    const offset = checkInteger('ranges', range.offset, 0, size)
    const length = checkInteger('ranges', range.size, 1, size - offset)
    if (offset % native.pageSize !== 0 || length % native.pageSize !== 0) {
      throw rangeError('ranges', `multiples of the page size, ${native.pageSize}`, length)
    }
    pairs.push(BigInt(offset), BigInt(length))
  }
  return BigUint64Array.from(pairs)
}

/**
 * Listens for a device without keeping it from being collected: its constructor's own
 * functions would, since they share what any one of them captures. Returns what ends that
 * and calls `abandon`.
 */
function listenFor(device: WeakRef<VfioDevice>, fd: NativeFd, abandon: () => void): () => void {
  const stopListening = listenToNotices(fd, {
    request: () => device.deref()?.onRequest(),
    error: () => device.deref()?.onError(),
  })
  return () => {
    abandon()
    stopListening()
  }
}

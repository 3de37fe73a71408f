/** A PCI device's configuration space, through VFIO. */
import { brand } from '../../brand.js'
import { P2pdmaError, checkBoolean, checkInteger } from '../../errors.js'
import { native, type NativeFd } from '../../native.js'
import { call } from '../call.js'

/** Offsets of the header: include/uapi/linux/pci_regs.h. */
export const Config = {
  VENDOR_ID: 0x00,
  DEVICE_ID: 0x02,
  COMMAND: 0x04,
  STATUS: 0x06,
  REVISION: 0x08,
  CLASS: 0x0a,
  SUBSYSTEM_VENDOR_ID: 0x2c,
  SUBSYSTEM_ID: 0x2e,
  CAPABILITIES: 0x34,
} as const

/** Bits of the register at `Config.COMMAND`. */
export const CommandBit = { IO: 1, MEMORY: 2, MASTER: 4, INTX_DISABLE: 0x400 } as const

/** Where the capabilities begin, and the extended ones. */
const FIRST_CAPABILITY = 0x40
const EXTENDED = 0x100

const POWER_MANAGEMENT = 0x01
/** From the power management capability: the control register, and its state D3hot. */
const PM_CTRL = 4
const PM_STATE = 3

export interface Capability {
  id: number
  /** Bytes from the start of configuration space. */
  offset: number
}

/** Offsets in bytes, multiples of the width: ERR_OUT_OF_RANGE. */
export class ConfigSpace {
  static {
    brand(this, (value) => #offset in value)
  }

  readonly #device: () => NativeFd
  readonly #offset: number
  /** Bytes: 256, or 4096 with the extended capabilities. */
  readonly size: number
  readonly #isMapped: () => boolean
  #power: number | undefined

  /** @internal */
  constructor(device: () => NativeFd, offset: number, size: number, isMapped: () => boolean) {
    this.#device = device
    this.#offset = offset
    this.size = size
    this.#isMapped = isMapped
  }

  read8(offset: number): number {
    return this.#read(offset, 1).getUint8(0)
  }

  read16(offset: number): number {
    return this.#read(offset, 2).getUint16(0, true)
  }

  read32(offset: number): number {
    return this.#read(offset, 4).getUint32(0, true)
  }

  /**
   * EBUSY, as the other two, for what takes the device's memory away while a
   * BAR is mapped (memory switched off, or state D3): the next access to the
   * mapping would end the process (vfio_pci_core.c, vfio_pci_vmf_insert_pfn).
   */
  write8(offset: number, value: number): void {
    checkInteger('value', value, 0, 0xff)
    const view = new DataView(new ArrayBuffer(1))
    view.setUint8(0, value)
    this.#write(offset, view, value)
  }

  write16(offset: number, value: number): void {
    checkInteger('value', value, 0, 0xffff)
    const view = new DataView(new ArrayBuffer(2))
    view.setUint16(0, value, true)
    this.#write(offset, view, value)
  }

  write32(offset: number, value: number): void {
    checkInteger('value', value, 0, 0xffffffff)
    const view = new DataView(new ArrayBuffer(4))
    view.setUint32(0, value, true)
    this.#write(offset, view, value)
  }

  /** Lets the device do DMA, or not. */
  setMaster(on: boolean): void {
    checkBoolean('on', on)
    const command = this.read16(Config.COMMAND)
    this.write16(Config.COMMAND, on ? command | CommandBit.MASTER : command & ~CommandBit.MASTER)
  }

  get isMaster(): boolean {
    return (this.read16(Config.COMMAND) & CommandBit.MASTER) !== 0
  }

  /**
   * Whether its memory answers: the device is there, switched on, and not in state D3.
   * By the device itself, whoever has switched it off.
   */
  get hasMemory(): boolean {
    const command = this.read16(Config.COMMAND)
    // All ones: nobody answers.
    if (command === 0xffff || (command & CommandBit.MEMORY) === 0) return false
    const control = this.#powerControl()
    return control === 0 || (this.read16(control) & PM_STATE) !== PM_STATE
  }

  /** Ids and offsets of the capability list. */
  capabilities(): Capability[] {
    const found: Capability[] = []
    // A list of a broken device may have no end.
    for (let at = this.read8(Config.CAPABILITIES) & 0xfc; at !== 0 && found.length < 48;) {
      found.push({ id: this.read8(at), offset: at })
      at = this.read8(at + 1) & 0xfc
    }
    return found
  }

  /** The same of the extended ones, which PCI Express devices have. */
  extendedCapabilities(): Capability[] {
    const found: Capability[] = []
    for (let at = EXTENDED; at + 4 <= this.size && at >= EXTENDED && found.length < 480;) {
      const header = this.read32(at)
      // All zeros, or all ones: there is none.
      if (header === 0 || header === 0xffffffff) break
      found.push({ id: header & 0xffff, offset: at })
      at = (header >>> 20) & 0xffc
    }
    return found
  }

  /** Offset of the power management control register; 0 where there is none. */
  #powerControl(): number {
    this.#power ??= this.capabilities().find(({ id }) => id === POWER_MANAGEMENT)?.offset ?? 0
    return this.#power === 0 ? 0 : this.#power + PM_CTRL
  }

  // The kernel looks at writes that begin at these registers (vfio_pci_config.c,
  // vfio_basic_config_write and vfio_pm_config_write); BARs are virtual to us, and a reset through
  // a capability holds faults back until it is over.
  #checkMemory(offset: number, value: number): void {
    const off =
      offset === Config.COMMAND
        ? (value & CommandBit.MEMORY) === 0
        : offset >= FIRST_CAPABILITY &&
          (value & PM_STATE) === PM_STATE &&
          offset === this.#powerControl()
    if (!off || !this.#isMapped()) return
    throw new P2pdmaError('A BAR of the device is mapped: its memory cannot be switched off', {
      code: 'EBUSY',
      syscall: 'pwrite',
      argument: 'value',
      hint: 'unmap its regions, and close its registers, first',
    })
  }

  #read(offset: number, length: number): DataView {
    this.#check(offset, length)
    const bytes = new Uint8Array(length)
    const done = call(() => native.vfioRead(this.#device(), this.#offset + offset, bytes))
    if (done !== length) throw short('pread', done, length)
    return new DataView(bytes.buffer)
  }

  #write(offset: number, view: DataView, value: number): void {
    this.#check(offset, view.byteLength)
    this.#checkMemory(offset, value)
    const bytes = new Uint8Array(view.buffer)
    const done = call(() => native.vfioWrite(this.#device(), this.#offset + offset, bytes))
    if (done !== bytes.length) throw short('pwrite', done, bytes.length)
  }

  #check(offset: number, length: number): void {
    checkInteger('offset', offset, 0, this.size - length)
    if (offset % length !== 0) {
      throw new P2pdmaError(`offset must be a multiple of ${length}`, {
        code: 'ERR_OUT_OF_RANGE',
        argument: 'offset',
      })
    }
  }
}

function short(syscall: string, done: number, length: number): P2pdmaError {
  return new P2pdmaError(`The kernel took ${done} of ${length} bytes`, { code: 'EIO', syscall })
}

/** A PCI device's configuration space, through VFIO. */
import { P2pdmaError, checkInteger } from '../../errors.js'
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
  CAPABILITIES: 0x34,
} as const

export const Command = { IO: 1, MEMORY: 2, MASTER: 4, INTX_DISABLE: 0x400 } as const

export class ConfigSpace {
  readonly #device: () => NativeFd
  readonly #offset: number
  readonly size: number
  readonly #mayDisableMemory: () => boolean

  /** @internal */
  constructor(
    device: () => NativeFd,
    offset: number,
    size: number,
    mayDisableMemory: () => boolean,
  ) {
    this.#device = device
    this.#offset = offset
    this.size = size
    this.#mayDisableMemory = mayDisableMemory
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
   * EBUSY for a command that takes the memory away while a BAR is mapped: a
   * later access would kill the process (vfio_pci_core.c, SIGBUS).
   */
  write16(offset: number, value: number): void {
    checkInteger('value', value, 0, 0xffff)
    this.#checkCommand(offset, 2, value)
    const view = new DataView(new ArrayBuffer(2))
    view.setUint16(0, value, true)
    this.#write(offset, view)
  }

  write32(offset: number, value: number): void {
    checkInteger('value', value, 0, 0xffffffff)
    this.#checkCommand(offset, 4, value)
    const view = new DataView(new ArrayBuffer(4))
    view.setUint32(0, value, true)
    this.#write(offset, view)
  }

  write8(offset: number, value: number): void {
    checkInteger('value', value, 0, 0xff)
    this.#checkCommand(offset, 1, value)
    const view = new DataView(new ArrayBuffer(1))
    view.setUint8(0, value)
    this.#write(offset, view)
  }

  /** Lets the device do DMA, or not. */
  setMaster(on: boolean): void {
    const command = this.read16(Config.COMMAND)
    this.write16(Config.COMMAND, on ? command | Command.MASTER : command & ~Command.MASTER)
  }

  get isMaster(): boolean {
    return (this.read16(Config.COMMAND) & Command.MASTER) !== 0
  }

  /** Ids and offsets of the capability list. */
  capabilities(): { id: number; offset: number }[] {
    const found: { id: number; offset: number }[] = []
    // A list of a broken device may have no end.
    for (let at = this.read8(Config.CAPABILITIES) & 0xfc; at !== 0 && found.length < 48;) {
      found.push({ id: this.read8(at), offset: at })
      at = this.read8(at + 1) & 0xfc
    }
    return found
  }

  #checkCommand(offset: number, length: number, value: number): void {
    if (offset !== Config.COMMAND && !(offset < Config.COMMAND && offset + length > Config.COMMAND))
      return
    if (offset !== Config.COMMAND || (value & Command.MEMORY) !== 0) return
    if ((this.read16(Config.COMMAND) & Command.MEMORY) === 0 || this.#mayDisableMemory()) return
    throw new P2pdmaError('A BAR of the device is mapped: its memory cannot be switched off', {
      code: 'EBUSY',
      syscall: 'pwrite',
      hint: 'unmap its regions first',
    })
  }

  #read(offset: number, length: number): DataView {
    this.#check(offset, length)
    const bytes = new Uint8Array(length)
    const done = call(() => native.vfioRead(this.#device(), this.#offset + offset, bytes))
    if (done !== length) throw short('pread', done, length)
    return new DataView(bytes.buffer)
  }

  #write(offset: number, view: DataView): void {
    this.#check(offset, view.byteLength)
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

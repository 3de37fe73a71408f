/**
 * A driver of somebody else's: QEMU's NVMe drive, as much as identify, read and write over one
 * I/O queue pair need. It is written against the package's surface alone.
 *
 * A COPY into the storage (`VfioEngine.attachStorage()`) is an NVMe WRITE, one out of it a READ:
 * the offset there, a multiple of the block's bytes, is the first block. NVM Express base
 * specification 1.4; what is said of chapters is of that.
 */
import {
  Access,
  type DeviceStorage,
  type Driver,
  type DriverDevice,
  type DriverHost,
  type Health,
  Op,
  P2pdmaError,
  registerDriver,
  type Registers,
} from '../../../lib/index.js'
import { AdminQueue } from './admin.js'
import { IoQueue, NAMESPACE, operationsOf, QUEUE } from './io-queue.js'
import { ALL, CC_ENABLE, CC_SETTINGS, Csts, Identify, PAGE, Reg } from './registers.js'

/** QEMU's own PCI id, 1b36:0010. */
export const nvme: Driver = {
  interfaceVersion: 1,
  name: 'nvme',
  ids: [0x1b36_0010],
  async open(host: DriverHost): Promise<DriverDevice> {
    const device = new Nvme(host)
    try {
      await device.revive()
      device.identify()
      device.enableInterrupts()
    } catch (error) {
      await device.close()
      throw error
    }
    return device
  },
}

const nothing: DeviceStorage = { name: '', size: 0, access: 0 }

class Nvme implements DriverDevice {
  readonly queues = ['io']
  readonly ringEntries: { readonly min: number; readonly max: number }
  readonly #host: DriverHost
  readonly #registers: Registers
  readonly #admin: AdminQueue
  /** Bytes from one doorbell to the next. */
  readonly #doorbells: number
  /** How long it may take to come up or go down, ms. */
  readonly #readyMs: number
  #storage = nothing
  #blockBytes = 512
  #queue: IoQueue | null = null
  #isOn = false

  constructor(host: DriverHost) {
    this.#host = host
    this.#registers = host.device.openRegisters(0)
    // 3.1.1: the largest queue, less 1; the time in units of 500 ms; the stride of the doorbells.
    const low = this.#registers.read32(Reg.CAP_LOW)
    this.ringEntries = { min: 4, max: 2 ** Math.floor(Math.log2((low & 0xffff) + 1)) }
    this.#readyMs = Math.max(1, low >>> 24) * 500
    this.#doorbells = 4 << (this.#registers.read32(Reg.CAP_HIGH) & 0xf)
    this.#admin = new AdminQueue(host, this.#registers, this.#doorbells)
  }

  get operations() {
    const { minLength, maxLength, alignment } = operationsOf(this.#blockBytes)[0]!
    return [{ op: Op.COPY, minLength, maxLength, alignment, withPeer: true }]
  }

  get storage(): DeviceStorage {
    return this.#storage
  }

  /** 5.15.2.1 and 5.15.2.2 */
  identify(): void {
    const controller = this.#admin.identify(Identify.CONTROLLER, 0)
    const text = (at: number, length: number) =>
      Buffer.from(controller.buffer, at, length).toString('latin1').trim()
    const namespace = this.#admin.identify(Identify.NAMESPACE, NAMESPACE)
    const blocks = Number(namespace.getBigUint64(0, true))
    const format = namespace.getUint32(128 + 4 * (namespace.getUint8(26) & 0xf), true)
    // 5.15.2.1, figure 246: metadata, and the power of two.
    this.#blockBytes = 2 ** ((format >>> 16) & 0xff)
    if (blocks === 0 || (format & 0xffff) !== 0 || this.#blockBytes > PAGE) {
      throw this.#error('ERR_UNSUPPORTED', 'has no namespace 1, or one whose blocks are not plain')
    }
    this.#storage = {
      name: `${text(24, 40)} ${text(4, 20)}`,
      size: blocks * this.#blockBytes,
      access: Access.READ | Access.WRITE,
    }
  }

  /** The admin queue is polled. */
  enableInterrupts(): void {
    const { interrupts } = this.#host.device
    interrupts.enable('msix', [() => {}, () => this.#host.onInterrupt('io')])
  }

  openQueue(_name: string, entries: number): IoQueue {
    const queue = new IoQueue(this.#host, this.#registers, this.#admin, {
      entries,
      doorbells: this.#doorbells,
      blockBytes: this.#blockBytes,
      onClose: () => {
        this.#queue = null
        return this.#isOn && !this.#host.device.closed
      },
    })
    try {
      if (this.#isOn) queue.create()
    } catch (error) {
      queue.close()
      throw error
    }
    this.#queue = queue
    return queue
  }

  hold(_queue: string, hold: boolean): void {
    this.#host.device.interrupts.hold(QUEUE, hold)
  }

  /** A reset of any kind switches it off, 7.3. */
  health(): Health {
    const status = this.#registers.read32(Reg.CSTS)
    if (status === ALL) return 'gone'
    const isSound = (status & (Csts.READY | Csts.FATAL)) === Csts.READY
    return isSound && this.#queue?.isBroken !== true ? 'sound' : 'reset'
  }

  /** Without bus mastering it sends no request; switched off it gives up its commands. */
  halt(): void {
    this.#isOn = false
    try {
      this.#host.device.config.setMaster(false)
    } catch {
      // It has left the bus, and DMA with it.
    }
    this.#registers.write32(Reg.CC, 0)
    this.#registers.read32(Reg.CSTS)
  }

  /** 7.6.1: initialization. */
  async revive(): Promise<void> {
    this.halt()
    await this.#until(0, 'does not go down')
    this.#admin.setUp()
    this.#host.device.config.setMaster(true)
    this.#registers.write32(Reg.CC, CC_SETTINGS | CC_ENABLE)
    await this.#until(Csts.READY, 'does not come up')
    this.#queue?.create()
    this.#isOn = true
  }

  async #until(ready: number, what: string): Promise<void> {
    const isDone = () => {
      const status = this.#registers.read32(Reg.CSTS)
      if (status === ALL) throw this.#error('ERR_DEVICE_LOST', 'does not answer')
      return (status & Csts.READY) === ready
    }
    const until = performance.now() + this.#readyMs
    while (!isDone()) {
      const isLate = performance.now() > until
      await new Promise((resolve) => setTimeout(resolve, 1))
      if (isLate && !isDone()) throw this.#error('ETIMEDOUT', what)
    }
  }

  #error(code: string, what: string): P2pdmaError {
    return new P2pdmaError(`${this.#host.device.address} ${what}`, { code })
  }

  async close(): Promise<void> {
    const { device } = this.#host
    if (!device.closed) {
      this.halt()
      device.interrupts.close()
    }
    this.#queue?.close()
    this.#admin.close()
  }
}

registerDriver(nvme)

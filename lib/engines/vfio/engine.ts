/**
 * A PCIe device behind an IOMMU, driven from here: the page tables are ours,
 * so a buffer keeps its IOVA across a move, and rings need no rewriting.
 */
import { EventEmitter } from 'node:events'
import { brand } from '../../brand.js'
import {
  P2pdmaError,
  checkOptions,
  closedError,
  deviceLostError,
  isDeviceLost,
  typeError,
} from '../../errors.js'
import { VfioDevice } from '../../kernel/vfio/index.js'
import type { Backing } from '../../move-notify/exporter/backing.js'
import { withDeadline } from '../../move-notify/reservation/deadline.js'
import type {
  Engine,
  EngineCapabilities,
  EngineChannel,
  EngineChannelOptions,
} from '../../move-notify/importer/engine.js'
import { Importer, type ImporterOptions } from '../../move-notify/importer/importer.js'
import type { RemoteAttachment } from '../../move-notify/importer/remote-attachment.js'
import { loseDevice } from '../../move-notify/importer/shared.js'
import { QueueChannel } from '../queue/channel.js'
import { checkChannelOptions } from '../queue/channel-options.js'
import { DeviceMappings } from './device-mappings.js'
import { DmaMemory } from './dma-memory.js'
import {
  type DeviceStorage,
  type DriverDevice,
  type Health,
  isNic,
  type NicDevice,
  type NicHost,
  type VfioFault,
  type VfioLink,
} from './driver.js'
import { driverOf } from './drivers.js'
import { capabilitiesOf, type VfioEvents, type VfioStats } from './facts.js'
import type { MappingTable } from './mapping-table.js'
import { RingBackend } from './ring-backend.js'

const FAULTS: readonly VfioFault[] = ['reset', 'link-down', 'hang-tx']

/** How often the device is looked at, ms. */
const LOOK_MS = 100

/** How often in a row it may have been reset again before it was ever seen to be sound. */
const SURPRISES = 8

/** How long taking away what a lost device had mapped may take, ms. */
const UNMAP_MS = 10_000

/** The device's counters have 32 bits and stay at the highest: they are added up each minute. */
const LOOKS_PER_READING = 600

export class VfioEngine extends EventEmitter<VfioEvents> implements Engine {
  static {
    brand(this, (value) => #device in value, { promising: ['map', 'unmap', 'close'] })
  }

  readonly name: string
  readonly #device: VfioDevice
  #capabilities: EngineCapabilities = capabilitiesOf([])
  readonly #memory: DeviceMappings
  #driver: DriverDevice | null = null
  readonly #backends = new Map<string, RingBackend>()
  #importers: Importer[] = []
  #isDown = false
  #reviving: Promise<void> = Promise.resolve()
  #resets = 0
  #look: NodeJS.Timeout | null = null
  #looks = 0
  /** Resets by somebody else since it was last seen to be sound. */
  #surprises = 0
  #error: P2pdmaError | null = null
  #losing: Promise<void> | null = null
  #closing: Promise<void> | null = null
  #last: VfioStats | null = null

  private constructor(device: VfioDevice) {
    super()
    this.name = `vfio:${device.address}`
    this.#device = device
    this.#memory = new DeviceMappings(device.space)
    device.on('request', () => this.#lose(device.error))
    device.on('error', (error) => this.#onError(error))
  }

  /**
   * Opens a device that is bound to vfio-pci, by its PCI address; resets it.
   * ERR_UNSUPPORTED where there is no driver for it, else as `VfioDevice.open`.
   */
  static async open(address: string): Promise<VfioEngine> {
    const device = await VfioDevice.open(address)
    const engine = new VfioEngine(device)
    try {
      const driver = driverOf(device)
      const host: NicHost = {
        device,
        allocate: (size) => new DmaMemory(device.space, size),
        onInterrupt: (queue) => engine.#backends.get(queue)?.channel.notify(),
        onLink: (link) => {
          // Later: what a listener throws, or calls, must hit nothing half done of ours.
          process.nextTick(() => engine.emit('link', link))
        },
      }
      const opened = await driver.open(host)
      engine.#driver = opened
      engine.#capabilities = capabilitiesOf(opened.operations)
      if (engine.#error !== null) throw engine.#error
      return engine
    } catch (error) {
      await engine.close()
      // The kernel may have asked for it in the meantime.
      throw engine.#error ?? error
    }
  }

  /** The operations are those that the driver has queues for. */
  get capabilities(): EngineCapabilities {
    return this.#capabilities
  }

  get closed(): boolean {
    return this.#closing !== null
  }

  /** Why it works no more; null while it does. */
  get error(): P2pdmaError | null {
    return this.#error
  }

  /** The device, for what no driver does; a reset through it is noticed as a surprise. */
  get device(): VfioDevice {
    return this.#device
  }

  /** The station address; null for what is no NIC, as the link is. */
  get mac(): string | null {
    return this.#nic?.mac ?? null
  }

  get link(): VfioLink | null {
    return this.#nic?.link ?? null
  }

  /** What the device keeps data in; null where it has nothing. */
  get storage(): DeviceStorage | null {
    return this.#usable.storage ?? null
  }

  /**
   * The device's storage, as work of this importer names it: a COPY between it and an attachment,
   * at offsets and of lengths that `capabilities` tell. ERR_UNSUPPORTED where there is none.
   */
  attachStorage(importer: Importer): RemoteAttachment {
    this.#checkOpen()
    if (!(importer instanceof Importer) || importer.engine !== this) {
      throw typeError('importer', 'an importer of this engine', importer)
    }
    const { storage } = this
    if (storage === null) {
      throw new P2pdmaError(`${this.name} has no storage`, { code: 'ERR_UNSUPPORTED' })
    }
    const { size, access } = storage
    const onClose = () => this.table.dropStorage(attachment.id)
    const attachment: RemoteAttachment = importer.attachRemote({ size, access, onClose })
    this.table.addStorage(attachment.id, size, access)
    return attachment
  }

  /** The queues that channels can be opened on; one channel each. */
  get queues(): readonly string[] {
    return this.#usable.queues
  }

  /** @internal */
  get table(): MappingTable {
    return this.#memory.table
  }

  /** Whether the device's registers are left alone: it is being reset, or it is gone. @internal */
  get isDown(): boolean {
    return this.#isDown || this.#device.closed
  }

  /** This device's side of the sharing; closed with the engine. */
  importer(options?: ImporterOptions): Importer {
    this.#checkOpen()
    const importer = new Importer(this, options)
    this.#importers = this.#importers.filter((each) => each.error === null)
    this.#importers.push(importer)
    return importer
  }

  /** EBUSY where the queue has a channel. The depth is half of the ring's descriptors. */
  openChannel(wanted: EngineChannelOptions): EngineChannel {
    this.#checkOpen()
    const driver = this.#usable
    const { min, max } = driver.ringEntries
    const options = checkChannelOptions(wanted, max / 2)
    const queue = options.queue ?? driver.queues[0] ?? ''
    if (!driver.queues.includes(queue)) {
      throw new P2pdmaError(
        `${this.name} has no queue ${JSON.stringify(queue)}; it has: ${driver.queues.join(', ')}`,
        { code: 'ERR_INVALID_ARG_VALUE', argument: 'queue' },
      )
    }
    if (this.#backends.has(queue)) {
      throw new P2pdmaError(`The queue ${queue} of ${this.name} has a channel`, {
        code: 'EBUSY',
        argument: 'queue',
        hint: 'close that channel first',
      })
    }
    // One slot of a ring stays empty, so a ring is twice as long as its channel is deep.
    const entries = Math.max(options.depth * 2, min)
    const ring = driver.openQueue(queue, entries)
    const channel = new QueueChannel(options, (channel) => {
      const backend = new RingBackend(this, ring, channel)
      this.#backends.set(queue, backend)
      return backend
    })
    this.#look ??= setInterval(() => this.#lookAtDevice(), LOOK_MS).unref()
    if (!this.isDown) ring.start()
    return channel
  }

  /** Throws ERR_UNSUPPORTED for memory that an IOMMU cannot pin. */
  map(id: number, backing: Backing, size: number, access: number): void | Promise<void> {
    this.#checkOpen()
    return this.#memory.map(id, backing, size, access)
  }

  seal(id: number): void {
    this.#memory.seal(id)
  }

  unseal(id: number): void {
    this.#memory.unseal(id)
  }

  unmap(id: number): void | Promise<void> {
    return this.#memory.unmap(id)
  }

  release(id: number): void {
    this.#memory.release(id)
  }

  /** Where an attachment lies for the device; null for one that it does not know. */
  iovaOf(id: number): number | null {
    return this.#memory.iovaOf(id)
  }

  /** What the device has done since it was opened; also after the close. */
  stats(): VfioStats {
    const driver = this.#driver
    if (driver !== null) {
      const device = { ...driver.statistics?.() }
      const dropped = isNic(driver) ? driver.dropped : 0
      this.#last = { device, dropped, resets: this.#resets }
    }
    return this.#last ?? { device: {}, dropped: 0, resets: 0 }
  }

  /** Breaks something on purpose: see `VfioFault`. ERR_UNSUPPORTED where the driver cannot. */
  inject(fault: { kind: VfioFault }): void {
    this.#checkOpen()
    const kind = checkOptions(fault, 'fault').kind
    if (!FAULTS.includes(kind)) {
      throw new P2pdmaError(`fault.kind must be one of ${FAULTS.join(', ')}`, {
        code: 'ERR_INVALID_ARG_VALUE',
        argument: 'fault.kind',
      })
    }
    const driver = this.#usable
    if (driver.inject === undefined) {
      throw new P2pdmaError(`The driver of ${this.name} makes no faults`, {
        code: 'ERR_UNSUPPORTED',
        argument: 'fault.kind',
      })
    }
    driver.inject(kind)
  }

  /** @internal */
  reset(reason: string): void {
    const driver = this.#driver
    if (this.isDown || driver === null) return
    const isSound = this.#health(driver) === 'sound'
    this.#isDown = true
    this.#resets++
    driver.halt()
    for (const backend of this.#backends.values()) backend.beforeReset(isSound)
    process.nextTick(() => this.emit('reset', reason))
    this.#reviving = this.#revive(driver)
  }

  async #revive(driver: DriverDevice): Promise<void> {
    try {
      await driver.revive()
    } catch (cause) {
      this.#lose(cause)
      return
    }
    if (this.#error !== null) return
    if (this.#health(driver) === 'gone') return this.#lose(null)
    this.#isDown = false
    for (const backend of this.#backends.values()) backend.afterReset()
  }

  /** Registers of memory that is switched off may read as anything: that is asked first. */
  #health(driver: DriverDevice): Health {
    try {
      return this.#device.config.hasMemory ? driver.health() : 'gone'
    } catch {
      return 'gone'
    }
  }

  #lookAtDevice(): void {
    const driver = this.#driver
    if (this.#isDown || driver === null) return
    if (this.#device.closed) return this.#lose(closedError('The device'))
    const health = this.#health(driver)
    if (health === 'gone') return this.#lose(null)
    if (health === 'reset') return this.#onSurprise('somebody else has reset it')
    this.#surprises = 0
    // An interrupt may be lost: Linux's driver raises one by itself now and then (e1000_watchdog_task).
    for (const { channel } of this.#backends.values()) channel.notify()
    if (++this.#looks % LOOKS_PER_READING === 0) driver.statistics?.()
  }

  #onSurprise(reason: string): void {
    if (++this.#surprises <= SURPRISES) return this.reset(reason)
    this.#lose(new Error(`${SURPRISES} resets in a row, and it has never been sound since`))
  }

  /**
   * What was on its way may be wrong, so it is set up anew. A fatal error resets the
   * link as well, now or soon: that is seen when the device is looked at.
   */
  #onError(error: P2pdmaError): void {
    const driver = this.#driver
    if (driver === null || this.#isDown) return
    if (this.#health(driver) === 'gone') this.#lose(error)
    else this.#onSurprise(error.message)
  }

  /** The device is gone, or answers no more: nothing can be done with it. */
  #lose(cause: unknown): void {
    if (this.#error !== null) return
    const reason = cause ?? this.#device.error ?? undefined
    const why = isDeviceLost(reason)
      ? 'it is being removed, or unbound from vfio-pci'
      : 'it hangs, or its memory has been switched off, or its link reset (see the kernel log)'
    const hint = `${why}: open it again when it is back`
    this.#error = deviceLostError(this.name, hint, reason)
    this.#isDown = true
    this.#losing = this.#letGo(this.#error)
  }

  /**
   * Nothing stays mapped, everybody is told, and the device is given back: the kernel
   * may be waiting for that. The IOMMU keeps it from what has been unmapped,
   * whatever it does.
   */
  async #letGo(error: P2pdmaError): Promise<void> {
    const late = () => new Error('what it has mapped could not be taken away in time')
    this.#halt()
    const isOutOfReach = await withDeadline(this.#memory.takeAll(), UNMAP_MS, late).then(
      () => true,
      () => false,
    )
    loseDevice(this, error, isOutOfReach)
    process.nextTick(() => this.emit('lost', error))
    await this.#giveBack()
  }

  /** It may come back, with what it was told. */
  #halt(): void {
    if (this.#device.closed) return
    try {
      this.#driver?.halt()
    } catch {
      // Its registers have been taken away in this moment.
    }
  }

  /** @internal */
  hold(queue: string, hold: boolean): void {
    if (!this.#device.closed) this.#driver?.hold(queue, hold)
  }

  /** @internal */
  forget(backend: RingBackend): void {
    if (this.#backends.get(backend.queue.name) === backend) {
      this.#backends.delete(backend.queue.name)
    }
    if (this.#backends.size > 0 || this.#look === null) return
    clearInterval(this.#look)
    this.#look = null
  }

  /** Closes its importers and channels, and gives the device back. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    const importers = this.#importers
    this.#importers = []
    if (importers.length > 0) await Promise.allSettled(importers.map((each) => each.close()))
    await (this.#losing ?? this.#giveBack())
  }

  async #giveBack(): Promise<void> {
    for (const { channel } of [...this.#backends.values()]) channel.close()
    await Promise.allSettled([this.#reviving, this.#memory.end()])
    this.stats()
    const driver = this.#driver
    this.#driver = null
    try {
      await driver?.close()
    } finally {
      await this.#device.close()
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  get #nic(): NicDevice | null {
    const driver = this.#usable
    return isNic(driver) ? driver : null
  }

  get #usable(): DriverDevice {
    if (this.#driver === null) throw this.#error ?? closedError('The engine')
    return this.#driver
  }

  #checkOpen(): void {
    if (this.#closing !== null) throw closedError('The engine')
    if (this.#error !== null) throw this.#error
  }
}

/**
 * A device's BAR as video memory, through VFIO: the CPU has it mapped, an
 * IOMMU can be given it, and where the kernel can (6.19) it is a dma-buf.
 */
import { brand } from '../brand.js'
import {
  P2pdmaError,
  checkInteger,
  checkOptions,
  closedError,
  deviceLostError,
  isDeviceLost,
  typeError,
} from '../errors.js'
import type { DmaBuf } from '../kernel/dma-buf.js'
import type { Mapping } from '../kernel/mapping.js'
import { Ready, isReady } from '../kernel/poll.js'
import { CommandBit, Config } from '../kernel/vfio/config-space.js'
import { type MemoryUser, VfioDevice } from '../kernel/vfio/index.js'
import { native } from '../native.js'
import type { BackingHolder, Exporter } from '../move-notify/exporter/backing.js'
import { withDeadline } from '../move-notify/reservation/deadline.js'
import { isMemory, largestMemory, notMemory } from './bar-look.js'
import { MappedBacking } from './mapped-backing.js'
import type { BackingFile } from './mapped-file.js'
import { RangeAllocator } from './range-allocator.js'

const BARS = 6

/** How long the buffers of memory that goes away may take to let go of it, ms. */
const LET_GO_MS = 10_000

export interface VfioBarOptions {
  /**
   * Which BAR, 0 to 5. Default: the largest that the CPU can map and that says that it is
   * memory (prefetchable). Before it is used, a few words of it are written and put back:
   * ERR_NOT_MEMORY where they do not keep what is written.
   */
  region?: number | undefined
}

/** The memory of a device is switched off. */
export interface MemoryOff extends AsyncDisposable {
  /** Switches it on again; importers can map it again then. Idempotent. */
  on(): Promise<void>
}

/** A device whose BARs are memory here. One for each address: its ranges are handed out once. */
class Card implements MemoryUser {
  readonly device: VfioDevice
  readonly #isOurs: boolean
  readonly #opening = new Map<number, Promise<Bar>>()
  readonly #bars: Bar[] = []
  #users = 0
  /** What the CPU does with its memory. */
  readonly #work = new Set<Promise<unknown>>()
  #isOff = false
  #lost: P2pdmaError | null = null

  private constructor(device: VfioDevice, isOurs: boolean) {
    this.device = device
    this.#isOurs = isOurs
    device.addUser(this)
  }

  static readonly #open = new Map<string, Promise<Card>>()
  /** Those that are being given back: nobody can open them yet. */
  static readonly #closing = new Map<string, Promise<void>>()

  /** One user more. */
  static async acquire(device: string | VfioDevice): Promise<Card> {
    const address = (typeof device === 'string' ? device : device.address).toLowerCase()
    for (;;) {
      await Card.#closing.get(address)
      let opening = Card.#open.get(address)
      if (opening === undefined) {
        opening = Card.#make(device)
        Card.#open.set(address, opening)
        void opening.catch(() => Card.#open.delete(address))
      }
      const card = await opening
      // Its last user may have left in between.
      if (Card.#open.get(address) !== opening) continue
      card.#users++
      return card
    }
  }

  static async #make(device: string | VfioDevice): Promise<Card> {
    if (typeof device !== 'string') return new Card(device, false)
    return new Card(await VfioDevice.open(device), true)
  }

  use(): void {
    this.#users++
  }

  /** One user less; the last one gives the device back. */
  async release(): Promise<void> {
    if (--this.#users > 0) return
    // Once it is lost another one may have its place.
    if (this.#lost === null) Card.#open.delete(this.device.address)
    for (const bar of this.#bars) bar.close()
    this.device.removeUser(this)
    if (!this.#isOurs) return
    await this.#close()
  }

  async #close(): Promise<void> {
    const { address } = this.device
    const closed = this.device.close().finally(() => {
      if (Card.#closing.get(address) === closed) Card.#closing.delete(address)
    })
    Card.#closing.set(address, closed)
    await closed
  }

  /** Why the memory is no more; null while it is. */
  get lost(): P2pdmaError | null {
    return this.#lost
  }

  /**
   * The device is closed under its buffers, by the kernel's request or by whoever opened
   * it: they are taken from their importers, for good. What is open still of the card
   * is let go when its last backing has been freed.
   */
  async letGo(): Promise<void> {
    const { address, error } = this.device
    const what = `The memory of ${address}`
    this.#lost = isDeviceLost(error)
      ? deviceLostError(what, 'the device is being removed, or unbound: close its buffers', error)
      : deviceLostError(what, 'its device has been closed: close its buffers')
    Card.#open.delete(address)
    if (this.#isOurs) void this.#close()
    const losing = this.#bars.flatMap(({ holders }) => [...holders.values()])
    const done = Promise.all(losing.map((holder) => holder.loseMemory(this.#lost!)))
    // The device takes its memory out of the IOMMU then, whoever uses it.
    await withDeadline(done, LET_GO_MS, () => this.#lost!).catch(() => {})
  }

  async bar(region: number | undefined): Promise<Bar> {
    const index = region ?? largestMemory(this.device)
    let opening = this.#opening.get(index)
    if (opening === undefined) {
      opening = this.#openBar(index)
      this.#opening.set(index, opening)
      void opening.catch(() => this.#opening.delete(index))
    }
    return opening
  }

  async #openBar(index: number): Promise<Bar> {
    this.check()
    const mapping = this.device.mapRegion(index)
    try {
      // Before anybody has a part of it.
      const looking = isMemory(mapping)
      this.track(looking)
      if (!(await looking)) throw notMemory(this.device, index)
      const bar = new Bar(this, index, mapping, await exported(this.device, index))
      // It may have been switched off meanwhile.
      if (this.#isOff) bar.unmap()
      if (this.#lost !== null) throw this.#lost
      this.#bars.push(bar)
      return bar
    } catch (error) {
      mapping.unmap()
      throw error
    }
  }

  /** Throws where there is no memory now. */
  check(): void {
    if (this.#lost !== null) throw this.#lost
    if (this.#isOff) throw memoryIsOff(this.device)
  }

  /** Work of the CPU's that has begun: the memory is not switched off before it is done. */
  track(work: Promise<unknown>): void {
    this.#work.add(work)
    const done = () => this.#work.delete(work)
    work.then(done, done)
  }

  async switchOff(): Promise<MemoryOff> {
    this.check()
    this.#isOff = true
    this.use()
    try {
      // What a mapping's job still reads of it when it is unmapped would be zeros.
      await Promise.allSettled(this.#work)
      for (const bar of this.#bars) bar.unmap()
      this.#setMemory(false)
    } catch (error) {
      await this.#end()
      throw error
    }
    let ending: Promise<void> | null = null
    const on = () => (ending ??= this.#on())
    return { on, [Symbol.asyncDispose]: on }
  }

  async #on(): Promise<void> {
    try {
      if (this.#lost === null) this.#setMemory(true)
    } finally {
      await this.#end()
    }
  }

  async #end(): Promise<void> {
    this.#isOff = false
    try {
      if (this.#lost === null) for (const bar of this.#bars) bar.map()
    } finally {
      await this.release()
    }
  }

  /** The kernel's part is in vfio_pci_config.c, vfio_basic_config_write(): it revokes, or no more. */
  #setMemory(on: boolean): void {
    const { config } = this.device
    const command = config.read16(Config.COMMAND)
    config.write16(Config.COMMAND, on ? command | CommandBit.MEMORY : command & ~CommandBit.MEMORY)
  }
}

/** A whole BAR, of which backings are parts. */
class Bar {
  readonly card: Card
  readonly index: number
  /** Null where the kernel has no dma-bufs of BARs. */
  readonly dmaBuf: DmaBuf | null
  readonly ranges: RangeAllocator
  /** Whose bytes live there, by offset. */
  readonly holders = new Map<number, BackingHolder>()
  #mapping: Mapping

  constructor(card: Card, index: number, mapping: Mapping, dmaBuf: DmaBuf | null) {
    this.card = card
    this.index = index
    this.#mapping = mapping
    this.dmaBuf = dmaBuf
    const { pageSize } = native
    this.ranges = new RangeAllocator(mapping.length - (mapping.length % pageSize), pageSize)
  }

  /** Throws ERR_INVALID_STATE while the memory is switched off, ERR_DEVICE_LOST once it is gone. */
  get mapping(): Mapping {
    this.card.check()
    return this.#mapping
  }

  /** An access to a mapping of memory that is off would end the process (SIGBUS). */
  unmap(): void {
    this.#mapping.unmap()
  }

  map(): void {
    if (this.#mapping.closed) this.#mapping = this.card.device.mapRegion(this.index)
  }

  close(): void {
    this.dmaBuf?.close()
    this.#mapping.unmap()
  }
}

/** A BAR under the name of one of its exporters. */
class BarFile implements BackingFile {
  readonly placement: string
  readonly bar: Bar
  readonly memfd = null

  constructor(placement: string, bar: Bar) {
    this.placement = placement
    this.bar = bar
  }

  get memory(): DmaBuf | null {
    return this.bar.dmaBuf
  }

  get dmaBuf(): DmaBuf | null {
    return this.bar.dmaBuf
  }

  get mapping(): Mapping {
    return this.bar.mapping
  }

  /** Its exporter has no caches to see to (vfio_pci_dmabuf.c): a bracket waits for fences alone. */
  get isBracketless(): boolean {
    const { dmaBuf } = this.bar
    return dmaBuf === null || isReady(dmaBuf.handle, Ready.WRITABLE)
  }

  get dmaMapping(): Mapping {
    return this.bar.mapping
  }

  track(work: Promise<unknown>): void {
    this.bar.card.track(work)
  }

  get lost(): P2pdmaError | null {
    return this.bar.card.lost
  }

  heldBy(offset: number, holder: BackingHolder | null): void {
    const { holders, card } = this.bar
    if (holder === null) holders.delete(offset)
    else holders.set(offset, holder)
    if (holder !== null && card.lost !== null) void holder.loseMemory(card.lost)
  }

  async allocate(size: number): Promise<MappedBacking> {
    const { card, ranges } = this.bar
    const offset = ranges.allocate(size)
    card.use()
    const backing = new MappedBacking(this, offset, ranges.rounded(size))
    try {
      await backing.fill(0n)
      return backing
    } catch (error) {
      await backing.free()
      throw error
    }
  }

  release(offset: number): Promise<void> {
    this.bar.ranges.free(offset)
    this.bar.holders.delete(offset)
    return this.bar.card.release()
  }
}

export class VfioBarExporter implements Exporter {
  static {
    brand(this, (value) => #device in value, { promising: ['capacity', 'available', 'close'] })
  }

  readonly kind = 'kernel'
  readonly placement: string
  readonly #device: string | VfioDevice
  readonly #region: number | undefined
  /** Keeps the device open from the first backing to the close. */
  #held: BarFile | null = null
  #off: MemoryOff | null = null
  #closing: Promise<void> | null = null

  constructor(device: string | VfioDevice, options: VfioBarOptions = {}) {
    if (typeof device !== 'string' && !(device instanceof VfioDevice)) {
      throw typeError('device', 'a PCI address or a VfioDevice', device)
    }
    const { region } = checkOptions(options)
    if (region !== undefined) checkInteger('region', region, 0, BARS - 1)
    this.#device = device
    this.#region = region
    const address = typeof device === 'string' ? device : device.address
    this.placement = `vfio-bar:${address}${region === undefined ? '' : `/${region}`}`
  }

  /**
   * Zeroed; ENOSPC where the BAR has no such piece left. The first one opens the device,
   * and the next one after that was lost: removed, unbound or closed. What lived there
   * then has an ERR_DEVICE_LOST for whoever touches it, and its importers let go of it.
   */
  async allocate(size: number): Promise<MappedBacking> {
    checkInteger('size', size, 1)
    return this.#within(async (file) => {
      const backing = await file.allocate(size)
      try {
        this.#checkOpen()
      } catch (error) {
        await backing.free()
        throw error
      }
      const before = this.#held
      if (before === null || before.bar.card.lost !== null) {
        file.bar.card.use()
        this.#held = file
        await before?.bar.card.release()
      }
      return backing
    })
  }

  /** Bytes of the BAR: what a budget can be at most. */
  capacity(): Promise<number> {
    return this.#within(({ bar }) => bar.ranges.size)
  }

  /** Bytes of the BAR that nobody has, in one piece or many. */
  available(): Promise<number> {
    return this.#within(({ bar }) => bar.ranges.left)
  }

  /**
   * Switches the device's memory off, as a reset or a power state would: the
   * kernel revokes its dma-bufs, and waits until their importers have let go
   * (vfio_pci_dma_buf_move). Work of the CPU's that has begun is done first; until
   * it is on again whatever would touch the memory rejects with ERR_INVALID_STATE,
   * a move to it or away from it too. An engine that reaches it by the CPU's
   * mapping (software) has to have let go. Whether it keeps what it holds is the
   * device's affair. EBUSY where somebody else has a BAR of the device mapped,
   * ERR_INVALID_STATE where it is off already.
   */
  async switchOff(): Promise<MemoryOff> {
    const off = await this.#within(({ bar }) => bar.card.switchOff())
    if (this.#closing !== null) {
      await off.on()
      this.#checkOpen()
    }
    this.#off = off
    return off
  }

  /**
   * Allocates no more, and switches its memory on where it has been switched off
   * by this exporter. The device is given back as soon as the last backing
   * has been, and every other exporter of it closed. Idempotent.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    try {
      await this.#off?.on()
    } finally {
      await this.#held?.bar.card.release()
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Opens the device, or has it open, for as long as `use` takes. */
  async #within<T>(use: (file: BarFile) => T | Promise<T>): Promise<T> {
    this.#checkOpen()
    const card = await Card.acquire(this.#device)
    try {
      return await use(new BarFile(this.placement, await card.bar(this.#region)))
    } finally {
      await card.release()
    }
  }

  #checkOpen(): void {
    if (this.#closing !== null) throw closedError('The exporter')
  }
}

/**
 * Allocates from a BAR of a device that is bound to vfio-pci, by its PCI address
 * or as it is open already.
 */
export function vfioBar(device: string | VfioDevice, options: VfioBarOptions = {}) {
  return new VfioBarExporter(device, options)
}

function memoryIsOff({ address }: VfioDevice): P2pdmaError {
  return new P2pdmaError(`The memory of ${address} is switched off`, {
    code: 'ERR_INVALID_STATE',
    hint: 'switch it on first: MemoryOff.on()',
  })
}

/** Null where the kernel, or this device's, cannot. */
async function exported(device: VfioDevice, region: number): Promise<DmaBuf | null> {
  try {
    return await device.exportDmaBuf(region)
  } catch (error) {
    // EINVAL: of a device that takes no part in peer-to-peer (pcim_p2pdma_init failed).
    const { code } = error as { code?: unknown }
    if (code === 'ERR_UNSUPPORTED' || code === 'EINVAL') return null
    throw error
  }
}

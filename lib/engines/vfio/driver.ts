/**
 * What a device's driver does for the engine: the device ops. Everything that
 * devices have in common (attachments, IOVAs, rows, completions, stop and
 * restart) is the engine's; a driver knows registers and descriptors. The next
 * device is one more module like `e1000e`, and one more line of `registerDriver()`.
 */
import type { VfioDevice } from '../../kernel/vfio/index.js'
import type { OperationCapability } from '../../move-notify/importer/engine.js'
import type { Registered } from '../../registry.js'
import type { DmaMemory } from './dma-memory.js'
import type { RingMemory } from './ring-slots.js'

/** A kind of device. */
export interface Driver extends Registered {
  /** PCI ids, `vendor << 16 | device`. */
  readonly ids: readonly number[]
  /** Resets the device and brings it to where queues can be opened. */
  open(host: DriverHost): Promise<DriverDevice>
}

/** What the engine lends to a driver. */
export interface DriverHost {
  readonly device: VfioDevice
  /** Zeroed memory of the CPU's that the device reaches too, at one IOVA for ever. */
  allocate(size: number): DmaMemory
  /** A queue has news. */
  onInterrupt(queue: string): void
}

/** A kind of NIC: what its devices have that others have not is a `NicDevice`. */
export interface NicDriver extends Driver {
  open(host: NicHost): Promise<NicDevice>
}

/** What the engine lends to the driver of a NIC. */
export interface NicHost extends DriverHost {
  /** It has come up or gone down. */
  onLink(link: VfioLink): void
}

export interface VfioLink {
  isUp: boolean
  /** Mb/s; 0 while it is down. */
  speed: number
  isFullDuplex: boolean
}

/**
 * `reset`: the device forgets what it was told, as in a reset by somebody else.
 * `link-down`: the link goes down, and comes up again by itself.
 * `hang-tx`: it sends nothing any more, until it is reset.
 */
export type VfioFault = 'reset' | 'link-down' | 'hang-tx'

/** What the device is in. `gone`: it answers all ones; `reset`: it has lost what it was told. */
export type Health = 'sound' | 'reset' | 'gone'

/** A device that a driver has opened. */
export interface DriverDevice {
  /** The queues that a channel can be opened on. */
  readonly queues: readonly string[]
  /** What these queues do, all together. */
  readonly operations: readonly OperationCapability[]
  /** Descriptors of a ring at least and at most. */
  readonly ringEntries: { readonly min: number; readonly max: number }
  /** `entries`: descriptors of the ring, a power of two. */
  openQueue(name: string, entries: number): RingQueue
  /** While true, interrupts of this queue keep the process alive. */
  hold(queue: string, hold: boolean): void
  /** Reads a register or two. */
  health(): Health
  /** Stops all DMA, whatever the device does, and returns when none can come any more. */
  halt(): void
  /** After `halt()`: as `Driver.open`, with the queues that are open set up again, empty and off. */
  revive(): Promise<void>
  /**
   * Deliberate faults, behind the engine's back; ERR_UNSUPPORTED for one that it cannot make.
   * Left out: it can make none.
   */
  inject?(fault: VfioFault): void
  /** Sums since it was opened. Names are the datasheet's. Left out: it counts nothing. */
  statistics?(): Readonly<Record<string, number>>
  /** Halts the device and switches its interrupts off; resolves when it is quiet. */
  close(): Promise<void>
}

/** A NIC that a driver has opened. */
export interface NicDevice extends DriverDevice {
  /** Its station address: `52:54:00:12:34:56`. */
  readonly mac: string
  readonly link: VfioLink
  /** What of the statistics are frames that the device dropped. */
  readonly dropped: number
}

/** Whether a driver has opened a NIC. */
export function isNic(device: DriverDevice): device is NicDevice {
  return 'mac' in device
}

/** Bytes of a queue's operations. */
export interface QueueLimits {
  minLength: number
  maxLength: number
}

/** A ring of descriptors. One slot stays empty, by which the device knows full from empty. */
export interface RingQueue {
  readonly name: string
  /** The one operation that it does, of `Op`. */
  readonly op: number
  /** Whether an operation that a reset has cut off can be posted again without harm. */
  readonly repeatable: boolean
  readonly limits: QueueLimits
  /** Where the descriptors are, and what they look like. */
  readonly ring: RingMemory
  /** The device's own code, of the word of a descriptor that says that it went wrong. */
  errorCode(word: number): number
  /** Hands the slots before `tail` to the device: one store to a register. The queue is on. */
  tell(tail: number): void
  /**
   * The slot that the device comes to next, by the device; what is before it has begun.
   * Only asked of a device that is sound.
   */
  next(): number
  /** Begins to stop; returns whether it is quiet: poll until it is. `tail`: as told last. */
  stop(tail: number): boolean
  /** Lets the device work on the ring. */
  start(): void
  /** Programs an empty ring, beginning at slot 0; the queue is off. */
  setUp(): void
  /** Asks for one interrupt when something is finished. */
  arm(): void
  /** Gives the queue up; it is off. */
  close(): void
}

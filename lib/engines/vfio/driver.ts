/**
 * What a device's driver does for the engine: the device ops. Everything that
 * devices have in common (attachments, IOVAs, rows, completions, stop and
 * restart) is the engine's; a driver knows registers and descriptors. The next
 * device is one more module like `e1000e`, and one more line of `registerDriver()`.
 *
 * Of the kernel's own user-space drivers (tools/testing/selftests/vfio/lib/drivers; read, not
 * tried here) one would be one more folder. Their `probe` is `ids`, `init` is `open()`, `remove`
 * is `close()`; `memcpy_start` and `memcpy_wait` are a queue's form, and `send_msi` its `arm()`.
 * They need no `halt()`, `revive()` and `health()`, by which work survives a reset: these are to be
 * written.
 *
 * - `igb`: fits, as `e1000e` does, with legacy descriptors for what it sends. The advanced ones,
 *   which it uses, want the length in a second word, too (PAYLEN), and a form has one. Those that
 *   it receives with fit: address in, length and status written over it.
 * - `ioat`: does not. A COPY between two attachments wants a second address in the descriptor, each
 *   of which names the next (`next`), and the register takes how many there are, not a slot. It
 *   says in one word of memory, or of a register, how far it has come: a third completion source.
 * - `dsa`: does not. A descriptor is not in a ring but stored into a portal, 64 bytes at once, has
 *   two addresses, and its completion record where a third one says.
 * - `nv_falcon`: does not, and a form would not help: no descriptors, one transfer at a time by a
 *   handful of registers, into the falcon's memory and out of it. That memory would be a `storage`;
 *   but what posts by registers is an engine (`registerEngine()`), not a ring.
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
  /** What it has itself; left out: nothing. */
  readonly storage?: DeviceStorage
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

/** What a device keeps data in: an operation moves them between it and an attachment. */
export interface DeviceStorage {
  /** As the device calls it: its model, or its number. */
  readonly name: string
  /** Bytes. */
  readonly size: number
  /** Of `Access`: what operations may do with it. */
  readonly access: number
}

/** Bytes of one operation. */
export interface QueueLimits {
  minLength: number
  maxLength: number
}

/** What a queue does, in descriptors with one address in memory of ours. */
export interface QueueOperation extends Readonly<QueueLimits> {
  /** Of `Op`: SEND or RECEIVE; or COPY, with the device's storage at one side. */
  readonly op: number
  /** What its offsets and lengths are a multiple of, bytes; a power of two. */
  readonly alignment: number
  /** Which side is the device's storage, where one is: a COPY to it, or from it. */
  readonly storage?: 'source' | 'target'
  /** The device's code for it, where it has one: see `DescriptorForm.operationWord`. */
  readonly code?: number
}

/** A ring of descriptors. One slot stays empty, by which the device knows full from empty. */
export interface RingQueue {
  readonly name: string
  /** What it does, its granularity included. */
  readonly operations: readonly QueueOperation[]
  /** Whether an operation that a reset has cut off can be posted again without harm. */
  readonly repeatable: boolean
  /** Whether it stops by finishing what it has been given; else `stop()` holds that back. */
  readonly drains: boolean
  /**
   * Where the descriptors are, and what they look like; and where the device says that it has
   * finished one: in it, or in a ring of completions, in any order.
   */
  readonly ring: RingMemory
  /** The device's own code, of the word of a descriptor, or completion, that says that it went wrong. */
  errorCode(word: number): number
  /** Hands the slots before `tail` to the device: one store to a register. The queue is on. */
  tell(tail: number): void
  /**
   * The slot that the device comes to next, by the device; what is before it has begun. Only asked
   * of a device that is sound, about what is not repeatable. Left out: it does not say.
   */
  next?(): number
  /**
   * Begins to stop; returns whether it is quiet: poll until it is. `tail`: as told last.
   * What drains has finished all of it.
   */
  stop(tail: number): boolean
  /** Lets the device work on the ring. */
  start(): void
  /** Programs an empty ring, beginning at slot 0, and its completions; the queue is off. Must not throw. */
  setUp(): void
  /** Asks for one interrupt when something is finished. */
  arm(): void
  /** Gives the queue up; it is off. */
  close(): void
}

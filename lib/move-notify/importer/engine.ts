/**
 * What an importer needs its hardware to do. One implementation per device
 * family, in lib/engines; the heart has no other view of a device.
 */
import type { Backing } from '../exporter/backing.js'
import type { Batch, Completions } from './batch.js'

export { Access } from '../../abi.js'

/** One of `Op` that an engine's channels do, on some queue of theirs. */
export interface OperationCapability {
  /** Of `Op`. */
  readonly op: number
  /** Bytes of one such operation, at least and at most. */
  readonly minLength: number
  readonly maxLength: number
  /** What offsets in an attachment are a multiple of, bytes; a power of two. */
  readonly alignment: number
  /** Whether a peer is at its other end: it cannot be done between two attachments of ours. */
  readonly withPeer: boolean
}

/** By what a device can be given memory. */
export interface MappingCapability {
  /** By the file descriptor of a dma-buf. */
  readonly dmaBufs: boolean
  /** By the CPU's mapping of memory that has pages. */
  readonly cpuMemory: boolean
  /** The BAR of another device, whichever way. */
  readonly bars: boolean
}

/** What an engine can do. It says the same as long as it is open. */
export interface EngineCapabilities {
  readonly operations: readonly OperationCapability[]
  /** Whether a transfer has two sides that both post: a SEND ends where a peer's RECEIVE is. */
  readonly isTwoSided: boolean
  readonly maps: MappingCapability
  /**
   * What refuses an access that comes after `unmap()`. `fault`: the device, or the IOMMU,
   * looks the mapping up and finds none; `key`: the key of the mapping is known no more;
   * `none`: nothing does, so a channel has to be quiet before anything is unmapped.
   */
  readonly lateAccess: 'fault' | 'key' | 'none'
  /**
   * Why the device cannot be given this memory, ever; null where it can, as far as one can
   * know without trying. Asked before anything is stopped: `move()` refuses the place then.
   * Left out: it can.
   */
  canMap?(this: void, backing: Backing, access: number): string | null
}

export interface Engine {
  /** As `--engine` spells it. */
  readonly name: string
  readonly capabilities: EngineCapabilities
  /** Creates a channel. Its epoch starts at 1. */
  openChannel(options: EngineChannelOptions): EngineChannel
  /**
   * Makes `backing` addressable as attachment `id`, as a new generation, and
   * sealed: its move fence may be outstanding still.
   * May throw or reject; the heart retries, then fails that attachment alone.
   */
  map(id: number, backing: Backing, size: number, access: number): void | Promise<void>
  /**
   * Closes `id` to new work, at once: `post()` stops at work that names it as
   * though it were not mapped. Work accepted before goes on.
   */
  seal(id: number): void
  /** Opens the mapping of `id` to new work. */
  unseal(id: number): void
  /**
   * Takes the mapping of `id` away. Once this has returned (or resolved) the
   * device reaches the memory no more, whatever is still queued: a late access
   * is a fault. Unmapping what is not mapped is a no-op.
   */
  unmap(id: number): void | Promise<void>
  /**
   * The attachment is closed for good, and unmapped: what was kept for its
   * next mapping (an IOVA) can go. Not called where the device may hold the
   * mapping still. Must not throw; may come after the engine's close.
   */
  release?(id: number): void
  close(): void | Promise<void>
}

export interface EngineChannelOptions {
  /** Operations in flight at most; a power of two. */
  depth: number
  /**
   * Which of the device's queues, `tx` or `rx` say; without it the engine's
   * choice. An engine with one kind of queue refuses any (ERR_UNSUPPORTED).
   */
  queue?: string
  /** Called on the event loop once after each `arm()`, when a completion can be reaped. */
  onCompletion: () => void
  /**
   * Called within `post()` when work is accepted that names this attachment: the first time, and
   * the first time after each `uses(id)` that has said no; more often does no harm. A channel is
   * asked, and stopped, for the moves of those alone that it has told of.
   */
  onUse?: (id: number) => void
  /** Called once after the close, by whoever it was closed: the engine may have been. */
  onClosed?: () => void
}

export interface EngineChannel {
  readonly depth: number
  /** Operations accepted and not yet reaped. */
  readonly inFlight: number
  /**
   * Posts operations `first` to `first + count - 1` of the batch, in order,
   * resolving each attachment id to its mapping of this moment. Returns how
   * many were accepted: fewer when the ring is full, the channel is stopped,
   * or the next one names an attachment that is sealed or not mapped. Throws
   * (with `accepted` operations posted before) when one is malformed, or
   * (ERR_UNSUPPORTED) when this queue does no such operation.
   */
  post(batch: Batch, first: number, count: number): number
  /** Fills `out` with completions, oldest first, stale epochs included; returns how many. */
  reap(out: Completions): number
  /** How many of those that `reap()` returned last are of an earlier epoch. */
  readonly stale: number
  /** Completions of the device's that answer nothing which it was given: dropped. Default 0. */
  readonly unmatched?: number
  /**
   * Asks for one `onCompletion` when something can be reaped (at once, if something can).
   * `arrivalsOnly`: when something has arrived; an engine may tell of the rest, too.
   */
  arm(arrivalsOnly?: boolean): void
  /**
   * Waits within this call, for so many microseconds at most, until something can be
   * reaped, or has arrived; returns whether. Left out where the device cannot.
   */
  wait?(microseconds: number, arrivalsOnly: boolean): boolean
  /** Why it has ended by itself; null otherwise. What it then gives up is CANCELLED. */
  readonly endError?: Error | null
  /**
   * Whether work accepted and not completed names this attachment. Asked at each of its moves,
   * of those channels that have told of it: it must not look through all that is in flight.
   */
  uses(id: number): boolean
  /**
   * Stops the channel. Done (at once, or when it resolves) when the device is
   * quiet: it touches no mapping for this channel until `restart()`. Work that is not finished is
   * held by the engine (a long operation stops between chunks; a posted
   * RECEIVE may have nothing to come, and is never waited for). May take for
   * ever on a hung device: the heart has the deadline.
   */
  stop(): void | Promise<void>
  /**
   * The forced path: the channel goes to error, whatever the device does.
   * Starts a new epoch and returns it. Completions already published count as
   * the new epoch's; what a hung device publishes later carries the old one.
   * Throws where even that cannot be done: then the importer has failed.
   */
  force(): number
  /**
   * Starts a stopped channel. Work held is resolved again, against today's
   * mappings, and goes on in order; what names an attachment that is gone
   * completes with `Status.NOT_MAPPED`. After `force()`: operations that can
   * be repeated are repeated from their start, others that had begun complete
   * with `Status.OUTCOME_UNKNOWN`. Synchronous: it is called in the turn in
   * which the gate opens.
   */
  restart(): void
  /** Gives up all work; idempotent. */
  close(): void
}

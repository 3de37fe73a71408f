/**
 * The diagnostics channels, all of them. Messages are built only when
 * somebody listens. Times are `performance.now()`, ms.
 */
import { channel } from 'node:diagnostics_channel'
import type { ChannelEvent, ChannelTableState } from './importer/channel-states.js'

/** A channel's transition. */
export interface ChannelTransition {
  importer: string
  channel: number
  event: ChannelEvent
  from: ChannelTableState
  to: ChannelTableState
  at: number
  /** On `restart`: how long the gate was closed, ms. */
  pauseMs?: number
}

/** A buffer's move, when its old backing has been retired or the move has failed. */
export interface BufferMove {
  from: string
  to: string
  generation: number
  bytes: number
  /** Milliseconds from the call to the lock, to the last unmap, to the last byte, to the end. */
  lockedMs: number
  invalidatedMs: number
  copiedMs: number
  endMs: number
  /** When it ended: `at - endMs` is when it was called. */
  at: number
  error: Error | null
}

/**
 * The engine has mapped an attachment, or has taken its mapping away. With the
 * transitions of its channels and the buffer's move it splits a pause: stop
 * (`invalidate` to `drained`), unmap, copy (`invalidatedMs` to `copiedMs`),
 * map, restart. The map may overlap with the copy.
 */
export interface MappingChange {
  importer: string
  attachment: number
  change: 'map' | 'unmap'
  /** When the engine had done it, and how long that took. */
  at: number
  ms: number
  error: Error | null
}

/** An attachment remapped, or failed. */
export interface AttachmentRestore {
  importer: string
  attachment: number
  generation: number
  /** No channel had stopped for it: it was attached, or restored by itself. */
  idle: boolean
  error: Error | null
}

/** A resident set has begun to thrash, or has stopped: see `ThrashOptions`. */
export interface ThrashChange {
  /** Of the memory that is too small. */
  placement: string
  thrashing: boolean
  /** `refaultedBytes / usedBytes`, over the last `window` uses. */
  ratio: number
  usedBytes: number
  refaultedBytes: number
  window: number
  at: number
}

/** What another machine has sent was refused; nothing came of it, and its link is closed. */
export interface PeerRefusal {
  /** The link's name. */
  peer: string
  /** What was wrong with it. */
  reason: string
  /** The message's type, as far as it had one. */
  type: string | null
  at: number
}

/**
 * A connected queue pair was cut off without progress since the reset before, and is
 * connected anew; or it has been given up.
 */
export interface QueueReset {
  /** Its name, as `importer.channel({ queue })` takes it. */
  queue: string
  /** How many resets in a row nothing got through, this one included. */
  fruitless: number
  /** What the device said meanwhile, and how often: completion statuses, errors of its calls. */
  seen: Readonly<Record<string, number>>
  /** ERR_NO_PROGRESS: it is connected no more. Null: it will be tried again. */
  error: Error | null
  at: number
}

/** A device is no more: its engine, and the importers of it, have failed. */
export interface DeviceLoss {
  engine: string
  /** ERR_DEVICE_LOST. */
  error: Error
  /** Whether it is known to reach no memory any more; otherwise that is quarantined. */
  isOutOfReach: boolean
  at: number
}

export const trace = {
  channel: channel('p2pdma:channel'),
  move: channel('p2pdma:move'),
  restore: channel('p2pdma:restore'),
  mapping: channel('p2pdma:mapping'),
  thrash: channel('p2pdma:thrash'),
  peer: channel('p2pdma:peer'),
  reset: channel('p2pdma:reset'),
  device: channel('p2pdma:device'),
} as const

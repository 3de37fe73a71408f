/** The forms of work behind one face: copies in, and when all are done, how many failed. */
import { Op } from '../move-notify/importer/batch.js'
import type { Channel } from '../move-notify/importer/channel.js'
import type { Attachment } from '../move-notify/importer/attachment.js'
import type { AnyAttachment } from '../move-notify/importer/remote-attachment.js'
import { BatchPump } from './batch-pump.js'
import type { Tally } from './tally.js'

export interface CopyOf<A> {
  from: A
  fromOffset: number
  to: A
  toOffset: number
  length: number
}

export type LaneCopy = CopyOf<Attachment>
/** One end may be a peer's. */
export type AnyCopy = CopyOf<AnyAttachment>

export type Form = 'promise' | 'batch'

export interface Copied {
  /** How many failed; the errors are in the tally. */
  failed: number
  /** Which of the copies each place has got, by their indexes; null: its own, all of them. */
  order: readonly number[] | null
}

/** Which of the copies the first `count` places hold now; -1: none of them. */
export type Identify = (count: number) => Promise<number[]>

export interface Lane {
  /** The one that writes into the targets. */
  readonly channel: Channel
  /** Resolves when every copy has ended. `identify` is asked where what has arrived is in doubt. */
  copy(copies: readonly LaneCopy[], identify?: Identify): Promise<Copied>
  /** Adds what the channel has counted to the tally. Call it once, when all is quiet. */
  count(): void
}

/** One that copies by the channel's own operation for it. */
export interface CopyLane extends Lane {
  copy(copies: readonly AnyCopy[]): Promise<Copied>
}

export function openLane(form: Form, channel: Channel, tally: Tally): CopyLane {
  return form === 'promise' ? new PromiseLane(channel, tally) : new BatchLane(channel, tally)
}

class PromiseLane implements CopyLane {
  readonly channel: Channel
  readonly #tally: Tally

  constructor(channel: Channel, tally: Tally) {
    this.channel = channel
    this.#tally = tally
  }

  async copy(copies: readonly AnyCopy[]): Promise<Copied> {
    const done = await Promise.allSettled(
      copies.map(({ from, fromOffset, to, toOffset, length }) =>
        this.channel.copy(from, fromOffset, to, toOffset, length),
      ),
    )
    return copied(done, this.#tally)
  }

  count(): void {
    countPromises(this.channel, this.#tally)
  }
}

class BatchLane implements CopyLane {
  readonly channel: Channel
  readonly #tally: Tally
  readonly #pump: BatchPump

  constructor(channel: Channel, tally: Tally) {
    this.channel = channel
    this.#tally = tally
    this.#pump = new BatchPump(channel, tally)
  }

  copy(copies: readonly AnyCopy[]): Promise<Copied> {
    return new Promise((resolve) => {
      let left = copies.length
      let failed = 0
      const ended = (error: unknown) => {
        if (error !== null) {
          this.#tally.failed('failedOperations', error)
          failed++
        }
        if (--left === 0) resolve({ failed, order: null })
      }
      this.#pump.submit(
        copies.map(({ from, fromOffset, to, toOffset, length }) => ({
          op: Op.COPY,
          source: from,
          sourceOffset: fromOffset,
          target: to,
          targetOffset: toOffset,
          length,
          ended,
        })),
      )
    })
  }

  count(): void {
    countChannel(this.channel, this.#tally)
  }
}

/** Adds what the channel has counted to the tally. */
export function countChannel(channel: Channel, tally: Tally): void {
  const { stops, forcedStops, unmatchedCompletions } = channel.stats
  tally.counts.stops += stops
  tally.counts.forcedStops += forcedStops
  // A completion for which nothing was outstanding.
  tally.counts.doubled += unmatchedCompletions
}

/** The same for one in the promise form: what had to wait is the channel's to count. */
export function countPromises(channel: Channel, tally: Tally): void {
  countChannel(channel, tally)
  tally.counts.operationsParked += channel.stats.parked
}

/** Each has got its own; the errors are told to the tally. */
export function copied(done: readonly PromiseSettledResult<unknown>[], tally: Tally): Copied {
  let failed = 0
  for (const each of done) {
    if (each.status === 'fulfilled') continue
    failed++
    tally.failed('failedOperations', each.reason)
  }
  return { failed, order: null }
}

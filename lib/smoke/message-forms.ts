/** The two forms of work with frames or messages behind one face: a promise for each. */
import type { Attachment } from '../move-notify/importer/attachment.js'
import { Op } from '../move-notify/importer/batch.js'
import type { Channel } from '../move-notify/importer/channel.js'
import { BatchPump, type Row } from './batch-pump.js'
import type { Tally } from './tally.js'

/** Where a frame or message is, or has room. */
export interface Place {
  attachment: Attachment
  offset: number
  length: number
}

export interface MessageForm {
  /** Each resolves with the bytes of what has arrived there. */
  receive(places: readonly Place[]): Promise<number>[]
  send(places: readonly Place[]): Promise<unknown>[]
  /** Receives that the device has taken so far: as many may be sent. */
  readonly credit: number
  /** Adds what had to wait to the tally. */
  count(): void
}

export class PromiseMessages implements MessageForm {
  readonly #tx: Channel
  readonly #rx: Channel
  readonly #tally: Tally
  #receives = 0

  constructor(tx: Channel, rx: Channel, tally: Tally) {
    this.#tx = tx
    this.#rx = rx
    this.#tally = tally
  }

  receive(places: readonly Place[]): Promise<number>[] {
    this.#receives += places.length
    return places.map(async ({ attachment, offset, length }) => {
      const { bytes } = await this.#rx.receive(attachment, offset, length)
      return bytes
    })
  }

  send(places: readonly Place[]): Promise<unknown>[] {
    return places.map(({ attachment, offset, length }) => this.#tx.send(attachment, offset, length))
  }

  get credit(): number {
    return this.#receives - this.#rx.stats.waiting
  }

  count(): void {
    this.#tally.counts.operationsParked += this.#tx.stats.parked + this.#rx.stats.parked
  }
}

export class BatchMessages implements MessageForm {
  readonly #tx: BatchPump
  readonly #rx: BatchPump

  constructor(tx: Channel, rx: Channel, tally: Tally) {
    this.#tx = new BatchPump(tx, tally)
    this.#rx = new BatchPump(rx, tally)
  }

  receive(places: readonly Place[]): Promise<number>[] {
    return submit(this.#rx, places, ({ attachment, offset, length }) => {
      return { op: Op.RECEIVE, target: attachment, targetOffset: offset, length }
    })
  }

  send(places: readonly Place[]): Promise<unknown>[] {
    return submit(this.#tx, places, ({ attachment, offset, length }) => {
      return { op: Op.SEND, source: attachment, sourceOffset: offset, length }
    })
  }

  get credit(): number {
    return this.#rx.accepted
  }

  /** The pumps have. */
  count(): void {}
}

/** All in one go, so that they share a batch. */
function submit(
  pump: BatchPump,
  places: readonly Place[],
  rowOf: (place: Place) => Omit<Row, 'ended'>,
): Promise<number>[] {
  const rows: Row[] = []
  const done = places.map(
    (place) =>
      new Promise<number>((resolve, reject) => {
        const ended = (error: Error | null, result: number) => {
          if (error === null) resolve(result)
          else reject(error)
        }
        rows.push({ ...rowOf(place), ended })
      }),
  )
  pump.submit(rows)
  return done
}

/** Copies by way of a peer on another host, which runs `p2pdma serve`. */
import { P2pdmaError } from '../../errors.js'
import type { Attachment } from '../../move-notify/importer/attachment.js'
import type { Channel } from '../../move-notify/importer/channel.js'
import type { RemoteAttachment } from '../../move-notify/importer/remote-attachment.js'
import {
  type Copied,
  type LaneCopy,
  type CopyLane,
  copied,
  countPromises,
  type Form,
  type Lane,
  openLane,
} from '../lanes.js'
import type { Tally } from '../tally.js'

/** A queue pair to the peer, and its buffer there. */
export interface Served {
  channel: Channel
  remote: RemoteAttachment
}

/**
 * Each block is written into the peer's buffer and read back from there, by one
 * queue pair for each target: a reliable connection keeps a read behind the
 * writes before it.
 */
export class RoundTripLane implements Lane {
  readonly #lanes: { lane: CopyLane; remote: RemoteAttachment }[]
  readonly #byTarget = new Map<Attachment, number>()

  /** One for each target that it is used with. */
  constructor(form: Form, served: readonly Served[], tally: Tally) {
    this.#lanes = served.map(({ channel, remote }) => ({
      lane: openLane(form, channel, tally),
      remote,
    }))
  }

  get channel(): Channel {
    return this.#of(0).lane.channel
  }

  #of(index: number): { lane: CopyLane; remote: RemoteAttachment } {
    const found = this.#lanes[index]
    if (found === undefined) throw new P2pdmaError('no queue pair', { code: 'ERR_SMOKE_FAILED' })
    return found
  }

  copy(copies: readonly LaneCopy[]): Promise<Copied> {
    const [first] = copies
    if (first === undefined) return Promise.resolve({ failed: 0, order: null })
    const index = this.#byTarget.get(first.to) ?? this.#byTarget.size
    this.#byTarget.set(first.to, index)
    const { lane, remote } = this.#of(index)
    return lane.copy(
      copies.flatMap(({ from, fromOffset, to, toOffset, length }) => [
        { from, fromOffset, to: remote, toOffset, length },
        { from: remote, fromOffset: toOffset, to, toOffset, length },
      ]),
    )
  }

  count(): void {
    for (const { lane } of this.#lanes) lane.count()
  }
}

/** Each block is sent to the peer, which sends it back. */
export class EchoLane implements Lane {
  readonly channel: Channel
  readonly #tally: Tally

  constructor(channel: Channel, tally: Tally) {
    this.channel = channel
    this.#tally = tally
  }

  async copy(copies: readonly LaneCopy[]): Promise<Copied> {
    // All in this turn, so that other groups' do not come in between.
    const work = copies.map(({ from, fromOffset, to, toOffset, length }) => [
      this.channel.receive(to, toOffset, length),
      this.channel.send(from, fromOffset, length),
    ])
    const done = await Promise.allSettled(work.map((both) => Promise.all(both)))
    return copied(done, this.#tally)
  }

  count(): void {
    countPromises(this.channel, this.#tally)
  }
}

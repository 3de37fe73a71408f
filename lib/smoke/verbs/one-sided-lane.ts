/**
 * Copies as RDMA writes or reads: one end does them, by keys to the buffers of
 * the other, which knows of none of them.
 */
import type { P2pdmaError } from '../../errors.js'
import { Access } from '../../move-notify/importer/engine.js'
import type { Attachment } from '../../move-notify/importer/attachment.js'
import type { Channel } from '../../move-notify/importer/channel.js'
import type { RemoteAttachment } from '../../move-notify/importer/remote-attachment.js'
import {
  type Copied,
  type LaneCopy,
  type CopyLane,
  countChannel,
  type Form,
  type Lane,
  openLane,
} from '../lanes.js'
import { sleep } from '../../move-notify/reservation/deadline.js'
import type { Tally } from '../tally.js'
import type { End } from './ends.js'

export class OneSidedLane implements Lane {
  readonly channel: Channel
  readonly #op: 'write' | 'read'
  readonly #keys: Keys
  readonly #passive: End
  readonly #inner: CopyLane
  readonly #tally: Tally

  constructor(op: 'write' | 'read', form: Form, active: End, passive: End, tally: Tally) {
    this.channel = active.channel
    this.#op = op
    this.#passive = passive
    this.#keys = new Keys(active, passive, op === 'write' ? Access.WRITE : Access.READ)
    this.#inner = openLane(form, active.channel, tally)
    this.#tally = tally
  }

  async copy(copies: readonly LaneCopy[]): Promise<Copied> {
    const named = await Promise.all(
      copies.map(async (copy) =>
        this.#op === 'write'
          ? { ...copy, to: await this.#keys.to(copy.to) }
          : { ...copy, from: await this.#keys.to(copy.from) },
      ),
    )
    return this.#inner.copy(named)
  }

  count(): void {
    this.#inner.count()
    countChannel(this.#passive.channel, this.#tally)
  }
}

/** What one end may use of the other's; each is asked for once. */
export class Keys {
  readonly #active: End
  readonly #passive: End
  readonly #access: number
  readonly #known = new Map<Attachment, Promise<RemoteAttachment>>()

  constructor(active: End, passive: End, access: number) {
    this.#active = active
    this.#passive = passive
    this.#access = access
  }

  to(attachment: Attachment): Promise<RemoteAttachment> {
    const known = this.#known.get(attachment) ?? this.#ask(attachment)
    this.#known.set(attachment, known)
    return known
  }

  async #ask(attachment: Attachment): Promise<RemoteAttachment> {
    const [active, passive] = [this.#active, this.#passive]
    const label = `${passive.channel.queue ?? ''}-${attachment.id}`.replaceAll('/', ':')
    await this.#grant(attachment, label)
    const offered = await active.peer.offered(label)
    const remote = offered.attach(active.port.importer)
    passive.port.probe.reachedBy(attachment.id, active.port.probe, remote.id)
    return remote
  }
  /** Not while it is being moved. */
  async #grant(attachment: Attachment, label: string): Promise<void> {
    const { peer, channel } = this.#passive
    for (;;) {
      try {
        peer.grant(channel, attachment, { label, access: this.#access })
        return
      } catch (error) {
        if ((error as P2pdmaError).code !== 'EAGAIN') throw error
        await sleep(1)
      }
    }
  }
}

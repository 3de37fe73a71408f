/**
 * The other end: a control link, the queue pairs between us, and what each has
 * let the other use.
 */
import { EventEmitter } from 'node:events'
import { brand } from '../../brand.js'
import { P2pdmaError, checkInteger, checkOptions, closedError, typeError } from '../../errors.js'
import { Attachment } from '../../move-notify/attachment.js'
import { Channel } from '../../move-notify/channel.js'
import type { Importer } from '../../move-notify/importer.js'
import { type Grant, type GrantOptions, Grants } from './grants.js'
import type { Link } from './link/link.js'
import type { QueueMessage, Update } from './link/messages.js'
import { Queue, type QueueParts, type QueuePeer } from './queue.js'
import { type Offer, Offers } from './offers.js'
import type { Regions } from './regions.js'

/** What a peer asks of its engine. */
export interface PeerHost {
  /** The engine's name; its importers, channels and attachments are meant. */
  readonly engine: string
  readonly regions: Regions
  readonly sgidIndex: number
  readonly mtu: number
  makeParts(depth: number, onEvent: () => void): Promise<QueueParts>
  /** For one more queue pair. */
  nextNumber(): number
  addQueue(queue: Queue): void
  dropQueue(queue: Queue): void
  forgetPeer(peer: Peer): void
}

export interface QueueOptions {
  /** Operations in flight at most; a power of two. Default 256. */
  depth?: number
}

export interface PeerEvents {
  /** The peer has opened a queue pair: its name, for `importer.channel({ queue })`. */
  queue: [name: string]
  offer: [offer: Offer]
  /** The link has ended; null: by either side's `close()`. */
  closed: [error: Error | null]
}

export class Peer extends EventEmitter<PeerEvents> implements QueuePeer {
  static {
    brand(this, (value) => #link in value, { promising: ['offered'] })
  }

  readonly name: string
  readonly isOpener: boolean
  readonly dgid: string
  readonly sgidIndex: number
  readonly pathMtu: number
  readonly #host: PeerHost
  readonly #link: Link
  readonly #queues = new Map<number, Queue>()
  readonly #opening = new Map<
    number,
    (answer: { qpn: number; psn: number } | P2pdmaError) => void
  >()
  readonly #grants: Grants
  readonly #offers: Offers
  #nextQueue: number
  #error: Error | null = null
  #isClosed = false

  /** @internal */
  constructor(host: PeerHost, link: Link, name: string, isOpener: boolean) {
    super()
    this.name = name
    this.isOpener = isOpener
    this.#host = host
    this.#link = link
    const { regions } = host
    const send = (message: QueueMessage) => this.send(message)
    this.#grants = new Grants({
      regions,
      send,
      queueNamed: (name) => [...this.#queues.values()].find((queue) => queue.name === name),
    })
    this.#offers = new Offers({
      regions,
      send,
      checkOurs: (argument, importer) => this.#checkOurs(argument, importer),
      onOffer: (offer) => void this.emit('offer', offer),
    })
    this.dgid = (link.peer.gid.match(/.{4}/g) ?? []).join(':')
    this.sgidIndex = host.sgidIndex
    this.pathMtu = Math.min(host.mtu, link.peer.mtu)
    this.#nextQueue = isOpener ? 0 : 1
    link.onMessage = (message) => this.#onMessage(message)
    link.onClose = (error) => this.#onClose(error)
  }

  get closed(): boolean {
    return this.#isClosed
  }

  /** Why the link has ended, where that was an error. */
  get error(): Error | null {
    return this.#error
  }

  /** The peer's RDMA device, as it calls it. */
  get device(): string {
    return this.#link.peer.device
  }

  // --- queue pairs ---

  /** Connects one more queue pair; resolves with its name, for `importer.channel({ queue })`. */
  async openQueue(options: QueueOptions = {}): Promise<string> {
    const depth = checkInteger('depth', checkOptions(options).depth ?? 256, 1, 1 << 14)
    if ((depth & (depth - 1)) !== 0) throw typeError('depth', 'a power of two', depth)
    this.#checkOpen()
    const id = this.#nextQueue
    this.#nextQueue += 2
    const queue = await this.#makeQueue(id, depth)
    const answer = await new Promise<{ qpn: number; psn: number } | P2pdmaError>((resolve) => {
      this.#opening.set(id, resolve)
      if (!this.send({ type: 'queue', queue: id, qpn: queue.qpn, psn: queue.psn, depth })) {
        resolve(closedError('The peer'))
      }
    })
    this.#opening.delete(id)
    if (answer instanceof P2pdmaError) {
      await queue.close()
      throw answer
    }
    await this.#join(queue, answer.qpn, answer.psn)
    queue.channel?.pump()
    return queue.name
  }

  async #makeQueue(id: number, depth: number): Promise<Queue> {
    let queue: Queue | null = null
    const parts = await this.#host.makeParts(depth, () => queue?.channel?.onEvent())
    queue = new Queue(this, id, this.#host.nextNumber(), depth, parts)
    if (this.#isClosed) {
      await queue.close()
      throw this.#error ?? closedError('The peer')
    }
    this.#queues.set(id, queue)
    this.#host.addQueue(queue)
    return queue
  }

  async #join(queue: Queue, qpn: number, psn: number): Promise<void> {
    try {
      await queue.join(qpn, psn)
    } catch (error) {
      await queue.close()
      throw error
    }
  }

  async #accept(id: number, depth: number, qpn: number, psn: number): Promise<void> {
    try {
      const queue = await this.#makeQueue(id, depth)
      await this.#join(queue, qpn, psn)
      this.send({ type: 'queue-ok', queue: id, qpn: queue.qpn, psn: queue.psn, depth })
      this.emit('queue', queue.name)
    } catch (error) {
      const message = (error as Error).message.slice(0, 200)
      this.send({ type: 'queue-error', queue: id, message })
    }
  }

  // --- grants ---

  /**
   * Lets the peer use an attachment of ours, on the queue pair of this channel:
   * from now on a move of it stops the channel, at both ends. It is registered
   * once more for that, with no more rights than these. Disposed: the peer is
   * asked to use it no more; when it has answered, or after a second, the key is dead.
   */
  grant(channel: Channel, attachment: Attachment, options: GrantOptions = {}): Grant {
    if (!(channel instanceof Channel)) throw typeError('channel', 'a Channel', channel)
    if (!(attachment instanceof Attachment))
      throw typeError('attachment', 'an Attachment', attachment)
    this.#checkOurs('channel', channel.importer)
    this.#checkOurs('attachment', attachment.importer)
    this.#checkOpen()
    return this.#grants.add(channel, attachment, options)
  }

  /** @internal */
  hasGrants(queue: Queue): boolean {
    return this.#grants.has(queue)
  }

  /** @internal */
  updates(queue: Queue): Update[] {
    return this.#grants.updates(queue)
  }

  /** What the peer has granted under this label; waits until it does. */
  offered(label: string, options: { signal?: AbortSignal } = {}): Promise<Offer> {
    if (this.#isClosed) return Promise.reject(this.#error ?? closedError('The peer'))
    return this.#offers.named(label, options)
  }

  // --- the link ---

  /** @internal */
  send(message: QueueMessage): boolean {
    return this.#link.send(message)
  }

  #onMessage(message: QueueMessage): void {
    if (message.type === 'queue') {
      void this.#accept(message.queue, message.depth, message.qpn, message.psn)
      return
    }
    const opening = this.#opening.get(message.queue)
    if (opening !== undefined && message.type === 'queue-ok') return opening(message)
    if (opening !== undefined && message.type === 'queue-error') {
      return opening(
        new P2pdmaError(`The peer has opened no queue pair: ${message.message}`, {
          code: 'ERR_PEER_REFUSED',
        }),
      )
    }
    const queue = this.#queues.get(message.queue)
    if (queue !== undefined) this.#onQueueMessage(queue, message)
  }

  #onQueueMessage(queue: Queue, message: QueueMessage): void {
    switch (message.type) {
      case 'grant':
        return this.#offers.onGrant(queue, message)
      case 'ungrant':
        void this.#offers.onUngrant(queue, message)
        return
      case 'ungranted':
        return this.#grants.onUngranted(message.queue, message.buffer)
      case 'pause':
        void queue.onPause(message.n, message.flush, message.posted)
        return
      case 'paused':
        return queue.onPaused(message.n)
      case 'resume':
        this.#offers.onUpdates(message.queue, message.updates)
        return queue.onResume()
      case 'credit':
        return queue.onCredit(message.posted)
      case 'reset':
        void queue.onReset(message.n, message.psn, message.received)
        return
      case 'reset-ok':
        return queue.onResetOk(message.n, message.psn, message.received)
      case 'queue-error':
        return this.#loseQueue(
          queue,
          new P2pdmaError(`The peer has closed ${queue.name}: ${message.message}`, {
            code: 'ERR_PEER_LOST',
          }),
        )
      default:
        return
    }
  }

  #loseQueue(queue: Queue, error: P2pdmaError): void {
    queue.lose(error)
    // Nobody else would.
    if (queue.channel === null) void queue.close().catch(() => {})
  }

  /** @internal */
  onLost(queue: Queue, error: P2pdmaError): void {
    this.#dropAll(queue, error)
    this.#tellEnd(queue)
  }

  /** What each end had of the other's on this queue. */
  #dropAll(queue: Queue, error: P2pdmaError): void {
    this.#offers.drop(queue, error)
    this.#grants.drop(queue)
  }

  #tellEnd(queue: Queue): void {
    try {
      this.send({ type: 'queue-error', queue: queue.id, message: 'closed' })
    } catch {
      // It was never opened.
    }
  }

  /** @internal */
  onReset(): void {
    this.#host.regions.isUnquiet = true
  }

  /** @internal */
  forget(queue: Queue): void {
    if (!this.#queues.delete(queue.id)) return
    this.#dropAll(queue, closedError(queue.name))
    this.#host.dropQueue(queue)
    this.#tellEnd(queue)
  }

  #onClose(error: Error | null): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#error = error
    const lost = new P2pdmaError(`The peer ${this.name} is gone`, {
      code: 'ERR_PEER_LOST',
      hint: 'connect again; what it had of ours is taken back',
      cause: error ?? undefined,
    })
    for (const resolve of this.#opening.values()) resolve(lost)
    this.#offers.end(lost)
    for (const queue of this.#queues.values()) this.#loseQueue(queue, lost)
    this.#host.forgetPeer(this)
    this.emit('closed', error)
  }

  /** Ends the link; the channels to it get no further. Idempotent. */
  async close(): Promise<void> {
    void this.#link.close()
    this.#onClose(null)
    await Promise.allSettled([...this.#queues.values()].map((queue) => queue.close()))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Names and ids are an engine's own: those of another would be taken for ours. */
  #checkOurs(argument: string, importer: Importer): void {
    // By its name: between an importer and its engine there may be something that looks on.
    const { engine } = (importer ?? {}) as Partial<Importer>
    if (engine?.name === this.#host.engine) return
    throw new P2pdmaError(`${argument} must be of the engine that this peer is connected to`, {
      code: 'ERR_INVALID_ARG_VALUE',
      argument,
    })
  }

  #checkOpen(): void {
    if (this.#isClosed) throw this.#error ?? closedError('The peer')
  }
}

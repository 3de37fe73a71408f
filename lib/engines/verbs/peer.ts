/**
 * The other end: a control link, the queue pairs between us, and what each has
 * let the other use.
 */
import { EventEmitter } from 'node:events'
import { P2pdmaError, checkInteger, checkOptions, closedError, typeError } from '../../errors.js'
import { Attachment } from '../../move-notify/attachment.js'
import { Channel } from '../../move-notify/channel.js'
import type { Importer } from '../../move-notify/importer.js'
import type { RemoteAttachment } from '../../move-notify/remote-attachment.js'
import type { Link } from './link/link.js'
import type { QueueMessage, Update } from './link/messages.js'
import { Queue, type QueueParts, type QueuePeer } from './queue.js'
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

export interface GrantOptions {
  /** What the peer finds it by; [\w.:-], at most 64. Default: the attachment's id. */
  label?: string
  /** `Access` bits. Default: the attachment's. */
  access?: number
}

interface Granted {
  attachment: Attachment
  generation: number
  users: Disposable
}

export interface PeerEvents {
  /** The peer has opened a queue pair: its name, for `importer.channel({ queue })`. */
  queue: [name: string]
  offer: [offer: Offer]
  /** The link has ended; null: by either side's `close()`. */
  closed: [error: Error | null]
}

/** Granted to us by the peer. */
export class Offer {
  readonly label: string
  /** Bytes. */
  readonly size: number
  /** `Access` bits. */
  readonly access: number
  /** The name of the queue pair on which it may be used. */
  readonly queue: string
  readonly #attach: (importer: Importer) => RemoteAttachment

  /** @internal */
  constructor(
    label: string,
    size: number,
    access: number,
    queue: string,
    attach: (importer: Importer) => RemoteAttachment,
  ) {
    this.label = label
    this.size = size
    this.access = access
    this.queue = queue
    this.#attach = attach
  }

  /** Something that operations can name, on channels over `queue`. */
  attach(importer: Importer): RemoteAttachment {
    return this.#attach(importer)
  }
}

interface Received {
  offer: Offer
  key: { iova: number; rkey: number; generation: number }
  attached: Set<RemoteAttachment>
}

export class Peer extends EventEmitter<PeerEvents> implements QueuePeer {
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
  /** By queue, and the attachment's id. */
  readonly #granted = new Map<number, Map<number, Granted>>()
  readonly #received = new Map<string, Received>()
  #nextQueue: number
  #offers: { label: string; resolve: (offer: Offer) => void; reject: (error: Error) => void }[] = []
  #error: Error | null = null
  #isClosed = false

  /** @internal */
  constructor(host: PeerHost, link: Link, name: string, isOpener: boolean) {
    super()
    this.name = name
    this.isOpener = isOpener
    this.#host = host
    this.#link = link
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
   * from now on a move of it stops the channel, at both ends. Disposed: no more.
   */
  grant(channel: Channel, attachment: Attachment, options: GrantOptions = {}): Disposable {
    if (!(channel instanceof Channel)) throw typeError('channel', 'a Channel', channel)
    if (!(attachment instanceof Attachment))
      throw typeError('attachment', 'an Attachment', attachment)
    const { label = `buffer-${attachment.id}`, access = attachment.access } = checkOptions(options)
    if (typeof label !== 'string' || !/^[\w.:-]{1,64}$/.test(label)) {
      throw typeError('label', 'up to 64 of letters, digits, and _ . : -', label)
    }
    checkInteger('access', access, 1, 3)
    this.#checkOurs('channel', channel.importer)
    this.#checkOurs('attachment', attachment.importer)
    if ((access & ~attachment.access) !== 0) {
      throw new P2pdmaError('access is more than the attachment has', {
        code: 'ERR_INVALID_ARG_VALUE',
        argument: 'access',
      })
    }
    this.#checkOpen()
    const queue = [...this.#queues.values()].find(({ name }) => name === channel.queue)
    const region = this.#host.regions.get(attachment.id)
    if (queue === undefined || region === undefined) {
      throw new P2pdmaError('The channel is not on a queue pair to this peer', {
        code: 'ERR_INVALID_ARG_VALUE',
        argument: queue === undefined ? 'channel' : 'attachment',
      })
    }
    if (attachment.state !== 'mapped') {
      throw (
        attachment.error ??
        new P2pdmaError('The attachment is being moved', {
          code: 'EAGAIN',
          argument: 'attachment',
          hint: 'await the move first',
        })
      )
    }
    if (!channel.isRunning) {
      // The peer would begin to use it while nobody has told it to keep still.
      throw new P2pdmaError('The channel is stopped for a move', {
        code: 'EAGAIN',
        argument: 'channel',
        hint: 'await the move first',
      })
    }
    if (this.#granted.get(queue.id)?.has(attachment.id) === true) {
      throw new P2pdmaError('The peer has been granted this attachment on this queue', {
        code: 'ERR_INVALID_STATE',
        argument: 'attachment',
      })
    }
    const users = channel.grant(attachment)
    let all = this.#granted.get(queue.id)
    if (all === undefined) this.#granted.set(queue.id, (all = new Map<number, Granted>()))
    const { iova, rkey, generation, size } = region
    all.set(attachment.id, { attachment, generation, users })
    this.send({
      ...{ type: 'grant', queue: queue.id, buffer: attachment.id, label, size },
      ...{ access: access as 1 | 2 | 3, iova, rkey, generation },
    })
    return { [Symbol.dispose]: () => this.#ungrant(queue.id, attachment.id) }
  }

  #ungrant(queue: number, id: number): void {
    const granted = this.#granted.get(queue)?.get(id)
    if (granted === undefined) return
    this.#granted.get(queue)?.delete(id)
    granted.users[Symbol.dispose]()
    this.send({ type: 'ungrant', queue, buffer: id })
  }

  /** @internal */
  hasGrants(queue: Queue): boolean {
    return (this.#granted.get(queue.id)?.size ?? 0) > 0
  }

  /** @internal */
  updates(queue: Queue): Update[] {
    const updates: Update[] = []
    for (const [id, granted] of this.#granted.get(queue.id) ?? []) {
      const region = this.#host.regions.get(id)
      if (granted.attachment.isGone || region === undefined || region.mr === null) {
        this.#ungrant(queue.id, id)
      } else if (region.generation !== granted.generation) {
        const { iova, rkey, generation } = region
        granted.generation = generation
        updates.push({ buffer: id, iova, rkey, generation })
      }
    }
    return updates
  }

  /** What the peer has granted under this label; waits until it does. */
  offered(label: string, options: { signal?: AbortSignal } = {}): Promise<Offer> {
    const { signal } = checkOptions(options)
    for (const { offer } of this.#received.values()) {
      if (offer.label === label) return Promise.resolve(offer)
    }
    if (this.#isClosed) return Promise.reject(this.#error ?? closedError('The peer'))
    return new Promise((resolve, reject) => {
      const waiter = { label, resolve, reject }
      this.#offers.push(waiter)
      const onAbort = () => {
        this.#offers = this.#offers.filter((each) => each !== waiter)
        reject(signal?.reason as Error)
      }
      if (signal?.aborted === true) onAbort()
      else signal?.addEventListener('abort', onAbort, { once: true })
    })
  }

  #onGrant(message: Extract<QueueMessage, { type: 'grant' }>): void {
    const queue = this.#queues.get(message.queue)
    if (queue === undefined) return
    const { label, size, access, iova, rkey, generation } = message
    const key = `${message.queue}/${message.buffer}`
    const attached = new Set<RemoteAttachment>()
    const received: Received = {
      attached,
      key: { iova, rkey, generation },
      offer: new Offer(label, size, access, queue.name, (importer) => {
        this.#checkOurs('importer', importer)
        if (queue.error !== null) throw queue.error
        if (this.#received.get(key) !== received) throw takenBack()
        const { regions } = this.#host
        const remote = importer.attachRemote({
          size,
          access,
          onClose: () => {
            attached.delete(remote)
            regions.dropRemote(remote.id)
          },
        })
        regions.setRemote(remote.id, queue.counts.number, size, access, received.key)
        attached.add(remote)
        return remote
      }),
    }
    this.#received.set(key, received)
    const waiting = this.#offers.filter((each) => each.label === label)
    this.#offers = this.#offers.filter((each) => each.label !== label)
    for (const { resolve } of waiting) resolve(received.offer)
    this.emit('offer', received.offer)
  }

  #onUngrant(queue: number, buffer: number): void {
    const key = `${queue}/${buffer}`
    const received = this.#received.get(key)
    this.#received.delete(key)
    for (const remote of [...(received?.attached ?? [])]) this.#revoke(remote, takenBack())
  }

  #revoke(remote: RemoteAttachment, error: P2pdmaError): void {
    this.#host.regions.dropRemote(remote.id)
    remote.end('revoked', error)
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
        return this.#onGrant(message)
      case 'ungrant':
        return this.#onUngrant(message.queue, message.buffer)
      case 'pause':
        void queue.onPause(message.n, message.flush, message.posted)
        return
      case 'paused':
        return queue.onPaused(message.n)
      case 'resume':
        for (const { buffer, iova, rkey, generation } of message.updates) {
          const received = this.#received.get(`${message.queue}/${buffer}`)
          if (received === undefined) continue
          received.key = { iova, rkey, generation }
          for (const { id } of received.attached) this.#host.regions.updateRemote(id, received.key)
        }
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
    for (const [key, received] of this.#received) {
      if (received.offer.queue !== queue.name) continue
      this.#received.delete(key)
      for (const remote of [...received.attached]) this.#revoke(remote, error)
    }
    for (const id of [...(this.#granted.get(queue.id)?.keys() ?? [])]) this.#ungrant(queue.id, id)
    this.#granted.delete(queue.id)
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
    for (const { reject } of this.#offers) reject(lost)
    this.#offers = []
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

function takenBack(): P2pdmaError {
  return new P2pdmaError('The peer has taken the buffer back', {
    code: 'ERR_REVOKED',
    hint: 'ask it for another',
  })
}

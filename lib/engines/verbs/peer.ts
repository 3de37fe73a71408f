/**
 * The other end: a control link, the queue pairs between us, and what each has
 * let the other use.
 */
import { EventEmitter } from 'node:events'
import { brand } from '../../brand.js'
import {
  P2pdmaError,
  checkInteger,
  checkMilliseconds,
  checkOptions,
  checkSignal,
  closedError,
  isDeviceLost,
  typeError,
} from '../../errors.js'
import { Attachment } from '../../move-notify/importer/attachment.js'
import { Channel } from '../../move-notify/importer/channel.js'
import { throwIfAborted, withDeadline, withSignal } from '../../move-notify/reservation/deadline.js'
import type { Engine } from '../../move-notify/importer/engine.js'
import type { Importer } from '../../move-notify/importer/importer.js'
import { isSameDevice } from '../../move-notify/importer/shared.js'
import { type Grant, type GrantOptions, Grants } from './grants.js'
import type { Link } from './link/link.js'
import type { MessageOf, QueueMessage, Update } from './link/messages.js'
import type { LocalPort } from './local-port.js'
import { checkProgressLimits, type PathFacts, pathHint, type ProgressLimits } from './progress.js'
import { Queue, type QueueParts } from './queue.js'
import { type Offer, type OfferedOptions, Offers } from './offers.js'
import type { Regions } from './regions.js'

/** What a peer asks of its engine. */
export interface PeerHost {
  /** Its importers, channels and attachments are meant. */
  readonly engine: Engine
  readonly regions: Regions
  readonly port: Pick<LocalPort, 'path' | 'mtu' | 'trouble'>
  /** Of its queue pairs, where they are not opened with others. */
  readonly limits: ProgressLimits
  makeParts(depth: number, onEvent: () => void): Promise<QueueParts>
  /** For one more queue pair. */
  nextNumber(): number
  addQueue(queue: Queue): void
  dropQueue(queue: Queue): void
  forgetPeer(peer: Peer): void
  /** A call of the device's has failed: perhaps it is gone. */
  onRefused(cause: unknown): void
  /** A reset has brought nothing; a queue pair was given up for that. */
  onFruitless(): void
  onGivenUp(): void
}

export interface QueueOptions {
  /** Operations in flight at most; a power of two. Default 256. */
  depth?: number
  /** As the engine's `VerbsEngineOptions`, for our end of this queue pair. */
  maxResets?: number
  resetTimeoutMs?: number
  stallTimeoutMs?: number
  /** How long the peer may take to open its end, ms. Default 30,000. */
  timeoutMs?: number
  /** Ends the attempt with ABORT_ERR. */
  signal?: AbortSignal | undefined
}

/** Its peer may have to make room for it first: soft-RoCE takes up to 50 s for what it collects. */
const OPEN_MS = 30_000

type Answer = { qpn: number; psn: number } | P2pdmaError

export interface PeerEvents {
  /** The peer has opened a queue pair: its name, for `importer.channel({ queue })`. */
  queue: [name: string]
  offer: [offer: Offer]
  /** The link has ended; null: by either side's `close()`. */
  closed: [error: Error | null]
}

export class Peer extends EventEmitter<PeerEvents> {
  static {
    brand(this, (value) => #link in value, { promising: ['offered'] })
  }

  readonly name: string
  readonly isOpener: boolean
  readonly dgid: string
  readonly path: LocalPort['path']
  readonly pathMtu: number
  readonly #host: PeerHost
  readonly #link: Link
  readonly #queues = new Map<number, Queue>()
  readonly #opening = new Map<number, (answer: Answer) => void>()
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
    this.path = host.port.path
    this.pathMtu = Math.min(host.port.mtu, link.peer.mtu)
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
    const { depth = 256, timeoutMs = OPEN_MS, signal, ...rest } = checkOptions(options)
    checkInteger('depth', depth, 1, 1 << 14)
    if ((depth & (depth - 1)) !== 0) throw typeError('depth', 'a power of two', depth)
    checkMilliseconds('timeoutMs', timeoutMs)
    checkSignal(signal)
    const limits = checkProgressLimits(rest, this.#host.limits)
    this.#checkOpen()
    throwIfAborted(signal)
    const id = this.#nextQueue
    this.#nextQueue += 2
    const queue = await this.#makeQueue(id, depth, limits)
    try {
      const late = () => lateError(this.name, timeoutMs)
      const { qpn, psn } = await withSignal(
        withDeadline(this.#askFor(queue), timeoutMs, late),
        signal,
      )
      await queue.join(qpn, psn)
    } catch (error) {
      await queue.close(reasonOf(error)).catch(() => {})
      throw error
    } finally {
      // Given up, it waits no more: its time limit would.
      this.#opening.get(id)?.(closedError(queue.name))
      this.#opening.delete(id)
    }
    queue.backend?.pump()
    return queue.name
  }

  /** The peer's end of a queue pair. */
  async #askFor({ id, qpn, psn, depth }: Queue): Promise<Exclude<Answer, P2pdmaError>> {
    const answered = new Promise<Answer>((resolve) => this.#opening.set(id, resolve))
    if (!this.send({ type: 'queue', queue: id, qpn, psn, depth })) {
      throw this.#error ?? closedError('The peer')
    }
    const answer = await answered
    if (answer instanceof P2pdmaError) throw answer
    return answer
  }

  async #makeQueue(id: number, depth: number, limits: ProgressLimits): Promise<Queue> {
    let queue: Queue | null = null
    const parts = await this.#host.makeParts(depth, () => queue?.backend?.onEvent())
    queue = new Queue(this, id, this.#host.nextNumber(), depth, parts, limits)
    if (this.#isClosed) {
      await queue.close().catch(() => {})
      throw this.#error ?? closedError('The peer')
    }
    this.#queues.set(id, queue)
    this.#host.addQueue(queue)
    return queue
  }

  async #accept({ queue: id, depth, qpn, psn }: MessageOf<'queue'>): Promise<void> {
    let queue: Queue | null = null
    try {
      queue = await this.#makeQueue(id, depth, this.#host.limits)
      await queue.join(qpn, psn)
      this.send({ type: 'queue-ok', queue: id, qpn: queue.qpn, psn: queue.psn, depth })
      this.emit('queue', queue.name)
    } catch (error) {
      // Before what the clean-up says: the first reason is the one that is heard.
      this.#tellEnd(id, reasonOf(error))
      await queue?.close().catch(() => {})
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

  /** What the peer has granted under this label; waits until it does, ETIMEDOUT after 30 s. */
  offered(label: string, options: OfferedOptions = {}): Promise<Offer> {
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
      void this.#accept(message)
      return
    }
    const opening = this.#opening.get(message.queue)
    if (opening !== undefined && message.type === 'queue-ok') return opening(message)
    if (opening !== undefined && message.type === 'queue-error') return opening(refused(message))
    const queue = this.#queues.get(message.queue)
    if (queue !== undefined) return this.#onQueueMessage(queue, message)
    // We have given it up before it came.
    if (message.type === 'queue-ok') this.#tellEnd(message.queue, null)
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
        void queue.onReset(message)
        return
      case 'reset-ok':
        return queue.onResetOk(message.n, message.psn, message.received)
      case 'queue-error':
        return this.#loseQueue(
          queue,
          endedByPeer(queue.name, message, () => this.pathFacts()),
        )
      default:
        return
    }
  }

  #loseQueue(queue: Queue, error: P2pdmaError): void {
    queue.lose(error)
    // Nobody else would.
    if (queue.backend === null) void queue.close().catch(() => {})
  }

  /** Our device is no more: the peer is told why. @internal */
  lose(error: P2pdmaError): void {
    for (const queue of [...this.#queues.values()]) this.#loseQueue(queue, error)
    void this.#link.close(error.message)
    this.#onClose(error)
  }

  /** @internal */
  onRefused(cause: unknown): void {
    this.#host.onRefused(cause)
  }

  /** @internal */
  pathFacts(): PathFacts {
    const { path, dgid, pathMtu } = this
    const portTrouble = this.#host.port.trouble()
    return { portTrouble, sgidIndex: path.sgidIndex, dgid, pathMtu }
  }

  /** @internal */
  onFruitless(): void {
    this.#host.onFruitless()
  }

  /** @internal */
  onLost(queue: Queue, error: P2pdmaError): void {
    this.#dropAll(queue, error)
    if (error.code === 'ERR_NO_PROGRESS') this.#host.onGivenUp()
    this.#tellEnd(queue.id, error)
  }

  /** What each end had of the other's on this queue. */
  #dropAll(queue: Queue, error: P2pdmaError): void {
    this.#offers.drop(queue, error)
    this.#grants.drop(queue)
  }

  /** The other end hears the first reason only. */
  #tellEnd(queue: number, reason: P2pdmaError | null): void {
    const why =
      reason === null ? { message: 'closed' } : { message: reason.message, code: reason.code }
    try {
      this.send({ type: 'queue-error', queue, ...why })
    } catch {
      // It was never opened.
    }
  }

  /** @internal */
  onReset(): void {
    this.#host.regions.isUnquiet = true
  }

  /** @internal */
  forget(queue: Queue, reason: P2pdmaError | null = null): void {
    if (!this.#queues.delete(queue.id)) return
    this.#dropAll(queue, closedError(queue.name))
    this.#host.dropQueue(queue)
    this.#tellEnd(queue.id, reason)
  }

  #onClose(error: Error | null): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#error = error
    const lost = isDeviceLost(error)
      ? error
      : new P2pdmaError(`The peer ${this.name} is gone`, {
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
    // Between an importer and its engine there may be something that looks on.
    const { engine } = (importer ?? {}) as Partial<Importer>
    if (isSameDevice(engine, this.#host.engine)) return
    throw new P2pdmaError(`${argument} must be of the engine that this peer is connected to`, {
      code: 'ERR_INVALID_ARG_VALUE',
      argument,
    })
  }

  #checkOpen(): void {
    if (this.#isClosed) throw this.#error ?? closedError('The peer')
  }
}

function lateError(name: string, ms: number): P2pdmaError {
  return new P2pdmaError(`${name} has not opened its end of the queue pair within ${ms} ms`, {
    code: 'ETIMEDOUT',
    hint: 'it hangs, or the link between the hosts is down',
  })
}

/** What a peer has said in its own words, with its code. */
function theirs({ message, code }: MessageOf<'queue-error'>): P2pdmaError {
  return new P2pdmaError(message, { code: code ?? 'ERR_PEER_LOST' })
}

function refused(message: MessageOf<'queue-error'>): P2pdmaError {
  const { code } = message
  return new P2pdmaError(`The peer has opened no queue pair: ${message.message}`, {
    code: 'ERR_PEER_REFUSED',
    hint: `its reason is the cause${code === undefined ? '' : `, ${code}`}: see to it there`,
    cause: theirs(message),
  })
}

/** A path that carries nothing is ours as well; whatever else has ended it is the peer's own. */
function endedByPeer(
  name: string,
  message: MessageOf<'queue-error'>,
  path: () => PathFacts,
): P2pdmaError {
  const isPath = message.code === 'ERR_NO_PROGRESS'
  const isOrderly = message.code === undefined
  return new P2pdmaError(`The peer has closed ${name}: ${message.message}`, {
    code: isPath ? 'ERR_NO_PROGRESS' : 'ERR_PEER_LOST',
    ...(isPath && { hint: pathHint(path()) }),
    ...(!isOrderly && { cause: theirs(message) }),
  })
}

function reasonOf(error: unknown): P2pdmaError {
  if (error instanceof P2pdmaError) return error
  return new P2pdmaError((error as Error).message, { code: 'ERR_DEVICE', cause: error })
}

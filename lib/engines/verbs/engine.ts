/**
 * A NIC as importer, through libibverbs: the 2020 mail's own case. Each channel
 * is a connected queue pair; see Peer for what its two ends tell each other.
 */
import { randomBytes } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { brand } from '../../brand.js'
import { P2pdmaError, checkOptions, closedError, typeError } from '../../errors.js'
import {
  type CompletionChannel,
  type ProtectionDomain,
  QpState,
  VerbsDevice,
} from '../../kernel/verbs/index.js'
import { splitPort } from '../../kernel/verbs/port.js'
import type { Backing } from '../../move-notify/exporter/backing.js'
import { Op } from '../../move-notify/importer/batch.js'
import { withDeadline } from '../../move-notify/reservation/deadline.js'
import type {
  Engine,
  EngineCapabilities,
  EngineChannel,
  EngineChannelOptions,
} from '../../move-notify/importer/engine.js'
import { checkBacking } from '../../move-notify/exporter/exporting.js'
import { Importer, type ImporterOptions } from '../../move-notify/importer/importer.js'
import { MovableBuffer } from '../../move-notify/exporter/movable-buffer.js'
import { QueueChannel } from '../queue/channel.js'
import { checkChannelOptions } from '../queue/channel-options.js'
import { VerbsBackend } from './backend.js'
import { LossOfDevice } from './device-loss.js'
import { Holding } from './holding.js'
import { Link } from './link/link.js'
import { memoryPair } from './link/memory-pair.js'
import type { Hello } from './link/messages.js'
import { checkPortChoice, LocalPort } from './local-port.js'
import {
  checkConnect,
  checkListen,
  type ConnectOptions,
  type Greeting,
  listenForPeers,
  type ListenOptions,
  meet,
  type VerbsListener,
} from './meeting.js'
import { type MoveOnCommand, tryMoving } from './move-trial.js'
import {
  checkVerbsBounds,
  type VerbsBounds,
  type VerbsEngineOptions,
  type VerbsFault,
  type VerbsStats,
} from './options.js'
import { Peer } from './peer.js'
import { Presence } from './presence.js'
import type { Queue } from './queue.js'
import { makeParts } from './queue-parts.js'
import { type Axes, Registrar } from './registrar.js'
import { Regions } from './regions.js'

/** Asynchronous events after which a queue pair is in ERR. */
const FATAL: ReadonlySet<string> = new Set(['QP_FATAL', 'QP_REQ_ERR', 'QP_ACCESS_ERR'])

/** What a lost device may take to be closed, ms. */
const CLOSE_MS = 10_000

export type { ConnectOptions, ListenOptions, VerbsListener } from './meeting.js'
export type { VerbsEngineOptions, VerbsFault, VerbsStats } from './options.js'

/** Of all engines: what belongs to one is not found in another. */
let peersSoFar = 0

export class VerbsEngine implements Engine {
  static {
    brand(this, (value) => #domain in value, { promising: ['map', 'unmap', 'close'] })
  }

  /** `verbs:` and the device's name; of one that has several ports, `verbs:mlx5_0/2`. */
  readonly name: string
  readonly capabilities: EngineCapabilities
  readonly device: VerbsDevice
  /** By which its queue pairs send. */
  readonly port: LocalPort
  readonly #domain: ProtectionDomain
  readonly #events: CompletionChannel
  readonly #registrar: Registrar
  /** @internal */
  readonly regions: Regions
  readonly #queues = new Map<string, Queue>()
  /** Queue pairs so far. */
  #numbers = 0
  readonly #peers = new Set<Peer>()
  readonly #listeners = new Set<VerbsListener>()
  readonly #holding: Holding
  readonly #loss: LossOfDevice
  readonly #limits: VerbsBounds
  #fruitless = 0
  #givenUp = 0
  #importers: Importer[] = []
  #closing: Promise<void> | null = null

  private constructor(
    port: LocalPort,
    domain: ProtectionDomain,
    events: CompletionChannel,
    registrar: Registrar,
    presence: Presence,
    limits: VerbsBounds,
  ) {
    const { device, portNum } = port
    this.#limits = limits
    this.name = `verbs:${port.name}`
    this.device = device
    this.port = port
    this.#domain = domain
    this.#events = events
    this.#holding = new Holding((hold) => {
      if (!events.closed) events.hold(hold)
    })
    this.#registrar = registrar
    this.capabilities = capabilitiesOf(registrar, port.info.maxMessageSize)
    this.regions = new Regions(domain, registrar)
    const { removalTimeoutMs } = limits
    const onLost = (error: P2pdmaError) => this.#onLost(error)
    this.#loss = new LossOfDevice(
      { engine: this, device, portNum, removalTimeoutMs, onLost },
      presence,
    )
    device.onAsyncEvent(({ of, number, name }) => {
      if (of !== 'queue-pair' || !FATAL.has(name)) return
      for (const queue of this.#queues.values()) if (queue.qpn === number) queue.onFatal(name)
    })
  }

  /**
   * Opens a device, `mlx5_0` or for one of its ports `mlx5_0/2`: ENODEV, ERR_PORT_DOWN or
   * ERR_NO_GID where it cannot be used, ERR_VERBS_MISSING without libibverbs.
   */
  static async open(name: string, options: VerbsEngineOptions = {}): Promise<VerbsEngine> {
    const { gidIndex } = checkPortChoice(checkOptions(options))
    const { device: named, portNum } = splitPort(name, options.portNum)
    const limits = checkVerbsBounds(options)
    const device = await VerbsDevice.open(named)
    try {
      const presence = new Presence(named)
      const port = new LocalPort(device, { portNum, gidIndex })
      const domain = await device.protectionDomain()
      const events = await device.completionChannel()
      const registrar = await Registrar.probe(domain)
      return new VerbsEngine(port, domain, events, registrar, presence, limits)
    } catch (error) {
      // What was wrong first is told.
      await device.close().catch(() => {})
      throw error
    }
  }

  get closed(): boolean {
    return this.#closing !== null
  }

  /** ERR_DEVICE_LOST: the device is no more, and the engine of no use. Null while it works. */
  get error(): Error | null {
    return this.#loss.error
  }

  #onLost(error: P2pdmaError): void {
    for (const listener of [...this.#listeners]) void listener.close()
    for (const peer of [...this.#peers]) peer.lose(error)
  }

  /**
   * How the NIC registers a backing, or a buffer's, and who can move it then. A
   * buffer that is pinned (`MovableBuffer.pin()`) is nobody's to move. Pins of
   * others in the kernel are seen by `tryMoving()` alone: it lists who has
   * attached to a dma-buf (debugfs, dma_buf/bufinfo), not who has pinned it.
   */
  axes(of: Backing | MovableBuffer): Axes {
    if (!(of instanceof MovableBuffer)) {
      checkBacking('of', of)
      return this.#registrar.axes(of)
    }
    const axes = this.#registrar.axes(of.backing)
    if (!of.isPinned) return axes
    return { ...axes, mover: 'nobody', decidedBy: 'the buffer is pinned: MovableBuffer.pin()' }
  }

  /**
   * Finds out who moves a dma-buf by an experiment: has its exporter move it by
   * `move`, which rejects with EBUSY while it is pinned, first as it is, then with
   * its first page registered with this device, which then reads it where it has
   * gone. What that says of the device holds from then on for `axes()`. Rejects
   * with what `move` or the registration rejects with; ERR_UNSUPPORTED where the
   * device registers no dma-bufs.
   */
  async tryMoving(backing: Backing, move: MoveOnCommand): Promise<Axes> {
    checkBacking('backing', backing)
    if (typeof move !== 'function') throw typeError('move', 'a function', move)
    this.#checkOpen()
    const { registration, reason } = this.#registrar.axes(backing)
    if (registration !== 'dma-buf') {
      throw new P2pdmaError(`${this.device.name} does not register it as a dma-buf: ${reason}`, {
        code: 'ERR_UNSUPPORTED',
        argument: 'backing',
      })
    }
    const parts = { port: this.port, registrar: this.#registrar }
    return this.#registrar.learn(backing, await tryMoving(parts, backing, move))
  }

  /** Why the device registers no dma-bufs; null where it does. */
  get dmabufRefusal(): string | null {
    return this.#registrar.refusal
  }

  /** This device's side of the sharing; closed with the engine. */
  importer(options?: ImporterOptions): Importer {
    this.#checkOpen()
    const importer = new Importer(this, options)
    this.#importers = this.#importers.filter((each) => each.error === null)
    this.#importers.push(importer)
    return importer
  }

  // --- peers ---

  /** Connects to a peer that listens. */
  async connect(options: ConnectOptions): Promise<Peer> {
    const request = checkConnect(options)
    this.#checkOpen()
    return meet(request, (socket, greeting) => this.#open(socket, true, greeting))
  }

  /** Has peers connect; those that say nothing that can be understood are not told of. */
  async listen(options: ListenOptions, onPeer: (peer: Peer) => void): Promise<VerbsListener> {
    const request = checkListen(options)
    if (typeof onPeer !== 'function') throw typeError('onPeer', 'a function', onPeer)
    this.#checkOpen()
    const listener = await listenForPeers(
      request,
      (socket, greeting) => this.#open(socket, false, greeting),
      onPeer,
      (each) => void this.#listeners.delete(each),
    )
    this.#listeners.add(listener)
    // It may have been closed, or lost, meanwhile.
    if (this.#closing !== null || this.error !== null) {
      await listener.close()
      this.#checkOpen()
    }
    return listener
  }

  /** Both ends of a link within this process: ours, and the other engine's. */
  async pair(other: VerbsEngine): Promise<[Peer, Peer]> {
    if (!(other instanceof VerbsEngine)) throw typeError('other', 'a VerbsEngine', other)
    this.#checkOpen()
    const [near, far] = memoryPair()
    const [ours, theirs] = await Promise.allSettled([
      this.#open(near, true),
      other.#open(far, false),
    ])
    if (ours.status === 'fulfilled' && theirs.status === 'fulfilled') {
      return [ours.value, theirs.value]
    }
    for (const end of [ours, theirs]) if (end.status === 'fulfilled') await end.value.close()
    throw ours.status === 'rejected' ? ours.reason : (theirs as PromiseRejectedResult).reason
  }

  async #open(
    stream: Duplex,
    isOpener: boolean,
    { timeoutMs, signal }: Partial<Greeting> = {},
  ): Promise<Peer> {
    const hello: Hello = {
      type: 'hello',
      version: 1,
      nonce: randomBytes(16).toString('hex'),
      device: this.device.name,
      gid: this.port.gid.gid.replaceAll(':', ''),
      mtu: this.port.mtu as Hello['mtu'],
    }
    const link = await Link.open(stream, hello, {
      role: isOpener ? 'opener' : 'accepter',
      ...(timeoutMs !== undefined && { timeoutMs }),
      ...(signal !== undefined && { signal }),
    })
    if (this.#closing !== null || this.error !== null) {
      void link.close()
      this.#checkOpen()
    }
    const peer = new Peer(this.#peerHost, link, `peer${peersSoFar++}`, isOpener)
    this.#peers.add(peer)
    return peer
  }

  get #peerHost() {
    return {
      engine: this as Engine,
      regions: this.regions,
      port: this.port,
      limits: this.#limits,
      makeParts: (depth: number, onEvent: () => void) =>
        makeParts(this.#domain, this.#events, depth, onEvent).catch(this.#loss.rethrow),
      nextNumber: () => ++this.#numbers,
      addQueue: (queue: Queue) => void this.#queues.set(queue.name, queue),
      dropQueue: (queue: Queue) => void this.#queues.delete(queue.name),
      forgetPeer: (peer: Peer) => void this.#peers.delete(peer),
      onRefused: (cause: unknown) => this.#loss.look(cause),
      onFruitless: () => void this.#fruitless++,
      onGivenUp: () => void this.#givenUp++,
    }
  }

  /** Of the queue pairs that are open, or of one by its name: how many, and how often they were connected anew. */
  stats(of: { queue?: string } = {}): VerbsStats {
    const { queue } = checkOptions(of, 'of')
    const queues = [...this.#queues.values()].filter(
      ({ name }) => queue === undefined || name === queue,
    )
    const resets = queues.reduce((sum, { counts }) => sum + counts.life - 1, 0)
    if (queue === undefined) {
      const sums = { fruitlessResets: this.#fruitless, givenUp: this.#givenUp }
      return { queues: queues.length, resets, ...sums }
    }
    const fruitlessResets = queues.reduce((sum, { progress }) => sum + progress.total, 0)
    const givenUp = queues.filter(({ error }) => error?.code === 'ERR_NO_PROGRESS').length
    return { queues: queues.length, resets, fruitlessResets, givenUp }
  }

  /**
   * Breaks something on purpose. `queue-pair-error`: the queue pairs, or the one
   * that is named, go to ERR behind everybody's back, as the device would have it;
   * those that are being connected anew do not. Returns how many did.
   */
  inject(fault: VerbsFault): number {
    const { kind, queue } = checkOptions(fault, 'fault')
    this.#checkOpen()
    if (kind !== 'queue-pair-error') throw typeError('kind', "'queue-pair-error'", kind)
    if (queue !== undefined) {
      if (typeof queue !== 'string') throw typeError('queue', 'a string', queue)
      this.#queueNamed(queue)
    }
    let broken = 0
    for (const { name, isReady, parts } of this.#queues.values()) {
      if (!isReady || (queue !== undefined && queue !== name)) continue
      parts.qp.modifyNow({ qpState: QpState.ERR })
      broken++
    }
    return broken
  }

  // --- Engine ---

  /** On a queue pair that `Peer.openQueue` has connected, by its name; EBUSY where it has a channel. */
  openChannel(wanted: EngineChannelOptions): EngineChannel {
    this.#checkOpen()
    const options = checkChannelOptions(wanted, 1 << 14)
    const queue = this.#queueNamed(options.queue)
    if (queue.backend !== null) {
      throw new P2pdmaError(`The queue pair ${queue.name} has a channel`, {
        code: 'EBUSY',
        argument: 'queue',
        hint: 'close that channel first, or open another queue pair',
      })
    }
    if (options.depth > queue.depth) {
      throw new P2pdmaError(`depth must be at most ${queue.depth}, the queue pair's`, {
        code: 'ERR_OUT_OF_RANGE',
        argument: 'depth',
      })
    }
    const { regions } = this
    const host = {
      table: regions.table,
      maxMessage: this.port.info.maxMessageSize,
      onForced: () => void (regions.isUnquiet = true),
      hold: (who: object, hold: boolean) => this.#holding.hold(who, hold),
      tell: (queue: number) => this.#events.tell(queue),
      bytesUnderWay: () => {
        const backends = [...this.#queues.values()].map((each) => each.backend)
        return backends.reduce((sum, each) => sum + (each?.bytesUnderWay ?? 0), 0)
      },
    }
    return new QueueChannel(options, (channel) => new VerbsBackend(host, queue, channel))
  }

  /** Without a name: the only one. */
  #queueNamed(wanted: string | undefined): Queue {
    const names = [...this.#queues.keys()]
    const name = wanted ?? (names.length === 1 ? names[0] : undefined)
    const queue = name === undefined ? undefined : this.#queues.get(name)
    if (queue !== undefined) return queue
    throw new P2pdmaError(
      name === undefined ? 'Which queue pair is it to be?' : `There is no queue pair ${name}`,
      {
        code: 'ERR_INVALID_ARG_VALUE',
        argument: 'queue',
        hint:
          names.length === 0 ? 'connect one: Peer.openQueue()' : `there are ${names.join(', ')}`,
      },
    )
  }

  map(id: number, backing: Backing, size: number, access: number): void | Promise<void> {
    this.#checkOpen()
    try {
      return this.regions.map(id, backing, size, access)?.catch(this.#loss.rethrow)
    } catch (error) {
      return this.#loss.rethrow(error)
    }
  }

  seal(id: number): void {
    this.regions.seal(id)
  }

  unseal(id: number): void {
    this.regions.unseal(id)
  }

  unmap(id: number): void | Promise<void> {
    this.#loss.checkUnmap()
    return this.regions.unmap(id)
  }

  release(id: number): void {
    this.regions.release(id)
  }

  /** Closes its importers, peers and listeners, and the device. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    await this.#loss.end()
    const importers = this.#importers
    this.#importers = []
    await Promise.allSettled(importers.map((each) => each.close()))
    await Promise.allSettled([...this.#listeners].map((each) => each.close()))
    await Promise.allSettled([...this.#peers].map((each) => each.close()))
    await this.#closeDevice()
  }

  /** One that is lost may not even let go of what it had. */
  #closeDevice(): Promise<void> {
    const { error } = this
    const closed = this.device.close()
    return error === null ? closed : withDeadline(closed, CLOSE_MS, () => error)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #checkOpen(): void {
    if (this.#closing !== null) throw closedError('The engine')
    if (this.error !== null) throw this.error
  }
}

/** A dma-buf can be of memory that has no pages, as a BAR's: it is registered as such, or not at all. */
function capabilitiesOf(registrar: Registrar, maxMessage: number): EngineCapabilities {
  const message = { minLength: 0, maxLength: maxMessage, alignment: 1, withPeer: true }
  const takesDmabufs = registrar.refusal === null
  return {
    operations: [
      ...[Op.COPY, Op.SEND, Op.RECEIVE].map((op) => ({ op, ...message })),
      { op: Op.FETCH_ADD, minLength: 8, maxLength: 8, alignment: 8, withPeer: true },
    ],
    isTwoSided: true,
    maps: { dmaBufs: takesDmabufs, cpuMemory: true, bars: takesDmabufs },
    lateAccess: 'key',
    canMap: (backing) => registrar.refusalOf(backing),
  }
}

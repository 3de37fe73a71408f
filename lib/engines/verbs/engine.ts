/**
 * A NIC as importer, through libibverbs: the 2020 mail's own case. Each channel
 * is a connected queue pair; see Peer for what its two ends tell each other.
 */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import type { Duplex } from 'node:stream'
import { brand } from '../../brand.js'
import {
  P2pdmaError,
  abortError,
  checkInteger,
  checkOptions,
  closedError,
  typeError,
} from '../../errors.js'
import { Memfd } from '../../kernel/memfd.js'
import {
  type CompletionChannel,
  type GidEntry,
  MemoryAccess,
  type PortInfo,
  type ProtectionDomain,
  QpState,
  VerbsDevice,
} from '../../kernel/verbs/index.js'
import type { Backing } from '../../move-notify/backing.js'
import type { Engine, EngineChannelOptions } from '../../move-notify/engine.js'
import { Importer, type ImporterOptions } from '../../move-notify/importer.js'
import { MovableBuffer } from '../../move-notify/movable-buffer.js'
import { checkChannelOptions } from '../channel-options.js'
import { VerbsChannel } from './channel.js'
import { Holding } from './holding.js'
import { Link } from './link/link.js'
import { memoryPair } from './link/memory-pair.js'
import type { Hello } from './link/messages.js'
import { type MoveOnCommand, tryMoving } from './move-trial.js'
import { Peer } from './peer.js'
import type { Queue, QueueParts } from './queue.js'
import { type Axes, Registrar } from './registrar.js'
import { Regions } from './regions.js'

/** Asynchronous events after which a queue pair is in ERR. */
const FATAL: ReadonlySet<string> = new Set(['QP_FATAL', 'QP_REQ_ERR', 'QP_ACCESS_ERR'])

export interface VerbsEngineOptions {
  /** Of the device's ports. Default 1. */
  portNum?: number
  /** Which entry of the GID table. Default: as `VerbsDevice.gid` chooses. */
  gidIndex?: number | undefined
}

export interface ConnectOptions {
  host: string
  port: number
  /** For the hello, ms. Default 5000. */
  timeoutMs?: number
  signal?: AbortSignal | undefined
}

export interface ListenOptions {
  /** Default: one that is free. */
  port?: number
  /** Default: every address. */
  host?: string
}

/** Waits for peers to connect. */
export interface VerbsListener {
  readonly port: number
  close(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

export interface VerbsStats {
  queues: number
  resets: number
}

export interface VerbsFault {
  kind: 'queue-pair-error'
  /** A queue pair's name. Default: all of them. */
  queue?: string
}

/** Of all engines: what belongs to one is not found in another. */
let peersSoFar = 0

export class VerbsEngine implements Engine {
  static {
    brand(this, (value) => #domain in value, { promising: ['close'] })
  }

  /** `verbs:` and the device's name. */
  readonly name: string
  readonly device: VerbsDevice
  readonly #domain: ProtectionDomain
  readonly #events: CompletionChannel
  readonly #registrar: Registrar
  readonly #port: PortInfo
  readonly #gid: GidEntry
  /** @internal */
  readonly regions: Regions
  readonly #queues = new Map<string, Queue>()
  /** Queue pairs so far. */
  #numbers = 0
  readonly #peers = new Set<Peer>()
  readonly #listeners = new Set<VerbsListener>()
  readonly #holding: Holding
  #importers: Importer[] = []
  #closing: Promise<void> | null = null

  private constructor(
    device: VerbsDevice,
    domain: ProtectionDomain,
    events: CompletionChannel,
    registrar: Registrar,
    gid: GidEntry,
  ) {
    this.name = `verbs:${device.name}`
    this.device = device
    this.#domain = domain
    this.#events = events
    this.#holding = new Holding((hold) => {
      if (!events.closed) events.hold(hold)
    })
    this.#registrar = registrar
    this.#gid = gid
    this.#port = device.activePort(gid.portNum)
    this.regions = new Regions(domain, registrar)
    device.onAsyncEvent(({ of, number, name }) => {
      if (of !== 'queue-pair' || !FATAL.has(name)) return
      for (const queue of this.#queues.values()) if (queue.qpn === number) queue.break()
    })
  }

  /**
   * Opens a device: ENODEV, ERR_PORT_DOWN or ERR_NO_GID where it cannot be used,
   * ERR_VERBS_MISSING without libibverbs.
   */
  static async open(name: string, options: VerbsEngineOptions = {}): Promise<VerbsEngine> {
    const { portNum = 1, gidIndex } = checkOptions(options)
    const device = await VerbsDevice.open(name)
    try {
      device.activePort(portNum)
      const gid = device.gid({ portNum, index: gidIndex })
      const domain = await device.protectionDomain()
      const events = await device.completionChannel()
      const registrar = await Registrar.probe(domain)
      return new VerbsEngine(device, domain, events, registrar, gid)
    } catch (error) {
      await device.close()
      throw error
    }
  }

  get closed(): boolean {
    return this.#closing !== null
  }

  /**
   * How the NIC registers a backing, or a buffer's, and who can move it then. A
   * buffer that is pinned (`MovableBuffer.pin()`) is nobody's to move. Pins of
   * others in the kernel are seen by `tryMoving()` alone: it lists who has
   * attached to a dma-buf (debugfs, dma_buf/bufinfo), not who has pinned it.
   */
  axes(of: Backing | MovableBuffer): Axes {
    if (typeof of !== 'object' || of === null) {
      throw typeError('of', 'a Backing or a MovableBuffer', of)
    }
    if (!(of instanceof MovableBuffer)) return this.#registrar.axes(of)
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
    if (typeof backing !== 'object' || backing === null) {
      throw typeError('backing', 'a Backing', backing)
    }
    if (typeof move !== 'function') throw typeError('move', 'a function', move)
    this.#checkOpen()
    const { registration, reason } = this.#registrar.axes(backing)
    if (registration !== 'dma-buf') {
      throw new P2pdmaError(`${this.device.name} does not register it as a dma-buf: ${reason}`, {
        code: 'ERR_UNSUPPORTED',
        argument: 'backing',
      })
    }
    const { device } = this
    const parts = { device, registrar: this.#registrar, port: this.#port, gid: this.#gid }
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
    const { host, port, timeoutMs, signal } = checkOptions(options)
    if (typeof host !== 'string') throw typeError('host', 'a string', host)
    checkInteger('port', port, 1, 65_535)
    this.#checkOpen()
    const socket = connect({ host, port, noDelay: true })
    try {
      await once(socket, 'connect', signal === undefined ? {} : { signal })
    } catch (error) {
      socket.destroy()
      if (signal?.aborted === true) throw abortError(signal)
      throw connectError(host, port, error as NodeJS.ErrnoException)
    }
    return this.#open(socket, true, timeoutMs, signal)
  }

  /** Has peers connect; those that say nothing that can be understood are not told of. */
  async listen(options: ListenOptions, onPeer: (peer: Peer) => void): Promise<VerbsListener> {
    const { host, port = 0 } = checkOptions(options)
    checkInteger('port', port, 0, 65_535)
    if (typeof onPeer !== 'function') throw typeError('onPeer', 'a function', onPeer)
    this.#checkOpen()
    const server = createServer((socket) => {
      socket.setNoDelay(true)
      this.#open(socket, false).then(onPeer, () => {})
    })
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen({ port, ...(host !== undefined && { host }) }, resolve)
    })
    const address = server.address()
    const close = () => {
      this.#listeners.delete(listener)
      // Those who have connected stay connected, so its callback may never come.
      server.close()
      return Promise.resolve()
    }
    const listener: VerbsListener = {
      port: typeof address === 'object' && address !== null ? address.port : port,
      close,
      [Symbol.asyncDispose]: close,
    }
    this.#listeners.add(listener)
    return listener
  }

  /** Both ends of a link within this process: ours, and the other engine's. */
  async pair(other: VerbsEngine): Promise<[Peer, Peer]> {
    if (!(other instanceof VerbsEngine)) throw typeError('other', 'a VerbsEngine', other)
    this.#checkOpen()
    const [near, far] = memoryPair()
    const peers = await Promise.all([this.#open(near, true), other.#open(far, false)])
    return peers
  }

  async #open(
    stream: Duplex,
    isOpener: boolean,
    timeoutMs?: number,
    signal?: AbortSignal,
  ): Promise<Peer> {
    const hello: Hello = {
      type: 'hello',
      version: 1,
      nonce: randomBytes(16).toString('hex'),
      device: this.device.name,
      gid: this.#gid.gid.replaceAll(':', ''),
      mtu: this.#port.activeMtu as Hello['mtu'],
    }
    const link = await Link.open(stream, hello, {
      role: isOpener ? 'opener' : 'accepter',
      ...(timeoutMs !== undefined && { timeoutMs }),
      ...(signal !== undefined && { signal }),
    })
    if (this.#closing !== null) {
      void link.close()
      throw closedError('The engine')
    }
    const peer = new Peer(this.#peerHost, link, `peer${peersSoFar++}`, isOpener)
    this.#peers.add(peer)
    return peer
  }

  get #peerHost() {
    return {
      engine: this.name,
      regions: this.regions,
      sgidIndex: this.#gid.index,
      mtu: this.#port.activeMtu,
      makeParts: (depth: number, onEvent: () => void) => this.#makeParts(depth, onEvent),
      nextNumber: () => ++this.#numbers,
      addQueue: (queue: Queue) => void this.#queues.set(queue.name, queue),
      dropQueue: (queue: Queue) => void this.#queues.delete(queue.name),
      forgetPeer: (peer: Peer) => void this.#peers.delete(peer),
    }
  }

  async #makeParts(depth: number, onEvent: () => void): Promise<QueueParts> {
    const cq = await this.device.completionQueue(depth * 4, { channel: this.#events, onEvent })
    try {
      const qp = await this.#domain.queuePair({
        sendCq: cq,
        maxSendWr: depth * 2,
        maxReceiveWr: depth,
      })
      const { scratch, values } = await this.#makeScratch(depth)
      const close = async () => {
        await qp.close()
        await Promise.all([cq.close(), scratch.close()])
        values.unmap()
      }
      return { qp, cq, scratch, values, close }
    } catch (error) {
      // And the queue pair, where it got so far.
      await cq.close()
      throw error
    }
  }

  /** Where atomics put the value before, 8 bytes for each row. */
  async #makeScratch(depth: number) {
    using memfd = Memfd.create(Math.max(depth * 8, 4096), { name: 'p2pdma-atomics' })
    const values = memfd.map()
    try {
      const scratch = await this.#domain.register(values, { access: MemoryAccess.LOCAL_WRITE })
      return { scratch, values }
    } catch (error) {
      values.unmap()
      throw error
    }
  }

  /** Of the queue pairs that are open, or of one by its name: how many, and how often they were connected anew. */
  stats(of: { queue?: string } = {}): VerbsStats {
    const { queue } = checkOptions(of, 'of')
    const queues = [...this.#queues.values()].filter(
      ({ name }) => queue === undefined || name === queue,
    )
    const resets = queues.reduce((sum, { counts }) => sum + counts.life - 1, 0)
    return { queues: queues.length, resets }
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
  openChannel(options: EngineChannelOptions): VerbsChannel {
    this.#checkOpen()
    checkChannelOptions(options, 1 << 14)
    const queue = this.#queueNamed(options.queue)
    if (queue.channel !== null) {
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
      maxMessage: this.#port.maxMessageSize,
      onForced: () => void (regions.isUnquiet = true),
      hold: (channel: object, hold: boolean) => this.#holding.hold(channel, hold),
      tell: (queue: number) => this.#events.tell(queue),
    }
    return new VerbsChannel(host, queue, options)
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
    return this.regions.map(id, backing, size, access)
  }

  seal(id: number): void {
    this.regions.seal(id)
  }

  unseal(id: number): void {
    this.regions.unseal(id)
  }

  unmap(id: number): void | Promise<void> {
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
    const importers = this.#importers
    this.#importers = []
    await Promise.allSettled(importers.map((each) => each.close()))
    await Promise.allSettled([...this.#listeners].map((each) => each.close()))
    await Promise.allSettled([...this.#peers].map((each) => each.close()))
    await this.device.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #checkOpen(): void {
    if (this.#closing !== null) throw closedError('The engine')
  }
}

function connectError(host: string, port: number, cause: NodeJS.ErrnoException): P2pdmaError {
  const { code = 'ERR_PEER_LOST', errno, syscall } = cause
  return new P2pdmaError(`No peer at ${host}, port ${port}: ${cause.message}`, {
    code,
    ...(errno !== undefined && { errno }),
    ...(syscall !== undefined && { syscall }),
    hint: 'start it there: p2pdma serve',
    cause,
  })
}

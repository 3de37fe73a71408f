/**
 * The other host of `p2pdma smoke --peer`. For each queue pair that a peer opens
 * there is a buffer that it may read, write and add to, and that moves
 * meanwhile; into those that it opens second, fourth, ... it may send, and gets
 * its messages back.
 */
import { VerbsEngine } from '../../engines/verbs/engine.js'
import type { Peer } from '../../engines/verbs/peer.js'
import { exporterByName } from '../../exporters/index.js'
import { Access } from '../../move-notify/importer/engine.js'
import type { Exporter } from '../../move-notify/exporter/backing.js'
import type { Channel } from '../../move-notify/importer/channel.js'
import { Importer } from '../../move-notify/importer/importer.js'
import { MovableBuffer } from '../../move-notify/exporter/movable-buffer.js'
import { layOutBlocks } from '../layout.js'
import { portChoice, rotation } from '../options.js'
import { sleep } from '../../move-notify/reservation/deadline.js'
import { describe } from '../tally.js'
import { castVerbsDevices } from './devices.js'
import { DEPTH } from './ends.js'

/** What a queue's buffer is offered as: with `-` and the queue's number, from 0. */
export const SERVED = 'served'

/** Receives posted for messages to send back. */
const ECHOES = 64

export interface ServeOptions {
  /** Empty: the first with an active port. */
  device: string
  /** As `SmokeOptions` has them. */
  portNum: number | null
  gidIndex: number | null
  /** Null: all addresses of this host. */
  host: string | null
  port: number
  /** End when the run that has used the buffers has ended. */
  once: boolean
  from: string
  to: string[]
  /** Of each queue's buffer, bytes. */
  size: number
  /** From one move of a buffer to its next, ms; Infinity: never. */
  everyMs: number
}

/** What it tells, a line of JSON each. */
export type ServeEvent =
  | {
      event: 'ready'
      device: string
      portNum: number
      gidIndex: number
      host: string | null
      port: number
      size: number
    }
  | { event: 'connected'; peer: string }
  | {
      event: 'gone'
      peer: string
      error: string | null
      queues: number
      moves: number
      failedMoves: number
      strayWrites: number
    }

export interface ServeOutput {
  tell: (event: ServeEvent) => void
  progress: (line: string) => void
}

/**
 * Serves until the signal, or with `once` until a run has ended: peers have opened queue pairs,
 * and the last one has gone. A run stays connected from its beginning to its end (see
 * PeerPlant), so that there is a peer between its scenarios, too.
 */
export async function serve(
  options: ServeOptions,
  { tell, progress }: ServeOutput,
  signal: AbortSignal,
): Promise<void> {
  const from = exporterByName(options.from)
  const to = rotation(options).map(exporterByName)
  const choice = portChoice(options)
  const [name] = await castVerbsDevices(options.device, choice)
  await using engine = await VerbsEngine.open(name, choice)
  let used = false
  let ended = () => {}
  const end = new Promise<void>((resolve) => (ended = resolve))
  const served = new Set<Promise<void>>()
  const onPeer = (peer: Peer) => {
    tell({ event: 'connected', peer: peer.name })
    const guest = new Guest(engine, peer, { from, to, options, progress })
    const over = guest.over.then((counts) => {
      tell({ event: 'gone', peer: peer.name, ...counts })
      served.delete(over)
      used ||= counts.queues > 0
      if (options.once && used && served.size === 0) ended()
    })
    served.add(over)
  }
  const { host, port } = options
  const listener = await engine.listen({ port, ...(host !== null && { host }) }, onPeer)
  signal.addEventListener('abort', ended)
  if (signal.aborted) ended()
  const { name: device, portNum, gid } = engine.port
  const by = { device, portNum, gidIndex: gid.index }
  tell({ event: 'ready', ...by, host, port: listener.port, size: options.size })
  await end
  signal.removeEventListener('abort', ended)
  await listener.close()
  await engine.close()
  await Promise.all(served)
}

interface Setting {
  from: Exporter
  to: readonly Exporter[]
  options: ServeOptions
  progress: (line: string) => void
}

interface GuestCounts {
  error: string | null
  queues: number
  moves: number
  failedMoves: number
  strayWrites: number
}

/** One peer, and what it has opened. */
class Guest {
  /** Resolves when it has gone, and all that was its is closed. */
  readonly over: Promise<GuestCounts>
  readonly #peer: Peer
  readonly #importer: Importer
  readonly #setting: Setting
  readonly #counts: GuestCounts = {
    error: null,
    queues: 0,
    moves: 0,
    failedMoves: 0,
    strayWrites: 0,
  }
  readonly #work: Promise<void>[] = []
  #isGone = false

  constructor(engine: VerbsEngine, peer: Peer, setting: Setting) {
    this.#peer = peer
    this.#setting = setting
    this.#importer = new Importer(engine)
    peer.on('queue', (name: string) => {
      const number = this.#counts.queues++
      this.#work.push(this.#serve(name, number).catch((error: unknown) => this.#failed(error)))
    })
    this.over = new Promise((resolve) => {
      peer.on('closed', (error: Error | null) => {
        if (error !== null) this.#counts.error ??= describe(error)
        void this.#end().then(() => resolve(this.#counts))
      })
    })
  }

  async #end(): Promise<void> {
    this.#isGone = true
    await this.#importer.close().catch((error: unknown) => this.#failed(error))
    await Promise.all(this.#work)
  }

  #failed(error: unknown): void {
    if (!this.#isGone) this.#counts.error ??= describe(error)
  }

  async #serve(queue: string, number: number): Promise<void> {
    const { from, options } = this.#setting
    const channel = this.#importer.channel({ queue, depth: DEPTH })
    const buffer = await MovableBuffer.create(options.size, from, { poison: true })
    try {
      const attachment = await this.#importer.attach(buffer)
      if (number % 2 === 1) {
        const { slotSize } = layOutBlocks(options.size)
        const slots = Math.min(ECHOES, Math.floor(options.size / slotSize))
        for (let slot = 0; slot < slots; slot++) {
          this.#work.push(echo(channel, attachment, slot * slotSize, slotSize))
        }
      }
      const label = `${SERVED}-${number}`
      this.#peer.grant(channel, attachment, { label, access: Access.READ | Access.WRITE })
      await this.#move(buffer)
      this.#counts.strayWrites += await buffer.countStrayWrites()
    } finally {
      await buffer.close()
    }
  }

  /** Moves it until the peer has gone. */
  async #move(buffer: MovableBuffer): Promise<void> {
    const { to, options, progress } = this.#setting
    for (let turn = 0; !this.#isGone; turn++) {
      await sleep(Math.min(options.everyMs, 100))
      if (options.everyMs === Infinity || this.#isGone) continue
      try {
        await buffer.move(to[turn % to.length] as Exporter)
        this.#counts.moves++
      } catch (error) {
        this.#counts.failedMoves++
        this.#failed(error)
      }
      progress(`${this.#peer.name}: ${this.#counts.queues} queues, ${this.#counts.moves} moves`)
    }
  }
}

/** Sends back what comes, until the channel is closed. */
async function echo(
  channel: Channel,
  attachment: Parameters<Channel['receive']>[0],
  offset: number,
  length: number,
): Promise<void> {
  try {
    for (;;) {
      const { bytes } = await channel.receive(attachment, offset, length)
      await channel.send(attachment, offset, bytes)
    }
  } catch {
    // The peer has gone, and says so itself.
  }
}

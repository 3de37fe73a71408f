/**
 * Sees whether a move hits work in flight. It stands between the importer and
 * the engine, passes everything on, and looks at the one moment that counts:
 * `seal()` is the first thing that an invalidation does.
 */
import type { Backing } from '../move-notify/exporter/backing.js'
import { type Batch, type Completions, Status } from '../move-notify/importer/batch.js'
import type {
  Engine,
  EngineCapabilities,
  EngineChannel,
  EngineChannelOptions,
} from '../move-notify/importer/engine.js'
import { standsFor } from '../move-notify/importer/shared.js'

export class Probe implements Engine {
  readonly #engine: Engine
  readonly #channels: EngineChannel[] = []
  readonly #waiting: (() => void)[] = []
  #bytes = 0
  readonly #watched = new Map<number, boolean>()
  /** Those whose devices reach an attachment of this one's, and what they name it by. */
  readonly #peers = new Map<number, { probe: Probe; id: number }[]>()
  /** Those whose attachments this one's devices reach. */
  readonly #reached = new Set<Probe>()

  constructor(engine: Engine) {
    this.#engine = engine
    standsFor(this, engine)
  }

  get name(): string {
    return this.#engine.name
  }

  /** The engine's channels, in the order in which they were opened. */
  get channels(): readonly EngineChannel[] {
    return this.#channels
  }

  get capabilities(): EngineCapabilities {
    return this.#engine.capabilities
  }

  openChannel(options: EngineChannelOptions): EngineChannel {
    const channel = this.#engine.openChannel(options)
    this.#channels.push(channel)
    return new ProbedChannel(channel, {
      posted: () => this.#wake(),
      moved: (bytes) => (this.#bytes += bytes),
      closed: () => void this.#channels.splice(this.#channels.indexOf(channel), 1),
    })
  }

  /** Of the operations that have completed well. */
  get bytes(): number {
    return this.#bytes
  }

  /**
   * Resolves when something has been posted next, here or by a peer, in the same
   * turn: a NIC may have finished it in the next one.
   */
  posted(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
    for (const probe of this.#reached) probe.#wake()
  }

  /** Whether work in flight names attachment `id` now, a peer's included. */
  isBusy(id: number): boolean {
    if (this.#channels.some((channel) => channel.uses(id))) return true
    return this.#peers.get(id)?.some((peer) => peer.probe.isBusy(peer.id)) ?? false
  }

  /** A peer's device reaches attachment `id`, which its work names `peerId`. */
  reachedBy(id: number, probe: Probe, peerId: number): void {
    const peers = this.#peers.get(id) ?? []
    this.#peers.set(id, [...peers, { probe, id: peerId }])
    probe.#reached.add(this)
  }

  /** Watches for the invalidation of attachment `id`. */
  watch(id: number): void {
    this.#watched.set(id, false)
  }

  /** Whether work in flight named it when it was invalidated. */
  unwatch(id: number): boolean {
    const hit = this.#watched.get(id) ?? false
    this.#watched.delete(id)
    return hit
  }

  seal(id: number): void {
    if (this.#watched.has(id)) this.#watched.set(id, this.isBusy(id))
    this.#engine.seal(id)
  }

  unseal(id: number): void {
    this.#engine.unseal(id)
  }

  map(id: number, backing: Backing, size: number, access: number): void | Promise<void> {
    return this.#engine.map(id, backing, size, access)
  }

  unmap(id: number): void | Promise<void> {
    return this.#engine.unmap(id)
  }

  release(id: number): void {
    this.#engine.release?.(id)
  }

  /** Leaves the engine open: it is not the probe's. */
  close(): void {}
}

interface Watcher {
  posted(): void
  moved(bytes: number): void
  closed(): void
}

/** A channel that tells what goes into it and what comes out. */
class ProbedChannel implements EngineChannel {
  readonly #channel: EngineChannel
  readonly #watcher: Watcher
  #isClosed = false
  readonly wait?: (microseconds: number, arrivalsOnly: boolean) => boolean

  constructor(channel: EngineChannel, watcher: Watcher) {
    this.#channel = channel
    this.#watcher = watcher
    if (channel.wait !== undefined) this.wait = channel.wait.bind(channel)
  }

  get depth(): number {
    return this.#channel.depth
  }

  get inFlight(): number {
    return this.#channel.inFlight
  }

  get stale(): number {
    return this.#channel.stale
  }

  get unmatched(): number {
    return this.#channel.unmatched ?? 0
  }

  get endError(): Error | null {
    return this.#channel.endError ?? null
  }

  post(batch: Batch, first: number, count: number): number {
    const accepted = this.#channel.post(batch, first, count)
    if (accepted > 0) this.#watcher.posted()
    return accepted
  }

  reap(out: Completions): number {
    const count = this.#channel.reap(out)
    let bytes = 0
    for (let i = 0; i < count; i++) {
      if (out.status[i] === Status.OK) bytes += out.result[i] ?? 0
    }
    if (bytes > 0) this.#watcher.moved(bytes)
    return count
  }

  arm(arrivalsOnly?: boolean): void {
    this.#channel.arm(arrivalsOnly)
  }

  uses(id: number): boolean {
    return this.#channel.uses(id)
  }

  stop(): void | Promise<void> {
    return this.#channel.stop()
  }

  force(): number {
    return this.#channel.force()
  }

  restart(): void {
    this.#channel.restart()
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#channel.close()
    this.#watcher.closed()
  }
}

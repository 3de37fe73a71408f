/**
 * Sees whether a move hits work in flight. It stands between the importer and
 * the engine, passes everything on, and looks at the one moment that counts:
 * `seal()` is the first thing that an invalidation does.
 */
import type { Backing } from '../move-notify/backing.js'
import type { Engine, EngineChannel, EngineChannelOptions } from '../move-notify/engine.js'

export class Probe implements Engine {
  readonly #engine: Engine
  readonly #channels: EngineChannel[] = []
  readonly #waiting: (() => void)[] = []
  readonly #watched = new Map<number, boolean>()

  constructor(engine: Engine) {
    this.#engine = engine
  }

  get name(): string {
    return this.#engine.name
  }

  /** The engine's channels, in the order in which they were opened. */
  get channels(): readonly EngineChannel[] {
    return this.#channels
  }

  openChannel(options: EngineChannelOptions): EngineChannel {
    const channel = this.#engine.openChannel(options)
    this.#channels.push(channel)
    const post = channel.post.bind(channel)
    const value = (...work: Parameters<typeof post>) => {
      const accepted = post(...work)
      if (accepted > 0) this.#wake()
      return accepted
    }
    Object.defineProperty(channel, 'post', { value })
    return channel
  }

  /**
   * Resolves when something has been posted next, in the same turn: a NIC may
   * have finished it in the next one.
   */
  posted(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
  }

  /** Whether work in flight names attachment `id` now. */
  isBusy(id: number): boolean {
    return this.#channels.some((channel) => channel.uses(id))
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

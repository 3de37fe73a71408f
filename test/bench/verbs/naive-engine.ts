/**
 * The NIC as a naive importer would use it, to compare with. It stands between an
 * importer and its engine: where one mapping is to go all of them go, and where it
 * comes back all are registered again. The stop, the copy, the restart and what the
 * peer is told are those of the library.
 */
import type { Backing } from '../../../lib/move-notify/exporter/backing.js'
import type {
  Engine,
  EngineCapabilities,
  EngineChannel,
  EngineChannelOptions,
} from '../../../lib/move-notify/importer/engine.js'

import { standsFor } from '../../../lib/move-notify/importer/shared.js'

interface Mapped {
  backing: Backing
  size: number
  access: number
}

export class NaiveEngine implements Engine {
  readonly #engine: Engine
  readonly #mapped = new Map<number, Mapped>()
  /** Taken away with another, and to come back with it. */
  #away = new Map<number, Mapped>()
  #back: number[] = []
  /** False: everything is passed on as it comes. */
  isNaive = false
  /** Registrations so far. */
  registrations = 0

  constructor(engine: Engine) {
    this.#engine = engine
    standsFor(this, engine)
  }

  get name(): string {
    return this.#engine.name
  }

  get capabilities(): EngineCapabilities {
    return this.#engine.capabilities
  }

  openChannel(options: EngineChannelOptions): EngineChannel {
    return this.#engine.openChannel(options)
  }

  async map(id: number, backing: Backing, size: number, access: number): Promise<void> {
    const away = this.#away
    this.#away = new Map()
    for (const [each, mapped] of away) {
      await this.#map(each, mapped)
      this.#back.push(each)
    }
    await this.#map(id, { backing, size, access })
  }

  async #map(id: number, mapped: Mapped): Promise<void> {
    // Awaited only where it takes its time: what is short is done in one turn, as the library does.
    const mapping = this.#engine.map(id, mapped.backing, mapped.size, mapped.access)
    if (mapping !== undefined) await mapping
    this.registrations++
    this.#mapped.set(id, mapped)
  }

  async unmap(id: number): Promise<void> {
    const one = this.#mapped.get(id)
    if (this.isNaive && one !== undefined) {
      this.#away = new Map(this.#mapped)
      this.#away.delete(id)
      for (const each of this.#away.keys()) await this.#unmap(each)
    }
    await this.#unmap(id)
  }

  async #unmap(id: number): Promise<void> {
    this.#mapped.delete(id)
    const unmapping = this.#engine.unmap(id)
    if (unmapping !== undefined) await unmapping
  }

  seal(id: number): void {
    this.#engine.seal(id)
  }

  unseal(id: number): void {
    for (const each of this.#back.splice(0)) this.#engine.unseal(each)
    this.#engine.unseal(id)
  }

  release(id: number): void {
    this.#engine.release?.(id)
  }

  /** Leaves the engine open: it is not ours. */
  close(): void {}
}

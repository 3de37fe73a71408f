/** The embedded engine. */
import type { SoftwareEngine } from '../engines/index.js'
import { SoftwareChannel } from '../engines/software/channel.js'
import { Importer } from '../move-notify/importer/importer.js'
import { type Form, type Lane, openLane } from './lanes.js'
import { type Layout, layOut } from './layout.js'
import type { FaultName, SmokeOptions } from './options.js'
import { checkMemory } from './plan.js'
import type { Plant, Port, Station } from './plant.js'
import { Probe } from './probe.js'
import { scenarios } from './scenarios.js'
import type { Tally } from './tally.js'

export class SoftwarePlant implements Plant {
  readonly #engine: SoftwareEngine
  readonly facts = ['engine software: embedded, a DMA engine in software on a thread of its own']
  readonly scenarios = scenarios
  readonly judgedSize = 4 << 20
  readonly aimMs = 50
  readonly window = () => 4
  readonly header = new Uint8Array()
  readonly layOut = layOut
  readonly concludes = false

  get bytes(): number {
    return this.#engine.stats().bytes
  }

  get injected(): number {
    return this.#engine.stats().injected
  }

  constructor(engine: SoftwareEngine) {
    this.#engine = engine
  }

  check(options: SmokeOptions): void {
    checkMemory(options)
  }

  open(): Station {
    return new SoftwareStation(this.#engine)
  }

  conclude(): Promise<null> {
    return Promise.resolve(null)
  }

  async close(): Promise<void> {
    await this.#engine.close()
  }
}

const DEPTH = 256

class SoftwareStation implements Station {
  readonly source: Port
  readonly target: Port
  /** It has nothing to reset. */
  readonly resets = 0
  readonly #engine: SoftwareEngine
  readonly #lanes: Lane[] = []

  constructor(engine: SoftwareEngine) {
    this.#engine = engine
    const probe = new Probe(engine)
    this.source = { probe, importer: new Importer(probe) }
    this.target = this.source
  }

  lane(form: Form, tally: Tally): Lane {
    const lane = openLane(form, this.source.importer.channel({ depth: DEPTH }), tally)
    this.#lanes.push(lane)
    return lane
  }

  inject(kind: FaultName, lane: Lane, layout: Layout, restBlocks: number): void {
    const channel = this.source.probe.channels[this.#lanes.indexOf(lane)]
    if (!(channel instanceof SoftwareChannel)) return
    if (kind === 'doubled') this.#engine.inject({ kind, channel, after: restBlocks })
    else if (kind === 'stray') this.#engine.inject({ kind, offset: layout.slotSize })
    else this.#engine.inject({ kind, channel })
  }

  async close(): Promise<void> {
    await this.source.importer.close()
  }
}

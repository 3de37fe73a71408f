/** Engines that copy between two attachments by themselves: the embedded one, and those of others. */
import type { SoftwareEngine } from '../engines/index.js'
import type { OpenedEngine } from '../engines/registry.js'
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

/** Of whatever engine that copies. */
export class CopyPlant implements Plant {
  readonly #engine: OpenedEngine
  readonly #probes: Probe[] = []
  readonly facts: readonly string[]
  readonly scenarios = scenarios
  readonly judgedSize = 4 << 20
  readonly aimMs = 50
  readonly window = () => 4
  readonly header = new Uint8Array()
  readonly layOut = layOut
  readonly concludes = false

  constructor(
    engine: OpenedEngine,
    facts = [`engine ${engine.name}: registered by a module of yours`],
  ) {
    this.#engine = engine
    this.facts = facts
  }

  /** By what the channels gave back. */
  get bytes(): number {
    return this.#probes.reduce((sum, { bytes }) => sum + bytes, 0)
  }

  /** Only ours can be broken on purpose. */
  get injected(): number {
    return 0
  }

  check(options: SmokeOptions): void {
    checkMemory(options)
  }

  open(): Station {
    const probe = new Probe(this.#engine)
    this.#probes.push(probe)
    return new CopyStation(probe)
  }

  conclude(): Promise<null> {
    return Promise.resolve(null)
  }

  async close(): Promise<void> {
    await this.#engine.close()
  }
}

export class SoftwarePlant extends CopyPlant {
  readonly #engine: SoftwareEngine

  constructor(engine: SoftwareEngine) {
    super(engine, ['engine software: embedded, a DMA engine in software on a thread of its own'])
    this.#engine = engine
  }

  override get bytes(): number {
    return this.#engine.stats().bytes
  }

  override get injected(): number {
    return this.#engine.stats().injected
  }

  override open(): Station {
    return new SoftwareStation(this.#engine)
  }
}

const DEPTH = 256

class CopyStation implements Station {
  readonly source: Port
  readonly target: Port
  /** It has nothing to reset. */
  readonly resets: number = 0
  protected readonly lanes: Lane[] = []

  constructor(probe: Probe) {
    this.source = { probe, importer: new Importer(probe) }
    this.target = this.source
  }

  lane(form: Form, tally: Tally): Lane {
    const lane = openLane(form, this.source.importer.channel({ depth: DEPTH }), tally)
    this.lanes.push(lane)
    return lane
  }

  /** checkEngineOptions() lets nobody ask for it. */
  inject(_kind: FaultName, _lane: Lane, _layout: Layout, _restBlocks: number): void {}

  async close(): Promise<void> {
    await this.source.importer.close()
  }
}

class SoftwareStation extends CopyStation {
  readonly #engine: SoftwareEngine

  constructor(engine: SoftwareEngine) {
    super(new Probe(engine))
    this.#engine = engine
  }

  override inject(kind: FaultName, lane: Lane, layout: Layout, restBlocks: number): void {
    const channel = this.source.probe.channels[this.lanes.indexOf(lane)]
    if (!(channel instanceof SoftwareChannel)) return
    if (kind === 'doubled') this.#engine.inject({ kind, channel, after: restBlocks })
    else if (kind === 'stray') this.#engine.inject({ kind, offset: layout.slotSize })
    else this.#engine.inject({ kind, channel })
  }
}

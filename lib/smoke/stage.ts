/** What one scenario plays on: importers of its own, pairs of buffers, and its counts. */
import { trace, type ChannelTransition } from '../move-notify/trace.js'
import type { UndoJournal } from '../kernel/undo/journal.js'
import type { Exporter } from '../move-notify/exporter/backing.js'
import type { Form, Lane } from './lanes.js'
import type { Layout } from './layout.js'
import { BufferMover } from './mover.js'
import type { SmokeOptions } from './options.js'
import type { Pacer } from './pacer.js'
import { Pair } from './pair.js'
import type { Plant, Station } from './plant.js'
import { Random } from './random.js'
import type { Scenario } from './scenario.js'
import type { Stamps } from './stamp.js'
import { Tally } from './tally.js'
import type { Watchdog } from './watchdog.js'
import type { KernelView } from './kernel-view.js'

/** What all scenarios of a run share. */
export interface Run {
  options: SmokeOptions
  plant: Plant
  /** Where buffers are made. */
  from: Exporter
  /** Where they move, in turn. */
  exporters: readonly Exporter[]
  stamps: Stamps
  watchdog: Watchdog
  kernelView: KernelView
  /** What is changed outside of this process is noted there. */
  journal: UndoJournal
  /** Holds the devices to a rate. */
  pacer: Pacer
  /** Ends the run: it is interrupted, or its time is over. */
  signal: AbortSignal
}

export class SmokeStage {
  readonly run: Run
  readonly tally = new Tally()
  readonly layout: Layout
  readonly random: Random
  readonly mover: BufferMover
  readonly pairs: Pair[] = []
  readonly station: Station
  readonly #lanes: Lane[] = []
  /** Whether the load has covered its area: whether there is something to verify. */
  #loaded = new Set<Pair>()
  readonly #onTransition = (message: unknown) => {
    const { importer, pauseMs } = message as ChannelTransition
    const { source, target } = this.station
    if (pauseMs === undefined) return
    if (importer !== source.importer.name && importer !== target.importer.name) return
    this.tally.pauses.record(pauseMs)
  }

  private constructor(run: Run, index: number) {
    this.run = run
    this.layout = run.plant.layOut(run.options.size)
    this.random = new Random(run.options.seed + index)
    this.station = run.plant.open()
    const { plant, watchdog, kernelView } = run
    const { tally, random } = this
    const { aimMs } = plant
    this.mover = new BufferMover({ aimMs, tally, random, watchdog, kernelView })
    trace.channel.subscribe(this.#onTransition)
  }

  /** Makes and prepares the buffers of scenario number `index`. */
  static async open(
    run: Run,
    index: number,
    pairs: number,
    { placements }: Pick<Scenario, 'placements'>,
  ): Promise<SmokeStage> {
    const stage = new SmokeStage(run, index)
    try {
      for (let i = 0; i < pairs; i++) await stage.#openPair(i, placements)
    } catch (error) {
      await stage.close()
      throw error
    }
    return stage
  }

  async #openPair(i: number, placements: Scenario['placements']): Promise<void> {
    const { options, from, exporters, stamps, watchdog, kernelView } = this.run
    const usual = { from, to: exporters }
    const places = placements ?? { source: usual, target: usual }
    const opening = Pair.open(i, options.size, this.station, places, this.layout, stamps)
    const where = [places.source, places.target].map((each) => each.from.placement).join(' and ')
    const pair = await watchdog.over(`making pair ${i} in ${where}`, opening)
    this.pairs.push(pair)
    for (const { buffer } of pair.sides) kernelView.look(buffer.backing)
  }

  /** Opens one more channel, used in this form. */
  lane(form: Form): Lane {
    const lane = this.station.lane(form, this.tally)
    this.#lanes.push(lane)
    return lane
  }

  /** A lane that was opened some other way: it is counted at the end. */
  adopt<T extends Lane>(lane: T): T {
    this.#lanes.push(lane)
    return lane
  }

  /** The load has written to these pairs: it is verified at the end. */
  loaded(pairs: readonly Pair[]): void {
    for (const pair of pairs) this.#loaded.add(pair)
  }

  /** Breaks the next operation of that lane, or the next unmap, on purpose. */
  inject(lane: Lane, restBlocks: number): void {
    const kind = this.run.options.inject
    if (kind !== null) this.station.inject(kind, lane, this.layout, restBlocks)
  }

  /** The last look at every target, when all is quiet. */
  async check(): Promise<void> {
    const { stamps, watchdog } = this.run
    for (const [i, pair] of this.pairs.entries()) {
      const checking = pair.check(this.layout, stamps, this.tally, this.#loaded.has(pair))
      await watchdog.over(`the last look at target ${i}`, checking)
    }
  }

  /** Adds up what is left to count, then gives everything back. */
  async close(): Promise<void> {
    const { watchdog } = this.run
    for (const lane of this.#lanes.splice(0)) lane.count()
    this.tally.counts.resets = this.station.resets
    trace.channel.unsubscribe(this.#onTransition)
    for (const [i, pair] of this.pairs.splice(0).entries()) {
      await watchdog.over(`closing pair ${i}`, pair.close(this.tally))
    }
    await watchdog.over('closing the importers', this.station.close())
  }
}

/** What one scenario plays on: an importer of its own, pairs of buffers, and its counts. */
import { trace, type ChannelTransition } from '../move-notify/trace.js'
import type { Exporter } from '../move-notify/backing.js'
import { Importer } from '../move-notify/importer.js'
import type { SoftwareEngine } from '../engines/index.js'
import { SoftwareChannel } from '../engines/software/channel.js'
import { type Form, type Lane, openLane } from './lanes.js'
import { type Layout, layOut } from './layout.js'
import { Mover } from './mover.js'
import type { SmokeOptions } from './options.js'
import { Pair } from './pair.js'
import { Probe } from './probe.js'
import { Random } from './random.js'
import type { Stamps } from './stamp.js'
import { Tally } from './tally.js'
import type { Watchdog } from './watchdog.js'
import type { Witness } from './witness.js'

/** What all scenarios of a run share. */
export interface Run {
  options: SmokeOptions
  engine: SoftwareEngine
  /** Where buffers are made. */
  from: Exporter
  /** Where they move, in turn. */
  exporters: readonly Exporter[]
  stamps: Stamps
  watchdog: Watchdog
  witness: Witness
  /** Interrupts the run. */
  signal: AbortSignal
}

export class Stage {
  readonly run: Run
  readonly tally = new Tally()
  readonly layout: Layout
  readonly random: Random
  readonly mover: Mover
  readonly pairs: Pair[] = []
  readonly #probe: Probe
  readonly #importer: Importer
  readonly #lanes: Lane[] = []
  /** Whether the load has covered its area: whether there is something to verify. */
  #loaded = new Set<Pair>()
  readonly #onTransition = (message: unknown) => {
    const { importer, pauseMs } = message as ChannelTransition
    if (importer === this.#importer.name && pauseMs !== undefined) this.tally.pausesMs.push(pauseMs)
  }

  private constructor(run: Run, index: number) {
    this.run = run
    this.layout = layOut(run.options.size)
    this.random = new Random(run.options.seed + index)
    this.#probe = new Probe(run.engine)
    this.#importer = new Importer(this.#probe)
    const { exporters, watchdog, witness } = run
    const { tally, random } = this
    this.mover = new Mover({ exporters, probe: this.#probe, tally, random, watchdog, witness })
    trace.channel.subscribe(this.#onTransition)
  }

  /** Makes and prepares the buffers of scenario number `index`. */
  static async open(run: Run, index: number, pairs: number): Promise<Stage> {
    const stage = new Stage(run, index)
    try {
      for (let i = 0; i < pairs; i++) await stage.#openPair(i)
    } catch (error) {
      await stage.close()
      throw error
    }
    return stage
  }

  async #openPair(i: number): Promise<void> {
    const { options, from, stamps, watchdog, witness } = this.run
    const opening = Pair.open(i, options.size, this.#importer, from, this.layout, stamps)
    const pair = await watchdog.over(`making pair ${i} in ${from.placement}`, opening)
    this.pairs.push(pair)
    for (const { buffer } of pair.sides) witness.look(buffer.backing)
  }

  /** Opens one more channel, used in this form. */
  lane(form: Form, depth = 256): Lane {
    const lane = openLane(form, this.#importer.channel({ depth }), this.tally)
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
    if (kind === null) return
    const channel = this.#probe.channels[this.#lanes.indexOf(lane)]
    if (!(channel instanceof SoftwareChannel)) return
    if (kind === 'doubled') this.run.engine.inject({ kind, channel, after: restBlocks })
    else if (kind === 'stray') this.run.engine.inject({ kind, offset: this.layout.slotSize })
    else this.run.engine.inject({ kind, channel })
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
    trace.channel.unsubscribe(this.#onTransition)
    for (const [i, pair] of this.pairs.splice(0).entries()) {
      await watchdog.over(`closing pair ${i}`, pair.close(this.tally))
    }
    await watchdog.over('closing the importer', this.#importer.close())
  }
}

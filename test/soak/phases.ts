/**
 * What is played for long: the smoke test's own scenarios, whichever engine it is. First
 * the two forms, each with importers and buffers that live as long; then rounds in which
 * everything is opened, used and closed.
 */
import { exporterByName } from '../../lib/exporters/index.js'
import { processJournal } from '../../lib/kernel/undo/journal.js'
import { rotation, type SmokeOptions } from '../../lib/smoke/options.js'
import { openPlant } from '../../lib/smoke/open-plant.js'
import { Pacer } from '../../lib/smoke/pacer.js'
import { withConsent } from '../../lib/smoke/run.js'
import type { Scenario } from '../../lib/smoke/scenarios.js'
import { type Run, SmokeStage } from '../../lib/smoke/stage.js'
import { Stamps } from '../../lib/smoke/stamp.js'
import { Tally } from '../../lib/smoke/tally.js'
import { Watchdog } from '../../lib/smoke/watchdog.js'
import { KernelView } from '../../lib/smoke/kernel-view.js'

export interface Phase {
  name: string
  /** Of the run's moves. */
  share: number
  /** Plays so many; it may be a few more. */
  play(moves: number): Promise<void>
}

export interface Soak {
  phases: Phase[]
  /** What went wrong with the traffic; all of it is zero. */
  wrong(): Record<string, number>
  moves(): number
  close(): Promise<void>
}

/** Of a scenario in a round. */
const MOVES_OF_A_VISIT = 5
/** How long a step may take, ms. */
const STEP_LIMIT_MS = 300_000

export async function openSoak(options: SmokeOptions, signal: AbortSignal): Promise<Soak> {
  const from = exporterByName(options.from)
  const exporters = rotation(options).map(exporterByName)
  const plant = await openPlant(options, { from, to: exporters })
  const scenarios = withConsent(plant.scenarios, options.disruptive).filter(
    ({ skip }) => skip === undefined,
  )
  const run: Run = {
    ...{ options, plant, from, exporters, signal },
    journal: processJournal(),
    pacer: new Pacer(options.maxGbps),
    stamps: new Stamps(plant.layOut(options.size), options.seed, plant.header),
    watchdog: new Watchdog(STEP_LIMIT_MS),
    kernelView: new KernelView(exporters),
  }
  const total = new Tally()
  let stages = 0
  const visit = async (scenario: Scenario, wanted: number) => {
    const pairs = scenario.pairs(options.buffers)
    const atOnce = scenario.movesAtOnce(pairs)
    const moves = Math.ceil(wanted / atOnce) * atOnce
    const stage = await SmokeStage.open(run, stages++, pairs, scenario)
    try {
      // Its own checks want more moves than a visit has: they are the smoke test's to judge.
      await scenario.run(stage, { moves, bytes: 0, endsAt: Infinity })
      await stage.check()
    } finally {
      await stage.close()
      total.add(stage.tally)
    }
    return moves
  }
  const guarded = (work: Promise<unknown>) => Promise.race([work, run.watchdog.hung])
  const rounds = async (moves: number) => {
    for (let done = 0; done < moves && !signal.aborted;) {
      for (const scenario of scenarios) done += await visit(scenario, MOVES_OF_A_VISIT)
    }
  }
  const forms = scenarios.slice(0, 2)
  return {
    phases: [
      ...forms.map((scenario) => ({
        ...{ name: scenario.name, share: 0.8 / forms.length },
        play: async (moves: number) => void (await guarded(visit(scenario, moves))),
      })),
      {
        ...{ name: `${scenarios.length} scenarios in turn, each opened and closed`, share: 0.2 },
        play: async (moves: number) => void (await guarded(rounds(moves))),
      },
    ],
    wrong: () => {
      const { lost, doubled, torn, strayWrites, failedOperations, failedMoves } = total.counts
      return { lost, doubled, torn, strayWrites, failedOperations, failedMoves }
    },
    moves: () => total.counts.moves,
    close: async () => {
      await guarded(plant.close())
      run.watchdog.close()
    },
  }
}

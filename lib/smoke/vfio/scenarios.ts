/** Frames between two NICs while the buffers that they leave and reach move. */
import type { Form } from '../lanes.js'
import type { Placement } from '../pair.js'
import { type Goal, type Outcome, type Scenario, stampedUnderMoves } from '../scenarios.js'
import type { Stage } from '../stage.js'
import type { VfioPlant } from './plant.js'

/** `system`: where the options have the buffers. */
export function frameScenarios(plant: VfioPlant, system: Placement): Scenario[] {
  const rest = { pairs: (asked: number) => asked, movesAtOnce: () => 1, bytesShare: 0.5 }
  const both = { source: system, target: system }
  const frames = (name: string, share: number, form: Form, placements: Scenario['placements']) => ({
    ...{ name, share, ...rest, placements: placements ?? both },
    run: (stage: Stage, goal: Goal) => underMoves(plant, stage, goal, form),
  })
  return [
    frames('system memory to system memory, promise form', 0.5, 'promise', both),
    frames('system memory to system memory, batch form', 0.5, 'batch', both),
  ]
}

async function underMoves(
  plant: VfioPlant,
  stage: Stage,
  goal: Goal,
  form: Form,
): Promise<Outcome> {
  const before = dropped(plant)
  await stampedUnderMoves(stage, goal, stage.lane(form))
  stage.tally.counts.framesDropped += dropped(plant) - before
  return { checks: [], saw: () => saw(stage) }
}

function dropped({ sender, receiver }: VfioPlant): number {
  return sender.stats().dropped + receiver.stats().dropped
}

function saw({ tally, layout }: Stage): string {
  const { bytesVerified, moves, movesWithWorkInFlight, stops, framesDropped, framesResent } =
    tally.counts
  return (
    `${bytesVerified / layout.payload} frames, ${moves} moves, ${movesWithWorkInFlight} of them ` +
    `with frames under way, ${stops} stops, ${framesDropped} dropped, ${framesResent} sent again`
  )
}

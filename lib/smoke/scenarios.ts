/** The scenarios: what runs while which buffers move, and what must hold beside the bytes. */
import { sleep } from '../move-notify/reservation/deadline.js'
import type { Form, Lane } from './lanes.js'
import { Load } from './load.js'
import type { Pair, Side } from './pair.js'
import { Pipeline } from './pipeline.js'
import type { Goal, Outcome, Scenario } from './scenario.js'
import type { SmokeStage } from './stage.js'

export type { Check, Goal, Outcome, Scenario, Throughput } from './scenario.js'

const one = () => 1
const same = (asked: number) => asked

/** Of the software engine; the last three are of it alone. */
export const scenarios: readonly Scenario[] = [
  {
    name: 'a buffer at a time moves under load, promise form',
    effects: [],
    share: 0.35,
    bytesShare: 0.5,
    pairs: same,
    movesAtOnce: one,
    run: (stage, goal) => underLoad(stage, goal, 'promise', true),
  },
  {
    name: 'a buffer at a time moves under load, batch form',
    effects: [],
    share: 0.35,
    bytesShare: 0.5,
    pairs: same,
    movesAtOnce: one,
    run: (stage, goal) => underLoad(stage, goal, 'batch', false),
  },
  {
    name: 'all buffers move together: one stop for all',
    effects: [],
    share: 0.1,
    bytesShare: 0,
    pairs: same,
    movesAtOnce: (pairs) => 2 * pairs,
    run: together,
  },
  {
    name: 'a channel that does not use what moves is not stopped',
    effects: [],
    share: 0.1,
    bytesShare: 0,
    pairs: () => 2,
    movesAtOnce: one,
    run: bystander,
  },
  {
    name: 'throughput, steady and under moves',
    effects: [],
    share: 0.1,
    bytesShare: 0,
    pairs: same,
    movesAtOnce: one,
    run: throughput,
  },
]

/** For engines that do not play them. */
export function softwareAlone(): Scenario[] {
  const skip = 'this engine does not play it: --engine software'
  return scenarios.slice(2).map((scenario) => ({ ...scenario, skip }))
}

function openPipeline(stage: SmokeStage, lane: Lane, pairs: readonly Pair[]): Pipeline {
  const { layout, tally, random, run } = stage
  const { stamps, watchdog, pacer } = run
  const window = run.plant.window(pairs.length)
  return new Pipeline({ pairs, layout, lane, stamps, tally, random, watchdog, pacer, window })
}

function startLoad(stage: SmokeStage, lane: Lane, pairs: readonly Pair[]): Load {
  stage.loaded(pairs)
  return new Load(lane, pairs, stage.layout, stage.run.pacer)
}

/** Interrupted, or out of time; there is time for one move in any case. */
function isOver(stage: SmokeStage, goal: Goal): boolean {
  if (stage.run.signal.aborted) return true
  return performance.now() >= goal.endsAt && stage.tally.counts.moves > 0
}

/** Stamped blocks on one channel, the load on another, and one move after the other. */
async function underLoad(
  stage: SmokeStage,
  goal: Goal,
  form: Form,
  injects: boolean,
): Promise<Outcome> {
  const lane = stage.lane(form)
  const load = startLoad(stage, stage.lane(form), stage.pairs)
  const breaks = injects && stage.run.options.inject !== null
  try {
    await stampedUnderMoves(stage, goal, lane, (move, pipeline) => {
      // At the first: nobody knows how many there will be.
      if (!breaks || move > 0) return 0
      stage.inject(lane, pipeline.restBlocks)
      // So that each slot is looked at again.
      return pipeline.done + 3 * pipeline.lap
    })
  } finally {
    await load.stop()
  }
  return { checks: [] }
}

/**
 * Stamped blocks on one channel, and one move after the other, of `sides`.
 * `before` is called before each move; it returns how many groups are to be
 * done at least.
 */
export async function stampedUnderMoves(
  stage: SmokeStage,
  goal: Goal,
  lane: Lane,
  before: (move: number, pipeline: Pipeline) => number | Promise<number> = () => 0,
  sides: readonly Side[] = stage.pairs.flatMap((pair) => pair.sides),
): Promise<void> {
  const { pairs, tally, mover } = stage
  const pipeline = openPipeline(stage, lane, pairs)
  const running = pipeline.run()
  running.catch(() => {})
  const over = () => isOver(stage, goal) || pipeline.ended
  const until = async (reached: () => boolean) => {
    while (!reached() && !over()) await pipeline.progress()
  }
  let groups = 0
  try {
    for (let move = 0; move < goal.moves && !over(); move++) {
      // Moves and bytes come to their ends together.
      const due = goal.bytes === 0 ? 0 : (goal.bytes * move) / goal.moves
      await until(() => tally.counts.bytesVerified >= due && pipeline.done > 0)
      groups = Math.max(groups, await before(move, pipeline))
      await mover.moveOne(sides)
    }
    await until(() => tally.counts.bytesVerified >= goal.bytes)
    // Out of its own time too: what was done on purpose has to be seen.
    while (pipeline.done < groups && !stage.run.signal.aborted && !pipeline.ended) {
      await pipeline.progress()
    }
  } finally {
    pipeline.stop()
    await Promise.allSettled([running])
  }
  await running
}

/** The load on one channel, and every buffer moves at the same time. */
async function together(stage: SmokeStage, goal: Goal): Promise<Outcome> {
  const { pairs, mover } = stage
  const lane = stage.lane('promise')
  const load = startLoad(stage, lane, pairs)
  const sides = pairs.flatMap((pair) => pair.sides)
  let rounds = 0
  try {
    // The load's queue grows with the rate that it sees.
    await sleep(SHORTEST_PHASE)
    while (rounds * sides.length < goal.moves && !isOver(stage, goal)) {
      await mover.moveTogether(sides)
      rounds++
    }
  } finally {
    await load.stop()
  }
  const { stops } = lane.channel.stats
  // Fewer where a round found nothing in flight.
  const name = `${rounds} times ${sides.length} moves at once, ${stops} stops`
  return { checks: [{ ok: stops <= rounds && (stops > 0 || rounds === 0), name }] }
}

/** Two channels with a pair each; the buffers of the first move. */
async function bystander(stage: SmokeStage, goal: Goal): Promise<Outcome> {
  const [moving, resting] = stage.pairs as [Pair, Pair]
  const lane = stage.lane('promise')
  const other = stage.lane('promise')
  const load = startLoad(stage, lane, [moving])
  const pipeline = openPipeline(stage, other, [resting])
  const running = pipeline.run()
  running.catch(() => {})
  try {
    for (let move = 0; move < goal.moves && !isOver(stage, goal) && !pipeline.ended; move++) {
      await stage.mover.moveOne(moving.sides)
    }
  } finally {
    pipeline.stop()
    await Promise.allSettled([running, load.stop()])
  }
  await running
  // A machine that is busy may have had nothing in flight when they moved: then none is stopped.
  const { movesWithWorkInFlight } = stage.tally.counts
  const { stops } = lane.channel.stats
  const checks = [
    { ok: other.channel.stats.stops === 0, name: 'the channel beside it was never stopped' },
    {
      ok: stops > 0 || movesWithWorkInFlight === 0,
      name: `the channel that uses them: ${stops} times`,
    },
  ]
  return { checks }
}

/** Moves in one phase. */
const MOVES_A_PHASE = 4
/** A phase lasts as long as its neighbour, and this long at least, ms. */
const SHORTEST_PHASE = 20

/** The load alone, with and without moves in turn: the figures share whatever else happens. */
async function throughput(stage: SmokeStage, goal: Goal): Promise<Outcome> {
  const { pairs, mover } = stage
  const { plant } = stage.run
  const load = startLoad(stage, stage.lane('batch'), pairs)
  const sides = pairs.flatMap((pair) => pair.sides)
  const steady = { bytes: 0, ms: 0 }
  const moving = { bytes: 0, ms: 0 }
  const phase = async (sum: { bytes: number; ms: number }, work: () => Promise<void>) => {
    // The device's own count, chunk by chunk: only the load runs.
    const [bytes, at] = [plant.bytes, performance.now()]
    await work()
    sum.bytes += plant.bytes - bytes
    sum.ms += performance.now() - at
  }
  try {
    await sleep(SHORTEST_PHASE)
    for (let move = 0; move < goal.moves && !isOver(stage, goal);) {
      await phase(moving, async () => {
        for (let i = 0; i < MOVES_A_PHASE && move < goal.moves; i++, move++) {
          await mover.moveOne(sides)
        }
      })
      const rest = Math.max(SHORTEST_PHASE, moving.ms - steady.ms)
      await phase(steady, () => sleep(rest))
    }
  } finally {
    await load.stop()
  }
  const perSecond = ({ bytes, ms }: { bytes: number; ms: number }) =>
    ms === 0 ? 0 : Math.round((bytes / ms) * 1000)
  return {
    checks: [],
    throughput: { steady: perSecond(steady), underMoves: perSecond(moving) },
  }
}

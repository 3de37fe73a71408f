/** RDMA between two buffers while the one, the other or both of them move. */
import { memfd, VfioBarExporter } from '../../exporters/index.js'
import type { Exporter } from '../../move-notify/exporter/backing.js'
import type { Effect } from '../effects.js'
import type { Form } from '../lanes.js'
import type { Placement, Side } from '../pair.js'
import {
  type Check,
  type Goal,
  type Outcome,
  type Scenario,
  softwareAlone,
  stampedUnderMoves,
} from '../scenarios.js'
import type { SmokeStage } from '../stage.js'
import { Counters } from './counters.js'
import type { Kind, VerbsPlant, VerbsStation } from './plant.js'
import {
  linkDown,
  type MakeTrouble,
  memoryRevoked,
  noTrouble,
  peerKilled,
  queuePairError,
} from './troubles.js'

/** Whose buffers move. */
type Moving = 'source' | 'target' | 'both'

const WHO: Record<Moving, string> = {
  source: 'the source moves',
  target: 'the target moves',
  both: 'both move',
}

/** In equal shares. */
export function verbsScenarios(plant: VerbsPlant, system: Placement): Scenario[] {
  const scenario = (name: string, run: Scenario['run']): Scenario => ({
    ...{ name, share: 1, bytesShare: 1, pairs: (asked) => asked, movesAtOnce: () => 1 },
    effects: [],
    placements: { source: system, target: system },
    run,
  })
  const traffic = (kind: Kind, moving: Moving, form: Form) =>
    scenario(`${NAMES[kind]}, ${WHO[moving]}, ${form} form`, (stage, goal) =>
      underMoves(plant, stage, goal, { kind, moving, form }),
    )
  const troubled: Troubled = (name, kind, effects, makeTrouble) => ({
    ...scenario(`${name}, ${NAMES[kind]}`, (stage, goal) =>
      underMoves(plant, stage, goal, { kind, moving: 'both', form: 'promise', makeTrouble }),
    ),
    effects,
  })
  const kinds: Kind[] = ['write', 'read', 'message']
  return [
    ...kinds.flatMap((kind) => [
      traffic(kind, 'source', 'promise'),
      traffic(kind, 'target', 'batch'),
      traffic(kind, 'both', 'promise'),
    ]),
    ...(['source', 'target', 'both'] as const).map((moving) =>
      scenario(`atomics beside writes, ${WHO[moving]}`, (stage, goal) =>
        atomics(stage, goal, moving, system),
      ),
    ),
    linkScenario(plant, troubled),
    // Queue pairs of our own.
    troubled('queue pairs fail', 'message', [], queuePairError),
    troubled('another peer is killed', 'write', ['kill'], peerKilled),
    revocationScenario(plant, system, troubled),
    ...softwareAlone(),
  ]
}

type Troubled = (
  name: string,
  kind: Kind,
  effects: readonly Effect[],
  makeTrouble: MakeTrouble,
) => Scenario

/** In memory of a device; what goes on beside it is elsewhere. */
function revocationScenario(plant: VerbsPlant, system: Placement, troubled: Troubled): Scenario {
  const name = 'the kernel revokes a BAR'
  const isBar = (exporter: Exporter) => exporter instanceof VfioBarExporter
  const bar = [system.from, ...system.to].find(isBar)
  const skip = whyNotRevoked(plant, bar)
  if (bar === undefined || skip !== null) {
    return { ...troubled(name, 'write', ['revoke'], () => noTrouble), skip: skip ?? '' }
  }
  const others = system.to.filter((each) => !isBar(each))
  const [first = memfd()] = others
  const beside = { from: first, to: others.length > 0 ? others : [first] }
  return {
    ...troubled(name, 'write', ['revoke'], memoryRevoked(bar)),
    touches: `the memory of the device behind ${bar.placement}`,
    placements: { source: beside, target: beside },
  }
}

/** Null where it can be. */
function whyNotRevoked({ engines, axes }: VerbsPlant, bar: Exporter | undefined): string | null {
  if (bar === undefined) return "no buffer is in a device's memory: --from vfio-bar"
  const { name } = engines[1].device
  const found = axes.find(({ device, exporter }) => device === name && exporter === bar.placement)
  if (found?.registration === 'dma-buf') return null
  return `${name} does not register ${bar.placement} as a dma-buf: ${found?.reason ?? 'it is not there'}`
}

function linkScenario({ link }: VerbsPlant, troubled: Troubled): Scenario {
  const name = 'the link goes down and comes up'
  if (typeof link === 'string') {
    return { ...troubled(name, 'write', ['link'], () => noTrouble), skip: link }
  }
  const touches = `the link of ${link.interface.name}, and what it carries`
  return { ...troubled(name, 'write', ['link'], linkDown(link)), touches }
}

const NAMES: Record<Kind, string> = {
  write: 'RDMA write',
  read: 'RDMA read',
  message: 'send and receive',
}

interface Traffic {
  kind: Kind
  moving: Moving
  form: Form
  makeTrouble?: MakeTrouble
}

async function underMoves(
  plant: VerbsPlant,
  stage: SmokeStage,
  goal: Goal,
  { kind, moving, form, makeTrouble }: Traffic,
): Promise<Outcome> {
  const station = stage.station as VerbsStation
  const lane = stage.adopt(await station.open(kind, form, stage.tally))
  const trouble = makeTrouble?.({ plant, station, stage }, goal)
  const checks: Check[] = []
  try {
    await stampedUnderMoves(
      stage,
      goal,
      lane,
      async (move, pipeline) => {
        if (trouble === undefined) return 0
        await trouble.before(move)
        // So that traffic goes on after the last of them.
        return pipeline.done + 2
      },
      sidesOf(stage, moving),
    )
  } finally {
    if (trouble !== undefined) checks.push(...(await trouble.end()))
  }
  return { checks, saw: () => [saw(stage), ...checks.map(({ name }) => name)].join(', ') }
}

/** Stamped writes on one queue pair, atomics on another, and one move after the other. */
async function atomics(
  stage: SmokeStage,
  goal: Goal,
  moving: Moving,
  system: Placement,
): Promise<Outcome> {
  const { tally } = stage
  const station = stage.station as VerbsStation
  const lane = stage.adopt(await station.open('write', 'promise', tally))
  const [source, target] = await station.ends()
  const counters = await Counters.open(system, source, target, tally, stage.run.pacer)
  try {
    const adding = counters.run()
    adding.catch(() => {})
    const sides = sidesOf(stage, moving)
    if (moving !== 'source') sides.push(counters.side)
    try {
      await stampedUnderMoves(stage, goal, lane, undefined, sides)
    } finally {
      counters.stop()
      await Promise.allSettled([adding])
    }
    await adding
    const check = await counters.check()
    return { checks: [check], saw: () => `${saw(stage)}, ${check.name}` }
  } finally {
    await counters.close()
  }
}

function sidesOf({ pairs }: SmokeStage, moving: Moving): Side[] {
  return pairs.flatMap((pair) => (moving === 'both' ? pair.sides : [pair[moving]]))
}

/** What the traffic of a scenario came to. */
export function saw({ tally, layout }: SmokeStage): string {
  const { bytesVerified, moves, movesWithWorkInFlight, stops, forcedStops } = tally.counts
  const parts = [
    `${bytesVerified / layout.payload} blocks`,
    `${moves} moves, ${movesWithWorkInFlight} of them with work under way`,
    `${stops} stops`,
  ]
  if (forcedStops > 0) parts.push(`${forcedStops} of them forced`)
  return parts.join(', ')
}

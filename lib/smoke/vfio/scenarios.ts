/** Frames between two NICs while the buffers that they leave and reach move. */
import type { VfioEngine } from '../../engines/index.js'
import type { Exporter } from '../../move-notify/exporter/backing.js'
import { sleep } from '../../move-notify/reservation/deadline.js'
import type { Effect } from '../effects.js'
import type { Form } from '../lanes.js'
import type { Placement } from '../pair.js'
import {
  type Check,
  type Goal,
  type Outcome,
  type Scenario,
  softwareAlone,
  stampedUnderMoves,
} from '../scenarios.js'
import type { SmokeStage } from '../stage.js'
import type { VfioPlant } from './plant.js'
import { witness } from './witness.js'

/** What a scenario does beside the moves, before one of them; and what it saw, at the end. */
interface Trouble {
  before(move: number): void | Promise<void>
  end(): Promise<Check>
}

type MakeTrouble = (plant: VfioPlant, goal: Goal) => Trouble

/** `system`: where the options have the buffers; `memory`: of a device, null where there is none. */
export function frameScenarios(
  plant: VfioPlant,
  system: Placement,
  memory: Exporter | null,
): Scenario[] {
  const frames = (
    name: string,
    share: number,
    form: Form,
    source: Placement,
    target: Placement,
    effects: readonly Effect[] = [],
    trouble?: MakeTrouble,
  ): Scenario => ({
    ...{ name, share, bytesShare: share, pairs: same, movesAtOnce: one },
    effects,
    placements: { source, target },
    run: (stage, goal) => underMoves(plant, stage, goal, form, trouble),
  })
  const first = system.from
  // Video memory: evicted to the system's, and brought back.
  const evicted = memory === null ? system : { from: memory, to: [first, memory] }
  const within = memory === null ? system : { from: memory, to: [memory] }
  const ofMemory = (scenario: Scenario): Scenario =>
    memory === null ? { ...scenario, skip: NO_MEMORY } : scenario
  return [
    frames('system memory to system memory, promise form', 0.15, 'promise', system, system),
    frames('system memory to system memory, batch form', 0.15, 'batch', system, system),
    ...[
      frames('BAR to system memory, promise form', 0.15, 'promise', evicted, system),
      frames('BAR to BAR, batch form', 0.2, 'batch', evicted, evicted),
      frames('BAR to another place in the same BAR, batch form', 0.15, 'batch', within, within),
    ].map(ofMemory),
    frames('surprise resets of both NICs', 0.1, 'promise', evicted, system, ['reset'], resets),
    frames('the link goes down and comes up', 0.1, 'batch', evicted, system, ['link'], linkDown),
    ...softwareAlone(),
  ]
}

const NO_MEMORY =
  'no device with memory is bound to vfio-pci: `p2pdma bind` one, and name it by --memory'

/** Alone: it takes its time. */
export function witnessScenario(plant: VfioPlant, system: Placement): Scenario {
  return {
    ...{ name: 'the IOMMU as a witness', share: 1, bytesShare: 1, pairs: one, movesAtOnce: one },
    effects: ['fault'],
    placements: { source: system, target: system },
    run: (stage, goal) => witness(plant, stage, goal),
  }
}

const one = () => 1
const same = (asked: number) => asked

async function underMoves(
  plant: VfioPlant,
  stage: SmokeStage,
  goal: Goal,
  form: Form,
  makeTrouble: MakeTrouble | undefined,
): Promise<Outcome> {
  const before = dropped(plant)
  const trouble = makeTrouble?.(plant, goal)
  let check: Check | undefined
  try {
    await stampedUnderMoves(stage, goal, stage.lane(form), async (move, pipeline) => {
      if (trouble === undefined) return 0
      await trouble.before(move)
      // So that traffic goes on after the last of them.
      return pipeline.done + 2
    })
  } finally {
    check = await trouble?.end()
    stage.tally.counts.framesDropped += dropped(plant) - before
  }
  const checks = check === undefined ? [] : [check]
  return { checks, saw: () => [saw(stage), ...checks.map(({ name }) => name)].join(', ') }
}

function dropped({ sender, receiver }: VfioPlant): number {
  return sender.stats().dropped + receiver.stats().dropped
}

function saw({ tally, layout }: SmokeStage): string {
  const { bytesVerified, moves, movesWithWorkInFlight, stops } = tally.counts
  const { framesDropped, framesResent, outcomesUnknown } = tally.counts
  const parts = [
    `${bytesVerified / layout.payload} frames`,
    `${moves} moves, ${movesWithWorkInFlight} of them with frames under way`,
    `${stops} stops`,
    `${framesDropped} dropped by the hardware`,
  ]
  if (outcomesUnknown > 0) parts.push(`${outcomesUnknown} outcomes unknown and settled`)
  if (framesResent > 0) parts.push(`${framesResent} sent again`)
  return parts.join(', ')
}

/** Which moves of a scenario some trouble comes before: a few, well apart. */
function isTroubled(move: number, { moves }: Goal): boolean {
  const apart = Number.isFinite(moves) ? Math.max(1, Math.floor(moves / 4)) : 8
  return move % apart === 0
}

/** Each NIC in turn is reset through VFIO, which the engine has to find out. */
function resets({ sender, receiver }: VfioPlant, goal: Goal): Trouble {
  const engines = [receiver, sender]
  const before = engines.map((engine) => engine.stats().resets)
  let made = 0
  let last: Promise<void> = Promise.resolve()
  return {
    before: async (move) => {
      if (!isTroubled(move, goal)) return
      await last
      const engine = engines[made++ % 2] as VfioEngine
      // Not awaited: the next move meets it.
      last = surprise(engine)
      last.catch(() => {})
    },
    end: async () => {
      await last
      const seen = engines.map((engine, i) => engine.stats().resets - (before[i] ?? 0))
      const sum = seen.reduce((a, b) => a + b, 0)
      return { ok: made > 0 && sum >= made, name: `${made} resets made, ${sum} seen` }
    },
  }
}

/** Resolves when the engine has seen it and works again. */
async function surprise(engine: VfioEngine): Promise<void> {
  const { resets } = engine.stats()
  // QEMU's device keeps its registers over a reset of the function: so both, the device's own first.
  engine.inject({ kind: 'reset' })
  await engine.device.reset()
  while (engine.stats().resets === resets && engine.error === null) await sleep(10)
  while (engine.isDown && engine.error === null) await sleep(10)
}

/** Each NIC in turn negotiates anew. */
function linkDown({ sender, receiver }: VfioPlant, goal: Goal): Trouble {
  const engines = [receiver, sender]
  let made = 0
  let down = 0
  let up = 0
  const onLink = ({ isUp }: { isUp: boolean }) => void (isUp ? up++ : down++)
  for (const engine of engines) engine.on('link', onLink)
  let last: Promise<void> = Promise.resolve()
  return {
    before: async (move) => {
      if (!isTroubled(move, goal)) return
      await last
      last = flap(engines[made++ % 2] as VfioEngine)
      last.catch(() => {})
    },
    end: async () => {
      await last.finally(() => {
        for (const engine of engines) engine.off('link', onLink)
      })
      const name = `${made} times told to negotiate, ${down} times seen down and ${up} times up`
      return { ok: made > 0 && down >= made && up >= made, name }
    },
  }
}

/** Resolves when the link has been down and is up again. */
async function flap(engine: VfioEngine): Promise<void> {
  let isBack = false
  let wasDown = false
  const onLink = ({ isUp }: { isUp: boolean }) => {
    if (!isUp) wasDown = true
    else if (wasDown) isBack = true
  }
  engine.on('link', onLink)
  engine.inject({ kind: 'link-down' })
  while (!isBack && engine.error === null) await sleep(10)
  engine.off('link', onLink)
}

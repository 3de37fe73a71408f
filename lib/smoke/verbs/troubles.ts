/** What goes wrong in the middle of the traffic, on purpose. */
import type { VerbsEngine } from '../../engines/verbs/engine.js'
import type { VfioBarExporter } from '../../exporters/index.js'
import { saveNetConfig } from '../../kernel/net/config.js'
import { netNamespace } from '../../kernel/net/interface.js'
import { waitUntil } from '../../kernel/patience.js'
import type { LinkChange } from '../../kernel/undo/changes.js'
import { sleep } from '../../move-notify/reservation/deadline.js'
import type { Check, Goal } from '../scenarios.js'
import type { SmokeStage } from '../stage.js'
import type { NetLink } from './links.js'
import type { VerbsPlant, VerbsStation } from './plant.js'
import { Revocable } from './revocable.js'
import { Victim } from './victim.js'

/** Where it happens. */
export interface Scene {
  plant: VerbsPlant
  station: VerbsStation
  stage: SmokeStage
}

export interface Trouble {
  before(move: number): void | Promise<void>
  /** What it saw. */
  end(): Promise<Check[]>
}

export type MakeTrouble = (scene: Scene, goal: Goal) => Trouble

/** Shorter than a reliable connection tries again: IBTA, 9.9.2.1.1, local ACK timeouts. */
const DOWN_MS = 150
/** How long what has to come of it may take. */
const WAIT_MS = 30_000
const TICK_MS = 5

/** Which moves of a scenario some trouble comes before: a few, well apart. */
function isTroubled(move: number, { moves }: Goal, times: number): boolean {
  const apart = Number.isFinite(moves) ? Math.max(1, Math.floor(moves / times)) : 8
  return move % apart === 0
}

/** Something that takes a while and is not awaited: the next moves meet it. */
function meanwhile(
  goal: Goal,
  times: number,
  make: () => Promise<void>,
  end: Trouble['end'],
): Trouble {
  let last: Promise<void> = Promise.resolve()
  return {
    before: async (move) => {
      if (!isTroubled(move, goal, times)) return
      await last
      last = make()
      last.catch(() => {})
    },
    end: async () => {
      await last
      return end()
    },
  }
}

/** For what is not run. */
export const noTrouble: Trouble = { before: () => {}, end: () => Promise.resolve([]) }

/** The link of one device goes down for a moment. */
export function linkDown({ port: { device, portNum }, interface: nic }: NetLink): MakeTrouble {
  const { name: link, index } = nic
  return ({ stage: { run } }, goal) => {
    const { journal, signal } = run
    let made = 0
    let seen = 0
    const flap = async () => {
      const config = saveNetConfig(link)
      const down: LinkChange = {
        kind: 'link',
        name: link,
        index,
        namespace: netNamespace(),
        config,
      }
      journal.note(down)
      made++
      try {
        nic.set(false)
        if (await until(() => device.port(portNum).state !== 'active', signal)) seen++
        await sleep(DOWN_MS)
      } finally {
        journal.undo(down)
      }
      await until(() => device.port(portNum).state === 'active', signal)
    }
    return meanwhile(goal, 4, flap, () => {
      const name = `${link} taken down ${made} times, and ${seen} times the port was`
      return Promise.resolve([{ ok: made > 0 && seen === made, name }])
    })
  }
}

/** Not beyond the end of the run. */
async function until(reached: () => boolean, signal: AbortSignal): Promise<boolean> {
  return (await waitUntil(() => signal.aborted || reached(), WAIT_MS, TICK_MS)) && reached()
}

/** A queue pair goes to error behind everybody's back: at the source's end and the target's in turn. */
export const queuePairError: MakeTrouble = ({ plant, station, stage }, goal) => {
  const { signal } = stage.run
  const { resets } = station
  let made = 0
  return {
    before: async (move) => {
      if (!isTroubled(move, goal, 4)) return
      const engine = plant.engines[made % 2] as VerbsEngine
      // Not one that is being connected anew.
      if (await until(() => engine.inject({ kind: 'queue-pair-error' }) > 0, signal)) made++
    },
    end: async () => {
      // Who sends nothing does not notice: nobody may have met the last one.
      const least = 2 * Math.max(1, made - 1)
      await until(() => station.resets - resets >= least, signal)
      const seen = station.resets - resets
      const name = `${made} queue pairs sent to error, ${seen} ends connected anew`
      return [{ ok: made > 0 && seen >= least, name }]
    },
  }
}

/** A second peer is killed while our device writes to its memory; the first one does not notice. */
export const peerKilled: MakeTrouble = ({ plant, station, stage }, goal) => {
  const checks: Check[] = []
  const kill = async () => {
    const victim = await Victim.open(plant, station, stage.run)
    try {
      const pair = stage.pairs[0]
      if (pair === undefined) return
      const { written, error } = await victim.killWhileWriting(pair.source, stage.layout)
      const code = (error as { code?: string } | null)?.code
      const name = `a peer killed after ${written} writes to it: ${code ?? 'nobody was told'}`
      checks.push({ ok: written > 0 && code !== undefined, name })
    } finally {
      await victim.close()
    }
  }
  return meanwhile(goal, 2, kill, () =>
    Promise.resolve(checks.length > 0 ? checks : [{ ok: false, name: 'no peer was killed' }]),
  )
}

/**
 * The kernel revokes a device's memory, of which a queue pair of its own has some,
 * and gives it back. Traffic elsewhere goes on meanwhile.
 */
export function memoryRevoked(bar: VfioBarExporter): MakeTrouble {
  return ({ station, stage: { tally, run } }, goal) => {
    const codes = new Set<string>()
    let [made, failed, wrong, elsewhere, resets] = [0, 0, 0, 0, 0]
    let isRefused = true
    let revocable: Promise<Revocable> | null = null
    const revoke = async (victim: Revocable) => {
      const before = station.resetsBeside(victim.queues)
      wrong += (await written(victim)) ? 0 : 1
      {
        const round = await victim.fillUntilTaken(() => bar.switchOff())
        await using off = round.taken
        for (const error of round.errors) codes.add((error as { code?: string }).code ?? 'none')
        failed += round.errors.length
        isRefused &&= await refuses(victim)
        const { bytesVerified } = tally.counts
        if (await until(() => tally.counts.bytesVerified > bytesVerified, run.signal)) elsewhere++
        await off.on()
        await victim.remap()
        wrong += await victim.countWrong(round)
      }
      wrong += (await written(victim)) ? 0 : 1
      resets += station.resetsBeside(victim.queues) - before
      made++
    }
    return {
      before: async (move) => {
        if (!isTroubled(move, goal, 2)) return
        revocable ??= station
          .ends()
          .then((ends) => Revocable.open(bar, ends, { tally, pacer: run.pacer }))
        await revoke(await revocable)
      },
      end: async () => {
        await (await revocable)?.close()
        const all = [...codes].join(', ')
        return [
          {
            ok: made > 0 && failed >= made && all === 'EFAULT' && isRefused,
            name: `${made} times the memory was revoked and ${failed} writes to it failed: ${all}`,
          },
          {
            ok: elsewhere === made && resets === 0,
            name: `${elsewhere} times traffic elsewhere went on, ${resets} queue pairs there connected anew`,
          },
          { ok: wrong === 0, name: `mapped again, ${wrong} blocks were not as they should be` },
        ]
      },
    }
  }
}

/** Every block, and byte for byte. */
async function written(victim: Revocable): Promise<boolean> {
  const round = await victim.fill()
  return round.errors.length === 0 && (await victim.countWrong(round)) === 0
}

/** Whether the CPU is told that there is no memory, instead of touching it. */
async function refuses({ buffer }: Revocable): Promise<boolean> {
  const refused = await buffer.withCpuAccess('r', () => null).catch((error: unknown) => error)
  return (refused as { code?: string } | null)?.code === 'ERR_INVALID_STATE'
}

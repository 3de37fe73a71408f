/**
 * Stateless model checking: runs a scenario again and again, each time with
 * another sequence of choices, until all were taken (depth first) or for a
 * number of random ones. A failure names the choices, which replay it.
 */
import { Loader, type Patch } from './loader.js'
import { Realm } from './realm.js'
import type { Chooser, Limits, World } from './scheduler.js'

export interface Exploration<Options> {
  /** The scenario's module, a path from the repository's root. */
  file: string
  /** The name it is exported by: `(world: World, options: Options) => void`. */
  scenario: string
  options: Options
  /** Actions that may come while microtasks are left. Default: any number. */
  preemptions?: number
  /** Default 5000. */
  maxSteps?: number
  /** Executions at most; past this, `complete` is false. Default 2,000,000. */
  maxExecutions?: number
  /** Faults put in on purpose. */
  patches?: readonly Patch[]
}

export interface Failure {
  message: string
  /** The choices; what follows the last is always 0. */
  schedule: number[]
  trace: string[]
  error: unknown
}

export interface Result {
  executions: number
  steps: number
  /** Whether every interleaving within the bounds was run. */
  complete: boolean
  failure: Failure | null
}

type Scenario<Options> = (world: World, options: Options) => void

/** Executions after which the modules are instantiated afresh. */
const RENEW = 5000

/** They count the moves of one turn of the loop, and would count those of all executions. */
const SHARED_BY_MOVES: Patch[] = ['allocations', 'exchanges'].map((name) => ({
  file: 'lib/move-notify/exporter/move.ts',
  find: `${name} = new SharedSlice(MOVES_PER_TURN)`,
  replace: `${name} = { next() {} }`,
}))

class Runner<Options> {
  readonly #exploration: Exploration<Options>
  readonly #realm = new Realm()
  readonly #loader: Loader
  #scenario: Scenario<Options>
  readonly #limits: Limits
  executions = 0
  steps = 0

  constructor(exploration: Exploration<Options>) {
    this.#exploration = exploration
    this.#loader = new Loader([...SHARED_BY_MOVES, ...(exploration.patches ?? [])])
    this.#scenario = this.#instantiate()
    this.#limits = {
      maxSteps: exploration.maxSteps ?? 5000,
      preemptions: exploration.preemptions ?? Infinity,
    }
  }

  #instantiate(): Scenario<Options> {
    const { file, scenario } = this.#exploration
    const start = this.#loader.load(file, this.#realm.globals)[scenario]
    if (typeof start !== 'function') throw new Error(`${file} exports no ${scenario}`)
    return start as Scenario<Options>
  }

  /** One execution; returns what it failed with, or null. */
  run(choose: Chooser, trace?: string[]): { error: unknown } | null {
    const scheduler = this.#realm.begin(this.#limits, trace !== undefined)
    // Module state, such as the quarantine, must not grow without end.
    if (++this.executions % RENEW === 0) this.#scenario = this.#instantiate()
    try {
      this.#scenario(scheduler, this.#exploration.options)
      scheduler.run(choose)
      return null
    } catch (error) {
      return { error }
    } finally {
      this.steps += scheduler.steps
      if (scheduler.trace !== null) trace?.push(...scheduler.trace)
    }
  }

  follow(schedule: readonly number[], trace?: string[]): { error: unknown } | null {
    let at = 0
    return this.run((count) => Math.min(schedule[at++] ?? 0, count - 1), trace)
  }

  result(complete: boolean, failed: number[] | null): Result {
    const { executions, steps } = this
    return {
      executions,
      steps,
      complete,
      failure: failed === null ? null : this.#describe(this.#shrink(failed)),
    }
  }

  /** Fewer choices other than 0 are easier to read. */
  #shrink(schedule: number[]): number[] {
    let best = trim(schedule)
    for (let at = best.length - 1; at >= 0; at--) {
      if ((best[at] ?? 0) === 0) continue
      const simpler = trim(best.with(at, 0))
      if (this.follow(simpler) !== null) best = simpler
    }
    return best
  }

  #describe(schedule: number[]): Failure {
    const trace: string[] = []
    const error = this.follow(schedule, trace)?.error
    const message = error instanceof Error ? error.message : String(error)
    return { message, schedule, trace: compact(trace), error }
  }
}

/** Runs every interleaving. */
export function explore<Options>(exploration: Exploration<Options>): Result {
  const runner = new Runner(exploration)
  const maximum = exploration.maxExecutions ?? 2_000_000
  const path: { choice: number; count: number }[] = []
  while (runner.executions < maximum) {
    let at = 0
    const failed = runner.run((count) => {
      const known = path[at++]
      if (known === undefined) {
        path.push({ choice: 0, count })
        return 0
      }
      if (known.count !== count) throw new Error(`choice ${at} differs between two executions`)
      return known.choice
    })
    if (failed !== null) {
      return runner.result(
        false,
        path.slice(0, at).map(({ choice }) => choice),
      )
    }
    let last = path.at(-1)
    while (last !== undefined && last.choice + 1 >= last.count) {
      path.pop()
      last = path.at(-1)
    }
    if (last === undefined) return runner.result(true, null)
    last.choice++
  }
  return runner.result(false, null)
}

/**
 * Runs `executions` interleavings drawn at random. `preemption` is how likely
 * an action comes before a microtask that is waiting.
 */
export function sample<Options>(
  exploration: Exploration<Options>,
  seed: number,
  executions: number,
  preemption = 0.2,
): Result {
  const runner = new Runner(exploration)
  const random = generator(seed)
  while (runner.executions < executions) {
    const schedule: number[] = []
    const failed = runner.run((count, microtask) => {
      const choice = microtask
        ? random() < preemption
          ? 1 + Math.floor(random() * (count - 1))
          : 0
        : Math.floor(random() * count)
      schedule.push(choice)
      return choice
    })
    if (failed !== null) return runner.result(false, schedule)
  }
  return runner.result(false, null)
}

/** Runs one schedule; returns its trace and what it failed with. */
export function replay<Options>(
  exploration: Exploration<Options>,
  schedule: readonly number[],
): { error: unknown; trace: string[] } {
  const trace: string[] = []
  const failed = new Runner(exploration).follow(schedule, trace)
  return { error: failed?.error ?? null, trace: compact(trace) }
}

/** A failure as text: what, how to see it again, and what happened. */
export function report({ message, schedule, trace }: Failure): string {
  return [message, `schedule: [${schedule.join(', ')}]`, ...trace].join('\n')
}

function trim(schedule: readonly number[]): number[] {
  return schedule.slice(0, schedule.findLastIndex((choice) => choice !== 0) + 1)
}

/** Puts a run of microtasks on one line. */
function compact(trace: readonly string[]): string[] {
  const lines: string[] = []
  for (const line of trace) {
    const last = lines.at(-1)
    if (line === '.' && last !== undefined && /^\.+$/.test(last)) lines[lines.length - 1] += '.'
    else lines.push(line)
  }
  return lines
}

/** mulberry32: small, seeded, good enough to pick choices. */
export function generator(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296
  }
}

/** What a scenario is, what it is given, and what comes of it. */
import type { Effect } from './effects.js'
import type { Placement } from './pair.js'
import type { SmokeStage } from './stage.js'

/** When a scenario has done enough: `moves` and `bytes`, or the time is over. */
export interface Goal {
  moves: number
  /** Distinct stamped bytes verified at least. */
  bytes: number
  /** `performance.now()` at which it ends. */
  endsAt: number
}

export interface Check {
  ok: boolean
  name: string
}

/** Bytes per second. */
export interface Throughput {
  steady: number
  underMoves: number
}

export interface Outcome {
  /** What must hold beside what holds for every scenario. */
  checks: Check[]
  throughput?: Throughput
  /** What it saw, for its line; asked when all has been counted. */
  saw?: () => string
}

export interface Scenario {
  name: string
  /** What it does outside of this process; played only where each has been asked for. */
  effects: readonly Effect[]
  /** Whose link, memory or whatever: `the link of eth1, four times`. */
  touches?: string
  /** Share of the run's moves and time. */
  share: number
  /** Share of the run's bytes. */
  bytesShare: number
  /** Pairs of buffers that it needs, given how many were asked for. */
  pairs: (asked: number) => number
  /** Moves come in multiples of this. */
  movesAtOnce: (pairs: number) => number
  /** Where its buffers are, where that is not as the options have it. */
  placements?: { source: Placement; target: Placement }
  /** Why it cannot be run here, and what would help. */
  skip?: string
  run: (stage: SmokeStage, goal: Goal) => Promise<Outcome>
}

/** Shares the run's moves, bytes and time out among the scenarios. */
import { P2pdmaError } from '../errors.js'
import type { SmokeOptions } from './options.js'
import { type Goal, type Scenario, scenarios } from './scenarios.js'

export interface Step {
  scenario: Scenario
  pairs: number
  goal: Goal
}

/** Scenarios for which too few moves are left are left out; the first gets what remains. */
export function plan(
  options: SmokeOptions,
  now: number,
  all: readonly Scenario[] = scenarios,
): Step[] {
  const { moves, seconds, bytes, buffers } = options
  let timeShare = 0
  const steps = all.map((scenario) => {
    const pairs = scenario.pairs(buffers)
    const atOnce = scenario.movesAtOnce(pairs)
    timeShare += scenario.share
    const goal: Goal = {
      moves: moves === null ? Infinity : Math.floor((moves * scenario.share) / atOnce) * atOnce,
      bytes: bytes * scenario.bytesShare,
      endsAt: seconds === null ? Infinity : now + seconds * 1000 * timeShare,
    }
    return { scenario, pairs, goal }
  })
  const first = steps[0]
  if (moves !== null && first !== undefined) {
    first.goal.moves += moves - steps.reduce((sum, { goal }) => sum + goal.moves, 0)
  }
  const kept = steps.filter(({ goal }) => goal.moves > 0)
  // What is left out leaves its bytes to the first, too.
  const left = bytes - kept.reduce((sum, { goal }) => sum + goal.bytes, 0)
  if (first !== undefined) first.goal.bytes += left
  return kept
}

/**
 * Throws ERR_OUT_OF_RANGE where the buffers, and the new backings of those that
 * move at once, do not fit into memory: shared memory that does not fit is no
 * error to the kernel, it ends some process instead (mm/oom_kill.c).
 */
export function checkMemory(
  options: SmokeOptions,
  available = process.availableMemory(),
  all: readonly Scenario[] = scenarios,
): void {
  const { size, buffers } = options
  const backings = plan(options, 0, all).map(
    ({ scenario, pairs }) => 2 * pairs + scenario.movesAtOnce(pairs),
  )
  const needed = size * Math.max(...backings)
  if (needed <= available) return
  const mebibytes = (bytes: number) => `${Math.floor(bytes / 2 ** 20)} MiB`
  throw new P2pdmaError(
    `${buffers} pairs of buffers of ${size} bytes need ${mebibytes(needed)}, ` +
      `and this machine has ${mebibytes(available)} to spare: a smaller --size or fewer --buffers`,
    { code: 'ERR_OUT_OF_RANGE', argument: 'size' },
  )
}

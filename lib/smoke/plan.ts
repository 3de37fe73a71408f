/** Shares the run's moves, bytes and time out among the scenarios. */
import { P2pdmaError } from '../errors.js'
import { ownBytes } from './memory.js'
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
  endsAt = now + (options.seconds ?? Infinity) * 1000,
): Step[] {
  const { moves, bytes, buffers } = options
  const shareOf = sharing(all.map(({ share }) => share))
  const bytesShareOf = sharing(all.map(({ bytesShare }) => bytesShare))
  let timeShare = 0
  const steps = all.map((scenario) => {
    const pairs = scenario.pairs(buffers)
    const atOnce = scenario.movesAtOnce(pairs)
    const share = shareOf(scenario.share)
    timeShare += share
    const goal: Goal = {
      moves: moves === null ? Infinity : Math.floor((moves * share) / atOnce) * atOnce,
      bytes: bytes * bytesShareOf(scenario.bytesShare),
      endsAt: endsAt === Infinity ? Infinity : now + (endsAt - now) * timeShare,
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

/** The least `moves` of which it would be given some, where all of these are played. */
export function leastMoves(
  scenario: Scenario,
  { buffers }: Pick<SmokeOptions, 'buffers'>,
  all: readonly Scenario[],
): number {
  const share = sharing(all.map((each) => each.share))(scenario.share)
  const atOnce = scenario.movesAtOnce(scenario.pairs(buffers))
  let moves = Math.ceil(atOnce / share)
  while (Math.floor((moves * share) / atOnce) < 1) moves++
  return moves
}

/** Of the whole, where some are not played. */
function sharing(shares: readonly number[]): (share: number) => number {
  const sum = shares.reduce((a, b) => a + b, 0)
  // What adds up to one but for rounding stays as it is.
  return (share) => (sum === 0 || Math.abs(sum - 1) < 1e-9 ? share : share / sum)
}

/** Of the buffers, and of the new backings of those that move at once. */
export function neededBytes(options: SmokeOptions, all: readonly Scenario[] = scenarios): number {
  const backings = plan(options, 0, all).map(
    ({ scenario, pairs }) => 2 * pairs + scenario.movesAtOnce(pairs),
  )
  return options.size * Math.max(0, ...backings)
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
  own = ownBytes(),
): void {
  const { size, buffers, maxMemory } = options
  const needed = neededBytes(options, all)
  const mebibytes = (bytes: number) => `${Math.max(0, Math.floor(bytes / 2 ** 20))} MiB`
  if (maxMemory !== null && needed > maxMemory - own) {
    throw new P2pdmaError(
      `${buffers} pairs of buffers of ${size} bytes need ${mebibytes(needed)}, and of ` +
        `--max-memory ${mebibytes(maxMemory)} the process takes ${mebibytes(own)}: ` +
        'a smaller --size or fewer --buffers',
      { code: 'ERR_OUT_OF_RANGE', argument: 'max-memory' },
    )
  }
  if (needed <= available) return
  throw new P2pdmaError(
    `${buffers} pairs of buffers of ${size} bytes need ${mebibytes(needed)}, ` +
      `and this machine has ${mebibytes(available)} to spare: a smaller --size or fewer --buffers`,
    { code: 'ERR_OUT_OF_RANGE', argument: 'size' },
  )
}

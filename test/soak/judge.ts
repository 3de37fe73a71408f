/**
 * Whether a figure grows with the moves: least-squares slopes, beside what their own
 * scatter says they may be off by.
 */

/** A line through points, in units of y for each of x. */
export interface Fit {
  slope: number
  /** The slope's standard error, from the points' distances to the line. */
  error: number
}

/** Three points at least: of fewer nothing says how far off they are. */
export const FEWEST = 3

export function fit(x: readonly number[], y: readonly number[]): Fit {
  const count = Math.min(x.length, y.length)
  const mean = (all: readonly number[]) => all.reduce((sum, each) => sum + each, 0) / count
  const [middle, level] = [mean(x), mean(y)]
  let spread = 0
  let together = 0
  for (let i = 0; i < count; i++) {
    spread += (x[i]! - middle) ** 2
    together += (x[i]! - middle) * (y[i]! - level)
  }
  if (count < FEWEST || spread === 0) return { slope: 0, error: Infinity }
  const slope = together / spread
  let off = 0
  for (let i = 0; i < count; i++) off += (y[i]! - level - slope * (x[i]! - middle)) ** 2
  return { slope, error: Math.sqrt(off / (count - 2) / spread) }
}

/** How many standard errors a slope must be above what is allowed: one in forty is by chance. */
const SURE = 2

/** What may be without being a leak. */
export interface Allowed {
  /** For each move: so little that it never matters. */
  eachMove: number
  /** Over all moves: what a process sets up for good, once, if late. */
  once: number
}

export interface Judgement {
  /** For each move, over all that is judged. */
  slope: number
  error: number
  grows: boolean
  /**
   * The least growth for each move that would mostly have been found: what is allowed, and
   * the errors of what says least, once to be sure and once to be seen.
   */
  resolution: number
}

/**
 * `moves`, `values`: the points after the warm-up. It grows where it does as a whole, in
 * the first half and in the second: a leak never stops, what is filled once does (a
 * table that doubles, the pages that V8 keeps, code that has become hot).
 */
export function judge(
  moves: readonly number[],
  values: readonly number[],
  { eachMove, once }: Allowed,
): Judgement {
  const half = Math.ceil(moves.length / 2)
  const part = (from: number, to: number) => fit(moves.slice(from, to), values.slice(from, to))
  const whole = part(0, moves.length)
  // Both have the point in the middle.
  const parts = [whole, part(0, half), part(half - 1, moves.length)]
  const length = moves.at(-1)! - moves[0]!
  const isSure = parts.every(({ slope, error }) => slope - SURE * error > eachMove)
  const grows = isSure && whole.slope * length > once
  const worst = Math.max(...parts.map(({ error }) => error))
  const resolution = Math.max(eachMove + 2 * SURE * worst, once / length)
  return { ...whole, grows, resolution }
}

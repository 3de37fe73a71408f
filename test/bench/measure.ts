/** Figures and their spread. Times vary between runs: what is compared is measured in pairs. */

export interface Result {
  name: string
  parameters: Record<string, number | string>
  unit: string
  median: number
  /** First and third quartile. */
  spread: [number, number]
}

export interface Ratio extends Result {
  unit: 'ratio'
  /** What each side costs, in `sideUnit`. */
  sides: [number, number]
  sideUnit: string
}

export function quantile(sorted: ArrayLike<number>, q: number): number {
  const at = (sorted.length - 1) * q
  const low = sorted[Math.floor(at)] ?? NaN
  const high = sorted[Math.ceil(at)] ?? NaN
  return low + (high - low) * (at - Math.floor(at))
}

function summary(samples: readonly number[]): Pick<Result, 'median' | 'spread'> {
  const sorted = samples.toSorted((a, b) => a - b)
  return {
    median: quantile(sorted, 0.5),
    spread: [quantile(sorted, 0.25), quantile(sorted, 0.75)],
  }
}

export function result(
  name: string,
  unit: string,
  samples: readonly number[],
  parameters: Result['parameters'] = {},
): Result {
  return { name, parameters, unit, ...summary(samples) }
}

type Measure = () => number | Promise<number>

/**
 * Measures A and B in turns, the first of each pair alternating, and gives the
 * median of the pairs' ratios. One pair beforehand is thrown away.
 */
export async function pairs(
  name: string,
  count: number,
  sideUnit: string,
  a: Measure,
  b: Measure,
  parameters: Result['parameters'] = {},
): Promise<Ratio> {
  const samples: [number, number][] = []
  for (let i = -1; i < count; i++) {
    const first = i % 2 === 0 ? await a() : await b()
    const second = i % 2 === 0 ? await b() : await a()
    if (i >= 0) samples.push(i % 2 === 0 ? [first, second] : [second, first])
  }
  return ratioOf(name, sideUnit, samples, parameters)
}

/** The ratio of pairs that were measured elsewhere. */
export function ratioOf(
  name: string,
  sideUnit: string,
  samples: readonly (readonly [number, number])[],
  parameters: Result['parameters'],
): Ratio {
  const side = (index: 0 | 1) => summary(samples.map((pair) => pair[index])).median
  return {
    name,
    parameters: { pairs: samples.length, ...parameters },
    unit: 'ratio',
    ...summary(samples.map(([a, b]) => a / b)),
    sides: [side(0), side(1)],
    sideUnit,
  }
}

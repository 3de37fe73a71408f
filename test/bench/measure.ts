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

export function quantile(sorted: readonly number[], q: number): number {
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
  const samplesA: number[] = []
  const samplesB: number[] = []
  for (let i = -1; i < count; i++) {
    let sampleA: number
    let sampleB: number
    if (i % 2 === 0) {
      sampleA = await a()
      sampleB = await b()
    } else {
      sampleB = await b()
      sampleA = await a()
    }
    if (i < 0) continue
    samplesA.push(sampleA)
    samplesB.push(sampleB)
  }
  const ratios = samplesA.map((sample, i) => sample / (samplesB[i] ?? NaN))
  return {
    name,
    parameters: { pairs: count, ...parameters },
    unit: 'ratio',
    ...summary(ratios),
    sides: [summary(samplesA).median, summary(samplesB).median],
    sideUnit,
  }
}

/** How long the stops kept gates closed: counted by length, so that a run of a day keeps no more than a short one. */
import { createHistogram, type RecordableHistogram } from 'node:perf_hooks'

export interface Quantiles {
  p50: number | null
  p99: number | null
  max: number | null
}

/** To the microsecond up to 2 ms, to one in a thousand beyond. */
const FIGURES = 3
/** The longest that is told apart: twelve days. */
const LONGEST_US = 2 ** 40

export class Pauses {
  readonly #us: RecordableHistogram = createHistogram({
    ...{ lowest: 1, highest: LONGEST_US, figures: FIGURES },
  })
  #maxMs = 0

  /** One pause, ms. */
  record(ms: number): void {
    this.#us.record(Math.min(LONGEST_US, Math.max(1, Math.round(ms * 1000))))
    this.#maxMs = Math.max(this.#maxMs, ms)
  }

  add(other: Pauses): void {
    this.#us.add(other.#us)
    this.#maxMs = Math.max(this.#maxMs, other.#maxMs)
  }

  /** Of the pauses, ms; nulls where there was none. The quantiles are the nearest ranks. */
  quantiles(): Quantiles {
    if (this.#us.count === 0) return { p50: null, p99: null, max: null }
    const at = (percent: number) => Math.min(this.#us.percentile(percent) / 1000, this.#maxMs)
    return { p50: at(50), p99: at(99), max: this.#maxMs }
  }
}

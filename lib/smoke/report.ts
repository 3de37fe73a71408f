/** The report: the JSON object of `--json`, see smoke.schema.json. */
import type { Axes } from './axes.js'
import type { Environment } from './environment.js'
import type { FaultName, SmokeOptions } from './options.js'
import type { Throughput } from './scenarios.js'
import { type Counts, type Quantiles, quantiles, type Tally } from './tally.js'
import type { ExporterReport } from './witness.js'

export interface ScenarioReport extends Counts {
  name: string
  ok: boolean
  pauseMs: Quantiles
  throughput: Throughput | null
  durationMs: number
  /** The first few errors. */
  errors: string[]
}

export interface SmokeReport extends Counts {
  ok: boolean
  /** Ended by a signal: the figures are of what was done so far. */
  interrupted: boolean
  /** Why it could not be run to its end; null where it was, or was interrupted. */
  error: string | null
  engine: string
  exporters: ExporterReport[]
  /** How each RDMA device takes each exporter's memory; empty for other engines. */
  axes: readonly Axes[]
  /** Of each buffer, bytes. */
  size: number
  /** Pairs of a source and a target. */
  buffers: number
  seed: number
  /** The fault that was made on purpose. */
  inject: FaultName | null
  /** Of our devices; null where there is no IOMMU to judge, or its log cannot be read. */
  dmaFaults: number | null
  pauseMs: Quantiles
  /** Null where the scenario that measures it did not run to its end. */
  throughput: Throughput | null
  durationMs: number
  scenarios: ScenarioReport[]
  environment: Environment
}

export function scenarioReport(
  name: string,
  ok: boolean,
  tally: Tally,
  throughput: Throughput | null,
  durationMs: number,
): ScenarioReport {
  return {
    name,
    ok,
    ...tally.counts,
    pauseMs: rounded(quantiles(tally.pausesMs)),
    throughput,
    durationMs: Math.round(durationMs),
    errors: tally.errors,
  }
}

export function smokeReport(
  options: SmokeOptions,
  environment: Environment,
  exporters: ExporterReport[],
  axes: readonly Axes[],
  total: Tally,
  scenarios: ScenarioReport[],
  state: Pick<SmokeReport, 'ok' | 'interrupted' | 'error' | 'durationMs' | 'dmaFaults'>,
): SmokeReport {
  return {
    ok: state.ok,
    interrupted: state.interrupted,
    error: state.error,
    engine: options.engine,
    exporters,
    axes,
    size: options.size,
    buffers: options.buffers,
    seed: options.seed,
    inject: options.inject,
    ...total.counts,
    dmaFaults: state.dmaFaults,
    pauseMs: rounded(quantiles(total.pausesMs)),
    throughput: scenarios.find((each) => each.throughput !== null)?.throughput ?? null,
    durationMs: Math.round(state.durationMs),
    scenarios,
    environment,
  }
}

function rounded({ p50, p99, max }: Quantiles): Quantiles {
  const micro = (ms: number | null) => (ms === null ? null : Math.round(ms * 1000) / 1000)
  return { p50: micro(p50), p99: micro(p99), max: micro(max) }
}

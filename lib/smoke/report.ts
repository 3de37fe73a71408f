/** The report: the JSON object of `--json`, see smoke.schema.json. */
import type { Recovered } from '../kernel/undo/journal.js'
import type { DeviceAxes } from './axes.js'
import type { Effect } from './effects.js'
import type { Environment } from './environment.js'
import type { KernelLogReport } from './kernel-watch.js'
import type { FaultName, SmokeOptions } from './options.js'
import type { Quantiles } from './pauses.js'
import type { Planned } from './planned.js'
import type { Scenario, Throughput } from './scenarios.js'
import type { RunCounts, Tally } from './tally.js'
import type { ExporterReport } from './kernel-view.js'

export interface ScenarioReport extends RunCounts {
  name: string
  ok: boolean
  /** What it does outside of the process. */
  effects: Effect[]
  pauseMs: Quantiles
  throughput: Throughput | null
  durationMs: number
  /** The first few errors. */
  errors: string[]
}

/** A scenario that was not played. */
export interface SkippedReport {
  name: string
  /** Why, and what would help. */
  reason: string
  effects: Effect[]
}

export interface SmokeReport extends RunCounts {
  ok: boolean
  /** Ended by a signal: the figures are of what was done so far. */
  interrupted: boolean
  /** Why it could not be run to its end; null where it was, or was interrupted. */
  error: string | null
  /** Why nothing can be tested here, and what would help; null where something was, or an error came. */
  untestable: string | null
  engine: string
  /** By what VFIO devices' memory was mapped; null for other engines. */
  iommu: 'type1' | 'iommufd' | null
  exporters: ExporterReport[]
  /** How each RDMA device takes each exporter's memory; empty for other engines. */
  axes: readonly DeviceAxes[]
  /** Of each buffer, bytes. */
  size: number
  /** Pairs of a source and a target. */
  buffers: number
  seed: number
  /** The fault that was to be made on purpose. */
  inject: FaultName | null
  /** How many were made, by the device's own count; of a run with `inject`, none is a failure. */
  injected: number
  /** Of our devices; null where there is no IOMMU to judge, or its log cannot be read. */
  dmaFaults: number | null
  pauseMs: Quantiles
  /** Null where the scenario that measures it did not run to its end. */
  throughput: Throughput | null
  durationMs: number
  scenarios: ScenarioReport[]
  skipped: SkippedReport[]
  /** Said before it began. */
  planned: Planned
  /** The most that the process had in memory at any time, bytes. */
  peakMemoryBytes: number
  /** What the kernel complained of meanwhile. */
  kernelLog: KernelLogReport
  /** What runs before this one had left changed. */
  putBack: Recovered[]
  environment: Environment
}

interface Found {
  iommu: SmokeReport['iommu']
  exporters: ExporterReport[]
  axes: readonly DeviceAxes[]
  planned: Planned
  putBack: Recovered[]
  total: Tally
  scenarios: ScenarioReport[]
  skipped: SkippedReport[]
  kernelLog: KernelLogReport
  peakMemory: number
  injected: number
  state: Pick<
    SmokeReport,
    'ok' | 'interrupted' | 'error' | 'untestable' | 'durationMs' | 'dmaFaults'
  >
}

export function scenarioReport(
  { name, effects }: Pick<Scenario, 'name' | 'effects'>,
  ok: boolean,
  tally: Tally,
  throughput: Throughput | null,
  durationMs: number,
): ScenarioReport {
  return {
    name,
    ok,
    effects: [...effects],
    ...tally.counts,
    pauseMs: rounded(tally.pauses.quantiles()),
    throughput,
    durationMs: Math.round(durationMs),
    errors: tally.errors,
  }
}

export function smokeReport(
  options: SmokeOptions,
  environment: Environment,
  found: Found,
): SmokeReport {
  const { exporters, axes, total, scenarios, state } = found
  return {
    ok: state.ok,
    interrupted: state.interrupted,
    error: state.error,
    untestable: state.untestable,
    engine: options.engine,
    iommu: found.iommu,
    exporters,
    axes,
    size: options.size,
    buffers: options.buffers,
    seed: options.seed,
    inject: options.inject,
    injected: found.injected,
    ...total.counts,
    dmaFaults: state.dmaFaults,
    pauseMs: rounded(total.pauses.quantiles()),
    throughput: scenarios.find((each) => each.throughput !== null)?.throughput ?? null,
    durationMs: Math.round(state.durationMs),
    scenarios,
    skipped: found.skipped,
    planned: found.planned,
    peakMemoryBytes: found.peakMemory,
    kernelLog: found.kernelLog,
    putBack: found.putBack,
    environment,
  }
}

function rounded({ p50, p99, max }: Quantiles): Quantiles {
  const micro = (ms: number | null) => (ms === null ? null : Math.round(ms * 1000) / 1000)
  return { p50: micro(p50), p99: micro(p99), max: micro(max) }
}

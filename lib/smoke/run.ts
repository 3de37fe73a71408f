/** Runs the scenarios and reports: TAP as they end, and the whole as one object. */
import { describeRecovered, type UndoJournal } from '../kernel/undo/journal.js'
import { type Effect, whyUnasked } from './effects.js'
import { environment } from './environment.js'
import { KernelWatch } from './kernel-watch.js'
import { MemoryCap, peakMemory } from './memory.js'
import { findExporters, openAll, type Opened } from './opening.js'
import type { SmokeOptions } from './options.js'
import { Pacer } from './pacer.js'
import { describePlanned, planned } from './planned.js'
import type { Plant } from './plant.js'
import { describeRun, preface } from './preface.js'
import { type SmokeReport, smokeReport } from './report.js'
import type { Scenario } from './scenarios.js'
import { Session, type SmokeOutput } from './session.js'
import type { Run } from './stage.js'
import { NOT_STAMPED, Stamps } from './stamp.js'
import { describe, Tally } from './tally.js'
import type { TapWriter } from './tap.js'
import { TimeBound } from './time-bound.js'
import { isMissing } from './untestable.js'
import { Watchdog } from './watchdog.js'
import { type ExporterReport, KernelView } from './kernel-view.js'

export type { SmokeOutput }

export interface SmokeResult {
  report: SmokeReport
  /** Something hung: nothing was cleaned up, and the process has to be ended. */
  hung: boolean
}

/** How long a single step may take, ms, beside what its bytes take. */
const STEP_LIMIT_MS = 60_000
/** Slower than this no machine is, bytes per ms. */
const SLOWEST = 8192

export interface SmokeContext {
  /** Interrupts the run. */
  signal: AbortSignal
  /** What is changed outside of this process is noted there; the caller puts it back if the process ends. */
  journal: UndoJournal
  /** `performance.now()` from which `seconds` count; now by default. */
  since?: number
}

/** Opened before anything else, and closed after it. */
interface Guards {
  bound: TimeBound
  cap: MemoryCap
  watchdog: Watchdog
  kernel: KernelWatch
  pacer: Pacer
}

/**
 * Runs the smoke test. Rejects with ERR_INVALID_ARG_VALUE for an engine or
 * exporter that does not exist, and with ERR_OUT_OF_RANGE where the machine has
 * not the memory; whatever else goes wrong is in the report.
 */
export async function runSmoke(
  options: SmokeOptions,
  output: SmokeOutput,
  context: SmokeContext,
): Promise<SmokeResult> {
  const start = context.since ?? performance.now()
  const bound = new TimeBound(options.seconds, start)
  const { endsAt } = bound
  const guards: Guards = {
    bound,
    cap: new MemoryCap(options.maxMemory),
    watchdog: new Watchdog(STEP_LIMIT_MS + options.size / SLOWEST, { endsAt }),
    kernel: new KernelWatch(),
    pacer: new Pacer(options.maxGbps),
  }
  try {
    return await guarded(start, options, guards, output, context)
  } finally {
    for (const guard of [bound, guards.cap, guards.watchdog, guards.kernel]) guard.close()
    guards.pacer.release()
  }
}

async function guarded(
  start: number,
  options: SmokeOptions,
  guards: Guards,
  output: SmokeOutput,
  context: SmokeContext,
): Promise<SmokeResult> {
  const { watchdog, kernel, cap } = guards
  const { tap } = output
  const found = findExporters(options)
  const putBack = context.journal.recover()
  const opened = await openAll(options, found, watchdog)
  const { checked, plant } = opened
  let result: SmokeResult | null = null
  try {
    const scenarios = withConsent(plant?.scenarios ?? [], options.disruptive)
    const played = scenarios.filter(({ skip }) => skip === undefined)
    plant?.check(options, played)
    const here = environment()
    const will = planned(options, played, checked)
    tap.version()
    for (const each of putBack) tap.comment(describeRecovered(each))
    for (const line of preface(options, here, checked, plant)) tap.comment(line)
    if (plant !== null && opened.error === null) {
      const lines = [...describeRun(options, plant), ...describePlanned(will)]
      for (const line of lines) tap.comment(line)
    }
    const kernelView = new KernelView(checked.flatMap(({ exporter }) => exporter ?? []))
    const stamps = plant && new Stamps(plant.layOut(options.size), options.seed, plant.header)
    const session = sessionOf(
      options,
      opened,
      scenarios,
      { kernelView, stamps },
      guards,
      output,
      context,
    )
    let error = opened.error
    try {
      if (session !== null) await playUnder(session, watchdog)
    } catch (thrown) {
      error = thrown
    }
    error ??= cap.error
    if (!watchdog.isTripped)
      await closed(plant, watchdog).catch((late: unknown) => (error ??= late))
    const interrupted = context.signal.aborted
    const untestable = session === null && isMissing(error, checked) ? describe(error) : null
    const report = smokeReport(options, here, {
      iommu: plant?.iommu ?? null,
      exporters: kernelView.reports((placement) => stamps?.by(placement) ?? NOT_STAMPED),
      axes: plant?.axes ?? [],
      planned: will,
      putBack,
      total: session?.total() ?? new Tally(),
      scenarios: session?.reports ?? [],
      skipped: session?.skipped ?? [],
      kernelLog: kernel.report(),
      peakMemory: peakMemory(),
      injected: plant?.injected ?? 0,
      state: {
        ok: error === null && !interrupted && session?.isOk === true,
        interrupted,
        error: error === null || untestable !== null ? null : describe(error),
        untestable,
        dmaFaults: session?.conclusion?.dmaFaults ?? null,
        durationMs: performance.now() - start,
      },
    })
    conclude(tap, report)
    result = { report, hung: watchdog.isTripped }
    return result
  } finally {
    if (result === null) await closed(plant, watchdog)
  }
}

/** Null where there is nothing to be played. */
function sessionOf(
  options: SmokeOptions,
  { error, plant, system }: Opened,
  scenarios: readonly Scenario[],
  { kernelView, stamps }: { kernelView: KernelView; stamps: Stamps | null },
  { bound, cap, kernel, pacer, watchdog }: Guards,
  output: SmokeOutput,
  context: SmokeContext,
): Session | null {
  if (error !== null || plant === null || system === null || stamps === null) return null
  const signal = anyOf([context.signal, bound.signal, cap.signal])
  signal.addEventListener('abort', () => pacer.release(), { once: true })
  const { from, to: exporters } = system
  const run: Run = {
    ...{ options, plant, from, exporters, signal, pacer },
    ...{ stamps, watchdog, kernelView, journal: context.journal },
  }
  const limits = { bound, cap, kernel, interrupt: context.signal }
  return new Session(run, scenarios, limits, output)
}

async function playUnder(session: Session, watchdog: Watchdog): Promise<void> {
  watchdog.explain = session.explain
  const work = session.play()
  work.catch(() => {})
  await Promise.race([work, watchdog.hung])
}

async function closed(plant: Plant | null, watchdog: Watchdog): Promise<void> {
  if (plant !== null) await watchdog.race('closing the devices', plant.close())
}

/** Node 20.3 has AbortSignal.any(), which keeps what nobody else does from being collected. */
function anyOf(signals: readonly AbortSignal[]): AbortSignal {
  const abort = new AbortController()
  const onAbort = () => abort.abort()
  for (const signal of signals) {
    if (signal.aborted) onAbort()
    signal.addEventListener('abort', onAbort, { once: true })
  }
  return abort.signal
}

/** What nobody has asked for is left out, and says so. */
export function withConsent(all: readonly Scenario[], asked: readonly Effect[]): Scenario[] {
  return all.map((scenario) => {
    const unasked = whyUnasked(scenario.effects, asked)
    if (unasked === null) return scenario
    const { skip = '' } = scenario
    return { ...scenario, skip: skip === '' ? unasked : `${skip}; and ${unasked}` }
  })
}

/** Where the CPU has it mapped there is nothing to be said. */
function describeStamped({ name, stamped: { written, read } }: ExporterReport): string[] {
  if (written === 'mapping' || (written === null && read === null)) return []
  const who = (by: typeof read) =>
    by === 'engine' ? 'a device that has both mapped' : by === null ? 'nobody' : 'its exporter'
  const ways = `written there by ${who(written)}, read back by ${who(read)}`
  return [`stamps in ${name}, which the CPU has not mapped: ${ways}`]
}

function conclude(tap: TapWriter, report: SmokeReport): void {
  for (const line of report.exporters.flatMap(describeStamped)) tap.comment(line)
  const { bytesVerified, moves, lost, doubled, torn, strayWrites, seed } = report
  const summary =
    `${bytesVerified} bytes verified in ${moves} moves; ` +
    `${lost} lost, ${doubled} doubled, ${torn} torn, ${strayWrites} stray writes; seed ${seed}`
  if (report.untestable !== null) tap.skipAll(report.untestable)
  else if (report.error !== null) tap.bailOut(`${report.error}; ${summary}`)
  else if (report.interrupted) tap.bailOut(`interrupted; ${summary}`)
  else tap.comment(summary)
}

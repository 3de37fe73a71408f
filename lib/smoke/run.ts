/** Runs the scenarios and reports: TAP as they end, and the whole as one object. */
import { P2pdmaError } from '../errors.js'
import { exporterByName } from '../exporters/index.js'
import type { Exporter } from '../move-notify/backing.js'
import { environment, rigCommand } from './environment.js'
import { rotation, type SmokeOptions } from './options.js'
import { openPlant } from './open-plant.js'
import { plan, type Step } from './plan.js'
import type { Conclusion, Plant } from './plant.js'
import { preface } from './preface.js'
import { type ScenarioReport, scenarioReport, type SmokeReport, smokeReport } from './report.js'
import type { Check, Outcome } from './scenarios.js'
import { type Run, Stage } from './stage.js'
import { Stamps } from './stamp.js'
import { describe, Tally } from './tally.js'
import type { TapWriter } from './tap.js'
import { Watchdog } from './watchdog.js'
import { Witness } from './witness.js'

export interface SmokeOutput {
  tap: TapWriter
  /** Called a few times a second with one line. */
  progress?: ((line: string) => void) | undefined
}

export interface SmokeResult {
  report: SmokeReport
  /** Something hung: nothing was cleaned up, and the process has to be ended. */
  hung: boolean
}

/** How long a single step may take, ms, beside what its bytes take. */
const STEP_LIMIT_MS = 60_000
/** Slower than this no machine is, bytes per ms. */
const SLOWEST = 8192
const PROGRESS_MS = 250
/** Of all moves, those that meet work in flight, at least. */
const IN_FLIGHT_SHARE = 0.9
const JUDGED_MOVES = 50

/**
 * Runs the smoke test. Rejects with ERR_INVALID_ARG_VALUE for an engine or
 * exporter that does not exist, and with ERR_OUT_OF_RANGE where the machine has
 * not the memory; whatever else goes wrong is in the report.
 */
export async function runSmoke(
  options: SmokeOptions,
  output: SmokeOutput,
  signal: AbortSignal,
): Promise<SmokeResult> {
  const start = performance.now()
  const from = exporterByName(options.from)
  const exporters = rotation(options).map(exporterByName)
  const plant = await openPlant(options, { from, to: exporters })
  try {
    plant.check(options)
    return await run(start, { options, plant, from, exporters, signal }, output)
  } finally {
    await plant.close()
  }
}

async function run(
  start: number,
  given: Omit<Run, 'stamps' | 'watchdog' | 'witness'>,
  output: SmokeOutput,
): Promise<SmokeResult> {
  const { options, plant, exporters, signal } = given
  const { tap } = output
  const here = environment()
  tap.version()
  for (const line of preface(options, here, exporters, plant)) tap.comment(line)

  const watchdog = new Watchdog(STEP_LIMIT_MS + options.size / SLOWEST)
  const witness = new Witness(exporters)
  const stamps = new Stamps(plant.layOut(options.size), options.seed, plant.header)
  const session = new Session({ ...given, stamps, watchdog, witness }, output)
  let error: unknown = null
  let hung = false
  try {
    const work = session.play()
    work.catch(() => {})
    await Promise.race([work, watchdog.hung])
  } catch (thrown) {
    error = thrown
    hung = (thrown as P2pdmaError).code === 'ETIMEDOUT' && watchdog.isTripped
  } finally {
    watchdog.close()
  }
  const state = {
    ok: error === null && !signal.aborted && session.isOk,
    interrupted: signal.aborted,
    error: error === null ? null : describe(error),
    dmaFaults: session.conclusion?.dmaFaults ?? null,
    durationMs: performance.now() - start,
  }
  const exporterReports = witness.reports
  const [total, scenarios] = [session.total(), session.reports]
  const { axes = [] } = plant
  const report = smokeReport(options, here, exporterReports, axes, total, scenarios, state)
  conclude(tap, report)
  return { report, hung }
}

function conclude(tap: TapWriter, report: SmokeReport): void {
  const { bytesVerified, moves, lost, doubled, torn, strayWrites, seed } = report
  const summary =
    `${bytesVerified} bytes verified in ${moves} moves; ` +
    `${lost} lost, ${doubled} doubled, ${torn} torn, ${strayWrites} stray writes; seed ${seed}`
  if (report.error !== null) tap.bailOut(`${report.error}; ${summary}`)
  else if (report.interrupted) tap.bailOut(`interrupted; ${summary}`)
  else tap.comment(summary)
}

class Session {
  readonly reports: ScenarioReport[] = []
  /** Whether every test so far was. */
  isOk = true
  /** Of the devices; null before the end, and where there is nothing to say. */
  conclusion: Conclusion | null = null
  readonly #run: Run
  readonly #output: SmokeOutput
  readonly #done = new Tally()
  #stage: Stage | null = null

  constructor(run: Run, output: SmokeOutput) {
    this.#run = run
    this.#output = output
  }

  /** What has been counted so far. */
  total(): Tally {
    const total = new Tally()
    total.add(this.#done)
    if (this.#stage !== null) total.add(this.#stage.tally)
    return total
  }

  async play(): Promise<void> {
    for (const exporter of this.#run.exporters) await checkExporter(exporter)
    const { options, plant } = this.#run
    const skipped = plant.scenarios.filter(({ skip }) => skip !== undefined)
    const played = plant.scenarios.filter(({ skip }) => skip === undefined)
    const steps = plan(options, performance.now(), played)
    this.#output.tap.plan(skipped.length + steps.length + (plant.concludes ? 2 : 1))
    for (const { name, skip = '' } of skipped) this.#output.tap.skip(name, skip)
    for (const [index, step] of steps.entries()) {
      if (this.#run.signal.aborted) return
      await this.#play(step, index, `${index + 1}/${steps.length}`)
    }
    if (this.#run.signal.aborted) return
    this.#checkPower()
    await this.#conclude(plant)
  }

  async #conclude(plant: Plant): Promise<void> {
    const closing = plant.conclude()
    this.conclusion = await this.#run.watchdog.over('closing the devices', closing)
    if (this.conclusion === null) return
    const { ok, name } = this.conclusion.check
    this.isOk &&= ok
    this.#output.tap.test(ok, name)
  }

  /**
   * A run whose moves met no work would prove nothing. Of few moves the share
   * says little, and small buffers are done before a move begins: there it is
   * told, not judged.
   */
  #checkPower(): void {
    const { moves, movesWithWorkInFlight } = this.#done.counts
    const met = `work was in flight on the buffer at ${movesWithWorkInFlight} of ${moves} moves`
    const { options, plant } = this.#run
    const judged = moves >= JUDGED_MOVES && options.size >= plant.judgedSize
    const ok = !judged || movesWithWorkInFlight >= IN_FLIGHT_SHARE * moves
    const rule = judged
      ? '9 of 10 are needed'
      : `not judged below ${JUDGED_MOVES} moves or --size ${plant.judgedSize}`
    this.isOk &&= ok
    this.#output.tap.test(ok, `${met}; ${rule}`)
  }

  async #play(step: Step, index: number, ordinal: string): Promise<void> {
    const { scenario, pairs, goal } = step
    const start = performance.now()
    const stage = await Stage.open(this.#run, index, pairs, scenario)
    this.#stage = stage
    const stopProgress = this.#showProgress(`${ordinal} ${scenario.name}`, stage, goal.moves)
    let outcome: Outcome = { checks: [] }
    let error: unknown = null
    try {
      outcome = await scenario.run(stage, goal)
      await stage.check()
    } catch (thrown) {
      error = thrown
    } finally {
      await stage.close()
      stopProgress()
    }
    const checks = [...outcome.checks, ...this.#commonChecks(stage.tally, error)]
    const ok = checks.every((check) => check.ok)
    const report = scenarioReport(
      scenario.name,
      ok,
      stage.tally,
      outcome.throughput ?? null,
      performance.now() - start,
    )
    this.reports.push(report)
    this.isOk &&= ok
    this.#done.add(stage.tally)
    this.#stage = null
    this.#write(report, checks, outcome.saw?.())
  }

  #commonChecks(tally: Tally, error: unknown): Check[] {
    const { counts } = tally
    const none = (count: number, what: string) => ({ ok: count === 0, name: `${count} ${what}` })
    const checks = [
      { ok: counts.bytesVerified > 0, name: `${counts.bytesVerified} distinct bytes verified` },
      none(counts.lost, 'lost'),
      none(counts.doubled, 'doubled'),
      none(counts.torn, 'torn'),
      none(counts.strayWrites, 'stray writes'),
      none(counts.failedOperations, 'operations failed'),
      none(counts.failedMoves, 'moves failed'),
    ]
    if (error !== null) checks.push({ ok: false, name: describe(error) })
    if (this.#run.signal.aborted) checks.push({ ok: false, name: 'not interrupted' })
    return checks
  }

  #write(report: ScenarioReport, checks: readonly Check[], saw: string | undefined): void {
    const { tap } = this.#output
    const title = saw === undefined ? report.name : `${report.name}: ${saw}`
    const subtest = tap.subtest(title)
    for (const { ok, name } of checks) subtest.test(ok, name)
    subtest.plan(checks.length)
    const { name: _, ok, ...figures } = report
    tap.test(ok, title, figures)
  }

  #showProgress(title: string, stage: Stage, moves: number): () => void {
    const { progress } = this.#output
    if (progress === undefined) return () => {}
    const timer = setInterval(() => {
      const { counts } = stage.tally
      const of = Number.isFinite(moves) ? ` of ${moves}` : ''
      const mebibytes = Math.round(counts.bytesVerified / 2 ** 20)
      progress(`${title}: ${counts.moves}${of} moves, ${mebibytes} MiB verified`)
    }, PROGRESS_MS)
    return () => {
      clearInterval(timer)
      progress('')
    }
  }
}

/** Whether this machine has it: says so before anything else is tried. */
async function checkExporter(exporter: Exporter): Promise<void> {
  try {
    const backing = await exporter.allocate(1)
    await backing.free()
  } catch (cause) {
    throw new P2pdmaError(`exporter ${exporter.placement} cannot be used: ${describe(cause)}`, {
      code: (cause as P2pdmaError).code ?? 'ERR_UNSUPPORTED',
      hint: `or a kernel that has it, in a virtual machine: ${rigCommand()} p2pdma smoke ...`,
      cause,
    })
  }
}

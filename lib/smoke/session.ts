/** One run: plays the scenarios one after the other, and reports each. */
import { type Effect, elsewhere } from './effects.js'
import { checkFault } from './fault-check.js'
import type { KernelWatch } from './kernel-watch.js'
import { type MemoryCap, mebibytes, peakMemory } from './memory.js'
import { leastMoves, plan, type Step } from './plan.js'
import type { Conclusion, Plant } from './plant.js'
import { type ScenarioReport, scenarioReport, type SkippedReport } from './report.js'
import type { Check, Outcome, Scenario } from './scenarios.js'
import { type Run, SmokeStage } from './stage.js'
import { describe, Tally } from './tally.js'
import type { TapWriter } from './tap.js'
import type { TimeBound } from './time-bound.js'

export interface SmokeOutput {
  tap: TapWriter
  /** Called a few times a second with one line. */
  progress?: ((line: string) => void) | undefined
}

/** What ends a run, and what is asked at its end. */
export interface SessionEnds {
  bound: TimeBound
  cap: MemoryCap
  kernel: KernelWatch
  /** Of the caller. */
  interrupt: AbortSignal
}

const PROGRESS_MS = 250
/** Of all moves, those that meet work in flight, at least. */
const IN_FLIGHT_SHARE = 0.9
const JUDGED_MOVES = 50

export class Session {
  readonly reports: ScenarioReport[] = []
  /** Whether every test so far was. */
  isOk = true
  /** Of the devices; null before the end, and where there is nothing to say. */
  conclusion: Conclusion | null = null
  readonly skipped: SkippedReport[] = []
  readonly #run: Run
  readonly #scenarios: readonly Scenario[]
  readonly #limits: SessionEnds
  readonly #output: SmokeOutput
  readonly #done = new Tally()
  #stage: SmokeStage | null = null

  /** `scenarios`: all of them, those with a reason not to be played too. */
  constructor(run: Run, scenarios: readonly Scenario[], limits: SessionEnds, output: SmokeOutput) {
    this.#run = run
    this.#scenarios = scenarios
    this.#limits = limits
    this.#output = output
  }

  /** What has been counted so far. */
  total(): Tally {
    const total = new Tally()
    total.add(this.#done)
    if (this.#stage !== null) total.add(this.#stage.tally)
    return total
  }

  /** What may be behind it that something hangs; null where nothing is known. */
  readonly explain = (): string | null => {
    const resets = this.#stage?.station.resets ?? 0
    if (resets === 0) return null
    return `queue pairs or devices were reset ${resets} times in this scenario, and little or nothing got through between`
  }

  /** Ends early when the caller, or too much memory, ends it; when the time is over, in good order. */
  async play(): Promise<void> {
    const { options, plant } = this.#run
    const { bound } = this.#limits
    const played = this.#scenarios.filter(({ skip }) => skip === undefined)
    const steps = plan(options, performance.now(), played, bound.workEndsAt)
    const skipped = [
      ...this.#scenarios.flatMap(({ name, skip, effects }) =>
        skip === undefined ? [] : { name, effects: [...effects], reason: skip },
      ),
      ...this.#tooFew(played, steps),
      ...elsewhere(options.disruptive, this.#scenarios),
    ]
    const sometimes = [plant.concludes, options.maxMemory !== null, options.inject !== null]
    const atTheEnd = 2 + sometimes.filter((each) => each).length
    this.#output.tap.plan(skipped.length + steps.length + atTheEnd)
    for (const { name, reason, effects } of skipped) this.#skip(name, reason, effects)
    for (const [index, step] of steps.entries()) {
      if (this.#isEnded) return
      const { name, effects } = step.scenario
      if (bound.isOver) this.#skip(name, noTimeFor(this.#run), effects)
      else await this.#play(step, index, `${index + 1}/${steps.length}`)
    }
    if (this.#isEnded) return
    this.#checkPower()
    this.#checkFault()
    await this.#conclude(plant)
    this.#checkMemory()
    this.#checkKernel()
  }

  /** Those for which no move is left. */
  #tooFew(played: readonly Scenario[], steps: readonly Step[]): SkippedReport[] {
    const { options } = this.#run
    const kept = new Set(steps.map(({ scenario }) => scenario))
    return played
      .filter((scenario) => !kept.has(scenario))
      .map((scenario) => ({
        name: scenario.name,
        reason: `too few moves for it: --moves ${leastMoves(scenario, options, played)}`,
        effects: [...scenario.effects],
      }))
  }

  get #isEnded(): boolean {
    const { interrupt, cap } = this.#limits
    return interrupt.aborted || cap.signal.aborted
  }

  #skip(name: string, reason: string, effects: readonly Effect[]): void {
    this.skipped.push({ name, reason, effects: [...effects] })
    this.#output.tap.skip(name, reason)
  }

  #test(ok: boolean, name: string): void {
    this.isOk &&= ok
    this.#output.tap.test(ok, name)
  }

  #checkFault(): void {
    const { options, plant } = this.#run
    if (options.inject === null) return
    const { ok, name } = checkFault(options.inject, plant.injected, this.#done.counts)
    this.#test(ok, name)
  }

  #checkMemory(): void {
    const { maxMemory } = this.#run.options
    if (maxMemory === null) return
    const name = `${mebibytes(peakMemory())} of memory at most, of ${mebibytes(maxMemory)}`
    this.#test(this.#limits.cap.error === null, name)
  }

  #checkKernel(): void {
    const name = 'the kernel had nothing to complain of'
    const { complaints, lost, unreadable } = this.#limits.kernel.report()
    if (complaints === null) return this.#output.tap.skip(name, `its log: ${unreadable ?? ''}`)
    const missed = lost > 0 ? `; ${lost} records were lost before they were read` : ''
    if (complaints.length === 0) return this.#test(true, `${name}${missed}`)
    this.#test(false, `the kernel complained: ${complaints.join('; ')}${missed}`)
  }

  async #conclude(plant: Plant): Promise<void> {
    const closing = plant.conclude()
    this.conclusion = await this.#run.watchdog.over('closing the devices', closing)
    if (this.conclusion === null) return
    const { ok, name } = this.conclusion.check
    this.#test(ok, name)
  }

  /**
   * A run whose moves met no work would prove nothing. Of few moves the share
   * says little, and small buffers are done before a move begins: there it is
   * told, and not judged: a skip.
   */
  #checkPower(): void {
    const { moves, movesWithWorkInFlight } = this.#done.counts
    const met = `work was in flight on the buffer at ${movesWithWorkInFlight} of ${moves} moves`
    const { options, plant } = this.#run
    const isPaced = options.maxGbps !== null
    const judged = moves >= JUDGED_MOVES && options.size >= plant.judgedSize && !isPaced
    if (moves === 0) return this.#test(false, 'no buffer has moved')
    if (judged) {
      const isMet = movesWithWorkInFlight >= IN_FLIGHT_SHARE * moves
      return this.#test(isMet, `${met}; 9 of 10 are needed`)
    }
    const rule = `not judged below ${JUDGED_MOVES} moves or --size ${plant.judgedSize}, or with --max-gbps`
    this.#output.tap.skip(met, rule)
  }

  async #play(step: Step, index: number, ordinal: string): Promise<void> {
    const { scenario, pairs, goal } = step
    const start = performance.now()
    const stage = await SmokeStage.open(this.#run, index, pairs, scenario)
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
    const { bytesVerified } = stage.tally.counts
    const arrived = { ok: bytesVerified > 0, name: `${bytesVerified} distinct bytes verified` }
    const nothingWrong = this.#nothingWrong(stage.tally, error)
    const checks = [...outcome.checks, arrived, ...nothingWrong]
    const ok = checks.every((check) => check.ok)
    const isClean = nothingWrong.every((check) => check.ok)
    if (isClean && this.#limits.bound.isOver && stage.tally.counts.moves === 0) {
      // Begun, and over before anything had moved.
      this.#done.add(stage.tally)
      this.#stage = null
      return this.#skip(scenario.name, noTimeFor(this.#run), scenario.effects)
    }
    const report = scenarioReport(
      scenario,
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
    this.#limits.kernel.look()
    // The next one would meet the same, and take its time for it.
    if (stage.tally.fatal !== null) throw stage.tally.fatal
  }

  #nothingWrong(tally: Tally, error: unknown): Check[] {
    const { counts } = tally
    const none = (count: number, what: string) => ({ ok: count === 0, name: `${count} ${what}` })
    const checks = [
      none(counts.lost, 'lost'),
      none(counts.doubled, 'doubled'),
      none(counts.torn, 'torn'),
      none(counts.strayWrites, 'stray writes'),
      none(counts.failedOperations, 'operations failed'),
      none(counts.failedMoves, 'moves failed'),
    ]
    if (error !== null) checks.push({ ok: false, name: describe(error) })
    if (this.#isEnded) checks.push({ ok: false, name: 'not interrupted' })
    return checks
  }

  #write(report: ScenarioReport, checks: readonly Check[], saw: string | undefined): void {
    const { tap } = this.#output
    const title = saw === undefined ? report.name : `${report.name}: ${saw}`
    const subtest = tap.subtest(title, checks.length)
    for (const { ok, name } of checks) subtest.test(ok, name)
    const { name: _, ok, ...figures } = report
    tap.test(ok, title, figures)
  }

  #showProgress(title: string, stage: SmokeStage, moves: number): () => void {
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

function noTimeFor({ options }: Run): string {
  return `no time was left: --seconds ${options.seconds}`
}

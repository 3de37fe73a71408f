/**
 * `npm run test:soak -- [--moves N] [--engine NAME]`: moves under load for as long as that
 * takes, and what the process has meanwhile: memory, files, mappings. Each figure is read
 * at intervals, after a collection, and judged by its slope. Figures go to stderr as they
 * come, the verdict to stdout as TAP; exit code 1 where one grows, or a byte was wrong.
 */
import { subscribe } from 'node:diagnostics_channel'
import { writeFileSync } from 'node:fs'
import { byteCount, parseOptions, printError, UsageError, wholeNumber } from '../../lib/cli/args.js'
import { onSignals, putBackAtExit } from '../../lib/cli/ending.js'
import type { BufferMove } from '../../lib/move-notify/trace.js'
import { describe } from '../../lib/smoke/tally.js'
import { TapWriter } from '../../lib/smoke/tap.js'
import { LIMITS, withDefaults } from '../../lib/smoke/options.js'
import { FIGURES, type Name, sample, type Sample } from './figures.js'
import { FEWEST, judge, type Judgement } from './judge.js'
import { type Leak, LEAKS, parseLeak } from './leak.js'
import { openSoak } from './phases.js'

const USAGE = `usage: npm run test:soak -- [OPTIONS]

  --moves N          in all (100000)
  --engine NAME      software; verbs, vfio as \`p2pdma smoke\` spells them, in the rig:
                     npm run rig -- node bundle/test/soak/main.js --engine verbs --moves N
  --from, --to, --size, --buffers, --seed, --memory as \`p2pdma smoke\` has them
  --json FILE        write every sample and judgement there

Exit codes: 0 nothing grows, 1 something does, or went wrong, 2 this usage.`

/** Of a phase: enough to tell a line from scatter, few enough to cost little beside the moves. */
const SAMPLES = 40
/** Fewer than these have too few samples in the shortest phase. */
const LEAST_MOVES = 400
/** Of a phase, what is not judged: code becomes hot, caches and tables reach their sizes. */
const WARM_UP = 0.3
/**
 * How often a phase is played at most where all that grows is resident memory: of a short run,
 * or a slow one, V8's own has not settled; what leaks goes on.
 */
const LOOKS = 4

interface Settings {
  moves: number
  json: string | undefined
  /** On purpose; no usage tells of it. */
  leaks: { leak: Leak; every: number }[]
  smoke: ReturnType<typeof withDefaults>
}

function settings(): Settings | null {
  const values = parseOptions(
    // npm passes on a second `--`.
    process.argv.slice(2).filter((word) => word !== '--'),
    {
      ...{ moves: { type: 'string' }, engine: { type: 'string' }, from: { type: 'string' } },
      ...{ to: { type: 'string' }, size: { type: 'string' }, buffers: { type: 'string' } },
      ...{ seed: { type: 'string' }, memory: { type: 'string' }, json: { type: 'string' } },
      ...{ leak: { type: 'string' }, help: { type: 'boolean', short: 'h' } },
    },
  )
  if (values.help === true) return null
  const number = (name: 'moves' | 'buffers' | 'seed', otherwise: number) => {
    const { min, max } = { ...LIMITS[name], ...(name === 'moves' && { min: LEAST_MOVES }) }
    return values[name] === undefined ? otherwise : wholeNumber(name, values[name], min, max)
  }
  const moves = number('moves', 100_000)
  const leaks = (values.leak?.split(',') ?? []).map((text) => {
    const leak = parseLeak(text)
    if (leak === null) throw new UsageError(`nothing leaks as '${text}'`)
    return leak
  })
  const { engine, from, to, memory, json } = values
  const smoke = withDefaults({
    ...(engine !== undefined && { engine }),
    ...(from !== undefined && { from }),
    ...(to !== undefined && { to: to.split(',') }),
    ...(memory !== undefined && { memory }),
    // Small: it is the moves that count, not the bytes.
    size: byteCount('size', values.size ?? '64K', LIMITS.size.min, LIMITS.size.max),
    buffers: number('buffers', 2),
    seed: number('seed', Math.floor(Math.random() * LIMITS.seed.max)),
    moves,
  })
  return { moves, json, leaks, smoke }
}

interface Judged {
  phase: string
  figure: Name
  judgement: Judgement
  first: number
  last: number
}

function row(cells: readonly (string | number)[]): string {
  return `${cells.map((cell) => String(cell).padStart(10)).join('')}\n`
}

function shown(name: Name, value: number): string {
  return FIGURES[name].unit === 'B' ? `${(value / 1024).toFixed(0)}K` : String(value)
}

/** The moves and the figures of one phase. */
class Meter {
  readonly moves: number[] = []
  readonly samples: Sample[] = []
  readonly #every: number
  #next: number

  readonly #phase: string

  /** `of`: so many moves; `begun`: after so many. */
  constructor(phase: string, of: number, begun: number) {
    this.#phase = phase
    this.#every = Math.max(1, Math.floor(of / SAMPLES))
    this.#next = begun + this.#every
  }

  /** After each move. */
  saw(moves: number): void {
    if (moves < this.#next) return
    this.#next += this.#every
    const now = sample()
    this.moves.push(moves)
    this.samples.push(now)
    const said = names(now)
    if (this.samples.length === 1) process.stderr.write(row(['moves', ...said]))
    process.stderr.write(row([moves, ...said.map((name) => shown(name, now[name]!))]))
  }

  judged(): Judged[] {
    const from = Math.floor(this.moves.length * WARM_UP)
    const moves = this.moves.slice(from)
    const samples = this.samples.slice(from)
    if (moves.length < 2 * FEWEST - 1) throw new Error(`${this.#phase}: too few samples`)
    return names(samples[0]!).map((figure) => {
      const values = samples.map((each) => each[figure]!)
      const judgement = judge(moves, values, FIGURES[figure])
      return { phase: this.#phase, figure, judgement, first: values[0]!, last: values.at(-1)! }
    })
  }
}

/** Of what this machine says. */
function names(all: Sample): Name[] {
  return (Object.keys(FIGURES) as Name[]).filter((name) => all[name] !== null)
}

function verdict({ figure, judgement, first, last }: Judged): string {
  const { unit, what, eachMove } = FIGURES[figure]
  const { slope, error, grows, resolution } = judgement
  const [of, times] = unit === 'B' ? ['B a move', 1] : ['in 1000 moves', 1000]
  const each = (value: number) => (value * times).toFixed(2)
  const sign = slope < 0 ? '' : '+'
  const found = `${what} ${sign}${each(slope)} ± ${each(error)} ${of}, from ${shown(figure, first)} to ${shown(figure, last)}`
  return grows
    ? `${found}: it grows; ${each(eachMove)} are allowed`
    : `${found}; ${each(resolution)} would have been found`
}

async function soak({ moves, json, leaks, smoke }: Settings): Promise<number> {
  const abort = new AbortController()
  let code = 0
  const stop = onSignals((signal) => {
    code = signal
    if (abort.signal.aborted) process.exit(signal)
    abort.abort()
  })
  const keep = await putBackAtExit()
  const tap = new TapWriter((text) => process.stdout.write(text))
  tap.version()
  const soak = await openSoak(smoke, abort.signal)
  let seen = 0
  let meter: Meter | null = null
  const onMove = (message: unknown) => {
    if ((message as BufferMove).error !== null) return
    seen++
    for (const { leak, every } of leaks) if (seen % every === 0) LEAKS[leak]()
    meter?.saw(seen)
  }
  subscribe('p2pdma:move', onMove)
  const found: Judged[] = []
  const series: object[] = []
  const since = performance.now()
  for (const { name, share, play } of soak.phases) {
    if (abort.signal.aborted) break
    const wanted = Math.ceil(moves * share)
    tap.comment(`${name}: ${wanted} moves`)
    process.stderr.write(`${name}: ${wanted} moves\n`)
    let judged: Judged[] = []
    for (let look = 1; look <= LOOKS; look++) {
      meter = new Meter(name, wanted, seen)
      await play(wanted)
      if (abort.signal.aborted) break
      series.push({ phase: name, moves: meter.moves, samples: meter.samples })
      judged = meter.judged()
      const growing = judged.filter(({ judgement }) => judgement.grows)
      if (growing.length === 0 || growing.some(({ figure }) => figure !== 'rss')) break
      if (look < LOOKS) tap.comment(`${name}: once more, ${growing.map(verdict).join()}`)
    }
    if (abort.signal.aborted) break
    found.push(...judged)
    for (const each of judged) tap.test(!each.judgement.grows, `${name}: ${verdict(each)}`)
  }
  meter = null
  await soak.close()
  const wrong = soak.wrong()
  const isRight = Object.values(wrong).every((count) => count === 0)
  tap.test(isRight, `the traffic: ${JSON.stringify(wrong)}`)
  const seconds = ((performance.now() - since) / 1000).toFixed(0)
  tap.comment(`${soak.moves()} moves of ${smoke.engine} in ${seconds} s`)
  const ok = isRight && found.every(({ judgement }) => !judgement.grows)
  if (abort.signal.aborted) tap.bailOut(`interrupted after ${seen} moves`)
  else tap.plan(tap.count)
  for (const each of found) {
    if (each.judgement.grows) process.stderr.write(`soak: ${each.phase}: ${verdict(each)}\n`)
  }
  if (json !== undefined) {
    const report = { ok, engine: smoke.engine, seed: smoke.seed, moves: soak.moves(), wrong }
    writeFileSync(json, `${JSON.stringify({ ...report, judged: found, series }, null, 2)}\n`)
  }
  stop()
  keep()
  return code !== 0 ? code : ok ? 0 : 1
}

try {
  const asked = settings()
  if (asked === null) process.stdout.write(`${USAGE}\n`)
  else process.exitCode = await soak(asked)
} catch (error) {
  if (error instanceof UsageError) {
    process.stderr.write(`${error.message}\n${USAGE}\n`)
    process.exit(2)
  }
  process.stdout.write(`Bail out! ${describe(error).replaceAll('\n', ' ')}\n`)
  printError(error)
  // What hangs would keep the process alive.
  process.exit(1)
}

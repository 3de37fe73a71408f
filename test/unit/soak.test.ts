/** The soak test: what it takes for a leak, and that it finds one. */
import t from 'tap'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Random } from '../../lib/smoke/random.js'
import { FIGURES, sample } from '../soak/figures.js'
import { fit, judge } from '../soak/judge.js'
import { parseLeak } from '../soak/leak.js'

t.setTimeout(900_000)

void t.test('least squares', async (t) => {
  t.strictSame(fit([1, 2, 3, 4], [5, 7, 9, 11]), { slope: 2, error: 0 })
  // By hand: the distances to y = 1 + x/2 are 1/2, -1, 1/2; 1.5 of squares, one left over, spread 2.
  const { slope, error } = fit([0, 1, 2], [1.5, 0.5, 2.5])
  t.equal(slope, 0.5)
  t.ok(Math.abs(error - Math.sqrt(1.5 / 2)) < 1e-12, `${error}`)
  t.equal(fit([0, 1], [0, 5]).error, Infinity, 'two points lie on any line')
  t.equal(fit([1, 1, 1], [0, 5, 9]).error, Infinity)
})

/** Noise is between -1 and 1 times `noise`. */
function series(count: number, noise: number, at: (move: number) => number, seed = 1) {
  const random = new Random(seed)
  const moves = Array.from({ length: count }, (_, i) => i * 1000)
  const values = moves.map((move) => at(move) + noise * (random.below(2001) / 1000 - 1))
  return { moves, values }
}

void t.test('a leak is what grows, and goes on growing', async (t) => {
  const allowed = { eachMove: 15, once: 1 << 16 }
  const of = (noise: number, at: (move: number) => number, seed = 1) => {
    const { moves, values } = series(28, noise, at, seed)
    return judge(moves, values, allowed)
  }
  t.match(
    of(0, () => 1e6),
    { grows: false, slope: 0, error: 0 },
    'nothing moves',
  )
  let [found, invented, coarsest] = [0, 0, 0]
  for (let seed = 1; seed <= 200; seed++) {
    const { grows, resolution } = of(2e4, () => 1e7, seed)
    invented += Number(grows)
    coarsest = Math.max(coarsest, resolution)
    found += Number(of(2e4, (move) => 1e7 + resolution * move, seed + 200).grows)
  }
  t.equal(invented, 0, 'noise is none')
  t.ok(coarsest < 20, `noise of 20 kB hides ${coarsest} B a move at most`)
  t.ok(found >= 180, `${found} of 200 were found that it says would be`)
  t.equal(of(2e4, (move) => 1e7 + 14 * move).grows, false, 'no more than is allowed')
  t.equal(of(2e4, (move) => 1e7 - 40 * move).grows, false, 'it shrinks')
  // What is filled once.
  t.equal(of(2e4, (move) => (move < 14_000 ? 1e7 : 2e7)).grows, false, 'one step')
  t.equal(of(2e4, (move) => 1e7 - 4e6 * Math.exp(-move / 2000)).grows, false, 'it settles')
  t.equal(of(1e2, (move) => 1e7 + 2 * move).grows, false)
  // Given back by a collection every so often, and less of it each time.
  const sawtooth = (move: number) => 1e7 + 40 * move + 1e5 * ((move / 1000) % 4)
  t.equal(of(0, sawtooth).grows, true, 'teeth that climb')
  t.equal(of(0, (move) => sawtooth(move) - 40 * move).grows, false, 'teeth that do not')
  // Whole numbers: descriptors, one for a thousand moves.
  const { moves, values } = series(28, 0, (move) => 31 + Math.floor(move / 1000))
  t.equal(judge(moves, values, FIGURES.fds).grows, true)
  t.equal(judge(moves, values.with(20, 38), FIGURES.fds).grows, true)
  const few = moves.map((move) => 31 + Number(move > 9000) + Number(move > 18_000))
  t.equal(judge(moves, few, FIGURES.fds).grows, false, 'two in all may be anything')
})

/** Of a run of 40,000 moves, a sample at each thousand: resident KiB, and V8's heap, bytes. */
const REAL = {
  rss: [
    102276, 111536, 109056, 109580, 105648, 98916, 104680, 107784, 107420, 99596, 101536, 100460,
    99864, 100808, 106240, 105608, 98748, 102800, 99996, 99232, 98308, 98768, 105212, 99820, 99064,
    101440, 105832, 99328, 99256, 105236, 100220, 105244, 99604, 98520, 106036, 104008, 105172,
    98444, 106256, 104784,
  ].map((kib) => kib * 1024),
  heap: [
    10762896, 10890968, 11081352, 11056360, 10883056, 10955312, 11087072, 10950984, 10903656,
    11172192, 10912864, 10976472, 10929208, 10943464, 10937472, 10955368, 10944720, 10955192,
    10943000, 10952888, 11118064, 10960712, 11115288, 11195088, 11130456, 10964432, 10974064,
    10972432, 11119720, 10982608, 10955792, 11029056, 10988688, 10973176, 10962984, 10997432,
    11107544, 10981224, 11144312, 11105984,
  ],
}

void t.test('a real run, and the same with a leak added to it', async (t) => {
  for (const [name, least] of [
    ['rss', 800],
    ['heap', 40],
  ] as const) {
    // As main.ts has it: what comes before is warming up.
    const values = REAL[name].slice(12)
    const moves = values.map((_, i) => i * 1000)
    const real = judge(moves, values, FIGURES[name])
    t.equal(real.grows, false, `${name}: ${real.slope} B a move`)
    t.ok(real.resolution < least, `${name}: ${real.resolution} B a move would have been found`)
    const leaky = values.map((value, i) => value + least * 1000 * i)
    t.equal(judge(moves, leaky, FIGURES[name]).grows, true, `${name}: and ${least} are`)
  }
})

void t.test('figures of this process', async (t) => {
  const now = sample()
  for (const name of ['rss', 'fds', 'maps', 'heap', 'external', 'handles', 'threads'] as const) {
    t.ok(now[name]! > 0, `${name}: ${now[name]}`)
  }
  t.equal(now.pinned, 0)
  t.strictSame(parseLeak('fd'), { leak: 'fd', every: 1 })
  t.strictSame(parseLeak('memory:20'), { leak: 'memory', every: 20 })
  for (const text of ['', 'fd:', 'fd:0', 'toString', 'fd:1:1']) t.equal(parseLeak(text), null)
})

const main = fileURLToPath(new URL('../soak/main.js', import.meta.url))

async function soak(...words: string[]) {
  const child = spawn(process.execPath, [main, ...words], { stdio: ['ignore', 'pipe', 'pipe'] })
  let [stdout, stderr] = ['', '']
  child.stdout.on('data', (part: Buffer) => (stdout += part.toString()))
  child.stderr.on('data', (part: Buffer) => (stderr += part.toString()))
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, stdout, stderr }
}

void t.test('a short run, and the same with leaks', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'p2pdma-soak-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const file = join(folder, 'soak.json')
  const [clean, leaky, misspelt] = await Promise.all([
    soak('--moves', '400', '--json', file),
    soak('--moves', '400', '--leak', 'fd:4,map,memory'),
    soak('--moves', 'many'),
  ])
  t.equal(clean.code, 0, clean.code === 0 ? 'nothing grows' : clean.stdout + clean.stderr)
  t.match(clean.stdout, /^TAP version 14\n[^]*\n1\.\.\d+\n$/)
  t.notMatch(clean.stdout, /^not ok/m)
  t.match(clean.stderr, /^ +moves +rss +fds +maps +heap/m)
  const { ok, moves, judged, series } = JSON.parse(readFileSync(file, 'utf8')) as {
    ok: boolean
    moves: number
    judged: object[]
    series: { samples: object[] }[]
  }
  t.equal(ok, true)
  t.ok(series.length >= 3, `${series.length} phases, some of them more than once`)
  t.ok(moves >= 400 && judged.length >= 24, `${moves} moves`)
  t.ok(series.every(({ samples }) => samples.length >= 30))

  t.equal(leaky.code, 1, leaky.code === 1 ? 'leaks do' : leaky.stderr)
  for (const what of ['open files', 'mappings', 'V8’s buffers outside of its heap']) {
    // In each of the two long phases.
    const found = leaky.stderr.match(new RegExp(`^soak: .*: ${what} .*: it grows;`, 'gm')) ?? []
    t.ok(found.length >= 2, `${what}: found in ${found.length} phases`)
    t.match(leaky.stdout, new RegExp(`^not ok \\d+ - .*: ${what} `, 'm'))
  }
  t.equal(misspelt.code, 2)
  t.match(misspelt.stderr, /^--moves must be a whole number from 400[^]*\nusage: npm run test:soak/)
})

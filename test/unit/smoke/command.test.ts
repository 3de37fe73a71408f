/** `p2pdma smoke` as a person runs it. */
import { Ajv } from 'ajv'
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Parser } from 'tap-parser'
import t from 'tap'
import { Interrupt } from '../../../lib/cli/ending.js'
import { EFFECT_SCENARIOS, type SmokeReport } from '../../../lib/smoke/index.js'

const root = join(dirname(fileURLToPath(import.meta.url)), '../../../..')
const schema = JSON.parse(readFileSync(join(root, 'lib/smoke/smoke.schema.json'), 'utf8')) as object
const validate = new Ajv({ allowUnionTypes: true }).compile<SmokeReport>(schema)

t.setTimeout(1_800_000)

interface Result {
  code: number | null
  stdout: string
  stderr: string
}

function start(
  args: string[],
  stdout: 'pipe' | number = 'pipe',
): { child: ChildProcess; ended: Promise<Result> } {
  const child = spawn(process.execPath, [join(root, 'dist/lib/cli/main.js'), 'smoke', ...args], {
    stdio: ['ignore', stdout, 'pipe'],
  })
  const result: Result = { code: null, stdout: '', stderr: '' }
  child.stdout?.on('data', (part: Buffer) => (result.stdout += part.toString()))
  child.stderr?.on('data', (part: Buffer) => (result.stderr += part.toString()))
  const ended = new Promise<Result>((resolve) => {
    child.on('close', (code) => resolve({ ...result, code }))
  })
  return { child, ended }
}

/** What it has had of the CPUs: proc(5), /proc/PID/stat, in ticks of 10 ms. */
function cpuSeconds(pid = 0): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) / 100
}

const smoke = (...args: string[]) => start(args).ended

/** In this process, for what ends before anything runs: each start of one takes longer than all of these. */
const command = async (args: string[]) => {
  const { run } = await import('../../../lib/cli/smoke.js')
  return run(args)
}

function report(text: string): SmokeReport {
  const value: unknown = JSON.parse(text)
  if (!validate(value)) throw new Error(JSON.stringify(validate.errors))
  return value
}

function tap(text: string): { ok: boolean; bailedOut: boolean | string; count: number } {
  const parser = new Parser()
  parser.end(text)
  return parser
}

void t.test('a clean run', async (t) => {
  const run = await smoke('--moves', '40', '--seed', '7', '--json', '-')
  t.equal(run.code, 0)
  const figures = report(run.stdout)
  t.match(figures, {
    ok: true,
    interrupted: false,
    error: null,
    engine: 'software',
    exporters: [{ name: 'memfd', kind: 'embedded', kernelName: null, seenByKernel: null }],
    seed: 7,
    moves: 40,
    failedMoves: 0,
    lost: 0,
    doubled: 0,
    torn: 0,
    strayWrites: 0,
    failedOperations: 0,
  })
  t.ok(figures.bytesVerified > 0)
  t.ok(figures.movesWithWorkInFlight >= 36, `${figures.movesWithWorkInFlight} of 40`)
  t.ok(figures.operationsParked > 0, 'work waited at closed gates')
  t.ok(figures.pauseMs.max !== null && figures.throughput !== null)
  t.equal(figures.scenarios.length, 5)
  t.match(tap(run.stderr), { ok: true, count: 7 }, 'with --json -, the TAP is on stderr')
  t.match(run.stderr, /^TAP version 14\n# p2pdma smoke/)
  t.match(run.stderr, /# engine software: embedded/)
  t.match(run.stderr, /# exporter memfd: embedded/)
  t.match(run.stderr, /; seed 7$/m)
})

const kinds = { lost: 'lost', doubled: 'doubled', torn: 'torn', stray: 'strayWrites' } as const

for (const [fault, counter] of Object.entries(kinds)) {
  void t.test(`one ${fault} operation is counted under its own name alone`, async (t) => {
    const run = await smoke('--inject', fault, '--moves', '12', '--json', '-')
    t.equal(run.code, 1)
    const { ok, lost, doubled, torn, strayWrites, inject, injected } = report(run.stdout)
    const expected = { lost: 0, doubled: 0, torn: 0, strayWrites: 0, [counter]: 1 }
    t.strictSame({ lost, doubled, torn, strayWrites }, expected)
    t.match({ ok, inject, injected }, { ok: false, inject: fault, injected: 1 })
    t.equal(tap(run.stderr).ok, false)
    t.match(run.stderr, new RegExp(`^ok \\d+ - the fault was made, and 1 ${fault} counted$`, 'm'))
  })
}

void t.test('a fault that was asked for and not made is a failure', async (t) => {
  // More moves than there is time for; and no time at all.
  const short = [
    ['--seconds', '3', '--moves', '1000000'],
    ['--seconds', '1', '--size', '64M'],
  ]
  for (const args of short) {
    const run = await smoke('--inject', 'stray', ...args, '--json', '-')
    t.equal(run.code, 1)
    const { ok, injected, strayWrites, error } = report(run.stdout)
    t.match({ ok, injected, strayWrites }, { ok: false, injected: strayWrites })
    // Where even opening took the time, that is the error.
    const said =
      injected === 0 ? /^not ok \d+ - the fault was not made: stray$/m : /^ok \d+ - the f/m
    if (error === null) t.match(run.stderr, said)
  }
})

void t.test('the report goes to a file, the TAP to stdout', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'p2pdma-smoke-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'report.json')
  const bounds = ['--moves', '12', '--seconds', '64', '--buffers', '1', '--size', '1048576']
  const run = await smoke(...bounds, '--json', file)
  const figures = report(readFileSync(file, 'utf8'))
  t.match(figures, { size: 1_048_576, buffers: 1, lost: 0, doubled: 0, torn: 0, strayWrites: 0 })
  t.equal(run.code, figures.ok ? 0 : 1)
  t.equal(tap(run.stdout).ok, figures.ok)
  t.match(run.stdout, /# .*64 s at most/)
  t.equal(run.stderr, '', 'no progress where stderr is no terminal')
})

void t.test('what cannot be understood: usage on stderr, exit 2', async (t) => {
  const wrong = [
    ['--bogus'],
    ['--moves'],
    ['extra'],
    ['--engine', 'hardware'],
    ['--from', 'memfdd'],
    ['--to', 'memfd,heap:'],
    ['--to', ''],
    ['--size=-4096'],
    ['--size', '-4096'],
    ['--size', String(2 ** 40)],
    ['--size', 'NaN'],
    ['--size', '4096'],
    ['--size', '70000'],
    ['--size', '9007199254740993'],
    ['--buffers', '0'],
    ['--moves', '1.5'],
    ['--moves', '1e3'],
    ['--seconds', 'Infinity'],
    ['--seed', '4294967296'],
    ['--inject', 'everything'],
    ['--json', ''],
    ['--disruptive=', '--moves', '1'],
    ['--disruptive=everything'],
    ['--disruptive=link,'],
    ['--disruptive', 'link'],
    ['--link', 'p2p0'],
    ['--engine', 'verbs', '--link', 'p2p0'],
    ['--max-memory', '-1'],
    ['--max-memory', '1E'],
    ['--max-memory', '1M'],
    ['--max-gbps', '-1'],
    ['--max-gbps', '1e9'],
    ['--profile', ''],
    ['--profile', 'cloud'],
    ['--profile', 'host', '--disruptive'],
    ['--profile', 'host', '--disruptive=kill'],
    ['--profile', 'host', '--seconds', '61'],
    ['--profile', 'host', '--seconds', '0'],
    ['--profile', 'host', '--max-memory', '257M'],
    ['--profile', 'host', '--engine', 'vfio', '--witness'],
  ]
  for (const args of wrong) {
    await t.rejects(command(args), { name: 'UsageError' }, args.join(' '))
  }
  await t.rejects(command(['--moves', '-3']), {
    message: /--moves must be a whole number .*, not '-3'/,
  })
  // What becomes of it: of one that is known at once, and of one that the run finds.
  for (const args of [['--bogus'], ['--engine', 'hardware']]) {
    const run = await smoke(...args)
    t.match({ ...run, stdout: run.stdout }, { code: 2, stdout: '' }, args.join(' '))
    t.match(run.stderr, /usage: p2pdma smoke/, `${args.join(' ')}: usage`)
  }
})

void t.test('what it uses, and what it does to others, is said beforehand', async (t) => {
  const run = await smoke('--profile', 'host', '--moves', '10', '--json', '-')
  t.equal(run.code, 0, run.stderr)
  const { planned, peakMemoryBytes, durationMs, skipped, kernelLog } = report(run.stdout)
  const bounds = { profile: 'host', seconds: 60, maxMemoryBytes: 256 << 20, maxGbps: null }
  t.match(planned, { ...bounds, effects: [], touches: [] })
  t.ok(planned.memoryBytes < 256 << 20, `${planned.memoryBytes} bytes planned`)
  t.ok(peakMemoryBytes > 0 && peakMemoryBytes <= 256 << 20, `${peakMemoryBytes} bytes at most`)
  t.ok(durationMs <= 60_000)
  // Of 10 moves none is left for all 4 buffers to move ...: 40 are needed.
  t.match(skipped, [{ name: /^all buffers move together/, reason: /: --moves 40$/ }])
  t.equal(kernelLog.complaints === null, kernelLog.unreadable !== null)
  const [beforehand = ''] = run.stderr.split('\n1..')
  t.match(beforehand, /# will use about \d+ MiB of memory \(256 MiB at most\), .*, 60 s at most/)
  t.match(beforehand, /# will change nothing outside of this process/)
  t.match(run.stderr, /^ok \d - \d+ MiB of memory at most, of 256 MiB$/m)
})

void t.test(
  '--seconds bounds all of it: what does not fit is not played, and says so',
  async (t) => {
    const { code, stdout, stderr } = await smoke('--seconds', '1', '--size', '64M', '--json', '-')
    const figures = report(stdout)
    t.equal(code, figures.ok ? 0 : 1)
    const all = figures.scenarios.length + figures.skipped.length
    // Where even opening took the second, none was begun.
    t.ok(all === 5 || figures.error !== null, `${all} of 5`)
    for (const { name, reason } of figures.skipped) {
      t.equal(reason, 'no time was left: --seconds 1')
      t.match(stderr, `${name} # SKIP ${reason}`)
    }
  },
)

void t.test('what is left out is a skip, and says why', async (t) => {
  const { code, stdout, stderr } = await smoke('--moves', '3', '--disruptive', '--json', '-')
  t.equal(code, 0, stderr)
  const { scenarios, skipped } = report(stdout)
  const few = skipped.filter(({ reason }) => reason.startsWith('too few moves for it: --moves '))
  t.equal(scenarios.length + few.length, 5, 'all of this engine')
  const elsewhere = skipped.filter(({ reason }) => /^this engine does not play it/.test(reason))
  t.same(
    elsewhere.flatMap(({ effects }) => effects),
    Object.keys(EFFECT_SCENARIOS),
    'and what was asked for, and is of another one',
  )
  t.equal(few.length + elsewhere.length, skipped.length)
  for (const { name, reason } of skipped) t.match(stderr, `${name} # SKIP ${reason}\n`)
  t.match(stderr, /^ok \d+ - work was in flight .* of 3 moves # SKIP not judged below 50 moves/m)
  t.match(tap(stderr), { ok: true, count: scenarios.length + skipped.length + 2 })
})

void t.test('--max-gbps holds what the device moves to a rate', async (t) => {
  const args = ['--size', '1M', '--max-gbps', '0.02', '--json', '-']
  let played: SmokeReport | null = null
  // The start counts, too: on a busy machine a short run is over before it has played anything.
  for (let seconds = 4; seconds <= 64 && !(played?.scenarios.length ?? 0); seconds *= 4) {
    played = report((await smoke(...args, '--seconds', String(seconds))).stdout)
  }
  const { scenarios, planned } = played ?? report('')
  t.equal(planned.maxGbps, 0.02)
  const bytesPerMs = 0.02e9 / 8 / 1000
  t.ok(scenarios.length > 0)
  for (const { name, bytesVerified, durationMs } of scenarios) {
    // What a rest has saved up, and the window that was let through with it.
    const most = bytesPerMs * (durationMs + 1000) + (4 << 20)
    t.ok(
      bytesVerified > 0 && bytesVerified <= most,
      `${name}: ${bytesVerified} in ${durationMs} ms`,
    )
  }
})

void t.test('more memory than it may have ends it', async (t) => {
  const huge = await smoke('--max-memory', '300M', '--size', '64M')
  t.match(huge, { code: 2, stdout: '', stderr: /--max-memory 300 MiB .* a smaller --size/ })
})

void t.test('the help names what each effect is, and which scenarios have it', async (t) => {
  const { code, stdout } = await smoke('--help')
  t.equal(code, 0)
  for (const [effect, names] of Object.entries(EFFECT_SCENARIOS)) {
    t.match(stdout, new RegExp(`^ +${effect} `, 'm'))
    for (const name of names) t.match(stdout, `'${name}'`)
  }
})

void t.test('a reader that goes away ends it in good order', async (t) => {
  const { child, ended } = start(['--seconds', '600'])
  child.stdout?.once('data', () => child.stdout?.destroy())
  t.match(await ended, { code: 141, stderr: '' })
})

void t.test('output that cannot be written: the reason without a stack, exit 1', async (t) => {
  const full = openSync('/dev/full', 'w')
  t.teardown(() => closeSync(full))
  const { child, ended } = start(['--seconds', '600'], full)
  t.match(await ended, { code: 1, stderr: /^p2pdma smoke: the output cannot be .*ENOSPC.*\n$/ })
  t.equal(child.stdout, null)
  const folder = await smoke('--json', '/')
  t.match(folder, { code: 1, stdout: '', stderr: /^p2pdma: .* to \/: .*\(EISDIR\)\n$/ })
  const file = await smoke('--moves', '1', '--json', '/dev/full')
  t.match(file, { code: 1, stderr: /^p2pdma: .* to \/dev\/full: .*\(ENOSPC\)\n$/ })
})

void t.test('what is not here cannot be tested: a whole report, a skip, exit 77', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'p2pdma-smoke-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'report.json')
  t.equal(existsSync('/dev/dma_heap/no-such-heap'), false)
  const missing: [string[], RegExp][] = [
    [['--from', 'heap:no-such-heap'], /heap:no-such-heap.*npm run rig/],
    [['--engine', 'verbs:no_such_device'], /RDMA.*hint: /],
    [['--engine', 'vfio:ffff:1f:1e.0,ffff:1f:1e.1'], /ffff:1f:1e.0/],
    // Of a later version.
    [['--engine', 'cuda'], /not in this version/],
  ]
  for (const [args, reason] of missing) {
    const run = await smoke(...args, '--json', file)
    const name = args.join(' ')
    t.equal(run.code, 77, name)
    const figures = report(readFileSync(file, 'utf8'))
    t.match(figures, { ok: false, error: null, interrupted: false, moves: 0, scenarios: [] })
    t.match(figures.untestable, reason, name)
    t.match(tap(run.stdout), { ok: true, bailedOut: false, count: 0 }, name)
    t.match(run.stdout, `\n1..0 # SKIP ${figures.untestable}\n`)
    t.match(run.stderr, /^p2pdma smoke: .*\nhint: /, name)
    t.notMatch(run.stdout, /: real/, 'what could not be opened')
  }
})

void t.test('what could not be opened is not called real', async (t) => {
  const { stdout } = await smoke('--from', 'heap:no-such-heap', '--to', 'memfd')
  t.match(stdout, /^# exporter memfd: embedded/m)
  t.match(stdout, /^# exporter heap:no-such-heap cannot be used: /m)
})

void t.test('a usage error touches no file', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'p2pdma-smoke-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'report.json')
  writeFileSync(file, 'old')
  const { mtimeMs } = statSync(folder)
  // Seen by the command, when exporters are looked up, when devices are, and when memory is.
  const wrong = ['--moves=x', '--from=nonsense', '--engine=verbs:a,b,c', '--size=1T']
  for (const word of wrong) t.equal((await smoke(word, '--json', file)).code, 2, word)
  t.equal((await smoke('--from=nonsense', '--json', `${file}.new`)).code, 2)
  t.equal(readFileSync(file, 'utf8'), 'old')
  t.equal(statSync(folder).mtimeMs, mtimeMs)
})

void t.test('options of one engine are not for another', async (t) => {
  const wrong: [string[], RegExp][] = [
    [['--peer', 'localhost'], /--peer is for the engine verbs/],
    [['--engine', 'vfio', '--peer', 'localhost'], /--peer is for the engine verbs/],
    [['--engine', 'verbs', '--memory', '0000:00:10.0'], /for the engine vfio/],
    [['--engine', 'verbs', '--witness'], /for the engine vfio/],
    [['--disruptive=link', '--link', 'lo'], /--link is for the engine verbs/],
    [['--witness'], /for the engine vfio/],
    [['--engine', 'verbs', '--inject', 'lost'], /in the engine software only/],
    [['--engine', 'vfio', '--inject', 'lost'], /in the engine software only/],
    [['--engine', 'verbs:a,b,c'], /the names of one or two RDMA devices/],
    [['--engine', 'verbs:../x'], /the names of one or two RDMA devices/],
    [['--port-num', '1'], /--port-num is for the engine verbs/],
    [['--engine', 'vfio', '--gid-index', '1'], /--gid-index is for the engine verbs/],
    [['--engine', 'verbs', '--gid-index', '256'], /--gid-index must be .* 0 to 255/],
    [['--engine', 'verbs', '--port-num', '0'], /--port-num must be .* 1 to 255/],
    [['--engine', 'verbs', '--peer', 'host:0'], /--peer takes HOST or HOST:PORT/],
    [['--engine', 'verbs', '--peer', '[10.0.0.1]:1'], /--peer takes HOST or HOST:PORT/],
    [['--engine', 'verbs', '--peer', 'a b'], /--peer takes HOST or HOST:PORT/],
    [['--engine', 'verbs', '--peer', ''], /--peer takes HOST or HOST:PORT/],
  ]
  for (const [args, message] of wrong) {
    await t.rejects(command(args), { name: 'UsageError', message }, args.join(' '))
  }
})

void t.test('serve: what cannot be understood, exit 2', async (t) => {
  for (const args of [
    ...[['--port', '65536'], ['--size', '70000'], ['--every', '0'], ['x']],
    ...[
      ['--port-num', '0'],
      ['--gid-index', '256'],
    ],
  ]) {
    const main = join(root, 'dist/lib/cli/main.js')
    const run = spawnSync(process.execPath, [main, 'serve', ...args], { encoding: 'utf8' })
    t.match(run, { status: 2, stdout: '', stderr: /usage: p2pdma serve/ }, args.join(' '))
  }
})

void t.test('SIGINT: stops, says what was verified, exit 130', async (t) => {
  const { child, ended } = start(['--seconds', '600', '--json', '-'])
  await once(child.stderr ?? child, 'data')
  // A second of work, and not of waiting for a CPU, so that there is something to tell.
  const before = cpuSeconds(child.pid)
  while (cpuSeconds(child.pid) < before + 1.5) {
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  child.kill('SIGINT')
  const run = await ended
  t.equal(run.code, 130)
  const figures = report(run.stdout)
  t.match(figures, { ok: false, interrupted: true, lost: 0, doubled: 0, torn: 0, strayWrites: 0 })
  t.ok(figures.bytesVerified > 0)
  t.match(tap(run.stderr), { ok: false, bailedOut: /^interrupted; \d+ bytes verified/ })
})

void t.test('SIGHUP is a signal like the others, and comes twice', async (t) => {
  const { child, ended } = start(['--seconds', '600', '--json', '-'])
  // By the kernel, and by the shell.
  child.stderr?.once('data', () => {
    child.kill('SIGHUP')
    setTimeout(() => child.kill('SIGHUP'), 20)
  })
  const run = await ended
  t.equal(run.code, 129)
  t.match(report(run.stdout), { ok: false, interrupted: true })
})

void t.test(
  'a terminal that goes away breaks the output first: it is the signal that counts',
  (t) => {
    const interrupt = new Interrupt()
    t.equal(interrupt.exitCode, null)
    interrupt.end(1)
    t.match(interrupt, { exitCode: 1, signal: { aborted: true } })
    process.emit('SIGHUP')
    t.equal(interrupt.exitCode, 129, 'and does not end it at once')
    process.emit('SIGHUP')
    interrupt.stop()
    t.end()
  },
)

void t.test('what only prints ends without a stack where nobody reads, or nothing fits', (t) => {
  const run = (line: string) => {
    const words = ['-c', line, 'sh', process.execPath, join(root, 'dist/lib/cli/main.js')]
    return spawnSync('sh', words, { encoding: 'utf8' }).stderr
  }
  t.equal(run('{ "$@" smoke --help; echo $? >&2; } | :'), '141\n')
  t.match(run('"$@" --help >/dev/full; echo $? >&2'), /^p2pdma: the output .*ENOSPC.*\n1\n$/)
  t.end()
})

void t.test('a process that was stopped for a while has not hung', async (t) => {
  const { child, ended } = start(['--moves', '60', '--json', '-'])
  child.stderr?.once('data', () => {
    child.kill('SIGSTOP')
    setTimeout(() => child.kill('SIGCONT'), 5000)
  })
  const run = await ended
  t.equal(run.code, 0, run.stderr)
  t.match(report(run.stdout), { ok: true, error: null, forcedStops: 0, moves: 60 })
})

void t.test('a second SIGINT ends it at once', async (t) => {
  const { child, ended } = start(['--seconds', '600', '--size', String(1 << 28)])
  child.stdout?.once('data', () => {
    child.kill('SIGINT')
    setTimeout(() => child.kill('SIGINT'), 100)
  })
  const run = await ended
  t.equal(run.code, 130)
})

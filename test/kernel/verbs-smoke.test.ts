/** The smoke test between two RDMA devices, and between two hosts. */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { VerbsEngine } from '../../lib/engines/verbs/engine.js'
import { wrong } from './support.js'
import {
  EFFECT_NAMES,
  EFFECT_SCENARIOS,
  type ServeEvent,
  type SmokeReport,
} from '../../lib/smoke/index.js'

const main = join(dirname(fileURLToPath(import.meta.url)), '../../lib/cli/main.js')

t.setTimeout(900_000)

function smoke(...args: string[]) {
  const all = [main, 'smoke', ...args, '--size', '131072', '--json', '-']
  return spawnSync(process.execPath, all, { encoding: 'utf8' })
}

t.test('every scenario, both ends in this process', async (t) => {
  const { stdout, stderr, status } = smoke(
    '--engine',
    'verbs',
    '--moves',
    '30',
    '--disruptive',
    '--link',
    'p2p0',
  )
  t.equal(status, 0, wrong(stderr))
  const report = JSON.parse(stdout) as SmokeReport
  t.match(report, { error: null, ok: true, moves: 30, failedMoves: 0, failedOperations: 0 })
  t.match(report, { lost: 0, doubled: 0, torn: 0, strayWrites: 0 })
  t.equal(report.scenarios.length, 15)
  for (const { name, effects } of [...report.scenarios, ...report.skipped]) {
    const declared = EFFECT_NAMES.filter((effect) =>
      EFFECT_SCENARIOS[effect].some((each) => name.startsWith(each)),
    )
    t.same(effects, declared, name)
  }
  for (const { name, bytesVerified, moves, stops } of report.scenarios) {
    t.ok(bytesVerified > 0 && moves > 0 && stops > 0, name)
  }
  const devices = report.axes.map(({ device, exporter }) => `${device} ${exporter}`)
  t.strictSame(devices.sort(), ['rxe0 memfd', 'rxe1 memfd'])
  const decidedBy = /is pinned, by us alone/
  for (const axes of report.axes) t.match(axes, { registration: 'memory', mover: 'us', decidedBy })
  t.match(stderr, /^# engine verbs: RDMA between rxe0 and rxe1/m)
  t.match(
    stderr,
    /^ok \d+ - the kernel revokes a BAR, RDMA write # SKIP no buffer is in a device.*: --from vfio-bar$/m,
  )
  t.match(
    stderr,
    /^# memfd on rxe0: registration memory .*; mover us, decided by: what is registered by its pages is pinned/m,
  )
})

t.test('one device alone is both ends', async (t) => {
  const { stdout, stderr, status } = smoke('--engine', 'verbs:rxe0,rxe0', '--moves', '3')
  t.equal(status, 0, wrong(stderr))
  t.match(JSON.parse(stdout), { ok: true, moves: 3, lost: 0, doubled: 0, torn: 0 })
})

/** On the other host, which is the namespace of the rig's guest-init.sh. */
function serving(...args: string[]) {
  const serve = [main, 'serve', '--device', 'rxe1', '--port', '0', ...args]
  const child = spawn('ip', ['netns', 'exec', 'peer', process.execPath, ...serve], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = once(child, 'close') as Promise<[number]>
  const events: ServeEvent[] = []
  const lines = createInterface({ input: child.stdout })
  lines.on('line', (line) => events.push(JSON.parse(line) as ServeEvent))
  return { child, ended, events, ready: once(lines, 'line') }
}

/** The address that `ip` has made of the hardware's. */
function linkLocal(): string {
  const words = ['-n', 'peer', '-6', '-brief', 'address', 'show', 'dev', 'p2p1']
  const found = execFileSync('ip', words, { encoding: 'utf8' })
  return /fe80:[^/]+/.exec(found)?.[0] ?? ''
}

t.test(
  'the other end on another host, whose buffers move too, by link-local addresses',
  async (t) => {
    const { ended, events, ready } = serving(
      ...['--once', '--gid-index', '0', '--size', '131072', '--every', '50'],
    )
    const other = serving()
    await Promise.all([ready, other.ready])
    // That one has the best GID, and ends by a signal, in good order.
    t.match(other.events[0], { event: 'ready', device: 'rxe1', portNum: 1, gidIndex: 1 })
    other.child.kill('SIGHUP')
    t.equal((await other.ended)[0], 129)

    const [first] = events
    t.match(first, { event: 'ready', device: 'rxe1', portNum: 1, gidIndex: 0, size: 131072 })
    const port = first?.event === 'ready' ? first.port : 0
    // Whoever only looks has not used it.
    const looker = await VerbsEngine.open('rxe0')
    const look = await looker.connect({ host: '10.0.0.2', port, timeoutMs: 60_000 })
    await look.close()
    await looker.close()
    const { stdout, stderr, status } = smoke(
      ...['--engine', 'verbs:rxe0/1', '--gid-index', '0', '--moves', '12'],
      ...['--peer', `[${linkLocal()}%p2p0]:${port}`],
    )
    t.equal(status, 0, wrong(stderr))
    t.match(stderr, /^# rxe0: port 1, GID 0, fe80:.* \(roce-v2\)$/m)
    const report = JSON.parse(stdout) as SmokeReport
    t.match(report, { ok: true, moves: 12, lost: 0, doubled: 0, torn: 0, strayWrites: 0 })
    t.equal(report.scenarios.length, 3)
    t.equal((await ended)[0], 0, 'it ends by itself')
    const gone = events.flatMap((event) => (event.event === 'gone' ? [event] : []))
    t.equal(gone.length, 5, 'a look, the run, and a connection for each of its scenarios')
    for (const { error, failedMoves, strayWrites } of gone) {
      t.match({ error, failedMoves, strayWrites }, { error: null, failedMoves: 0, strayWrites: 0 })
    }
    t.ok(gone.some(({ moves }) => moves > 0))
  },
)

t.test('serve ends in good order when nobody reads what it says', async (t) => {
  const child = spawn(process.execPath, [main, 'serve', '--port', '0'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  child.stdout.destroy()
  let stderr = ''
  child.stderr.on('data', (chunk: Buffer) => (stderr += String(chunk)))
  const [code] = (await once(child, 'close')) as [number]
  t.equal(code, 141)
  t.equal(stderr, '')
})

t.test('a path that lets nothing through ends it, with what is likely', async (t) => {
  const tc = (...args: string[]) => void execFileSync('tc', args)
  execFileSync('modprobe', ['-a', 'sch_ingress', 'cls_u32', 'act_gact'])
  tc('qdisc', 'add', 'dev', 'p2p0', 'clsact')
  t.teardown(() => tc('qdisc', 'delete', 'dev', 'p2p0', 'clsact'))
  const roce = 'match ip protocol 17 0xff match ip dport 4791 0xffff action drop'
  tc(...'filter add dev p2p0 egress protocol ip u32'.split(' '), ...roce.split(' '))
  const { stdout, stderr, status } = smoke('--engine', 'verbs', '--moves', '30')
  t.equal(status, 1)
  const { error, resets, scenarios, kernelLog } = JSON.parse(stdout) as SmokeReport
  t.match(error, /ERR_NO_PROGRESS\); hint: .*4791/)
  t.ok(resets > 0, `${resets} resets`)
  t.equal(scenarios.length, 1, 'the next one would meet the same')
  t.match(kernelLog, { complaints: [] })
  t.match(stderr, /^Bail out! .*ERR_NO_PROGRESS/m)
  t.notMatch(stderr, /the library hangs/)
})

t.test('what is missing is said', async (t) => {
  for (const [args, message, untestable] of [
    [['--engine', 'verbs:mlx5_0'], /There is no RDMA device 'mlx5_0' .*\n.*rxe0, rxe1/, true],
    [['--engine', 'verbs:rxe0/2'], /rxe0 has no port 2 .*\n.*only one is 1/, false],
    [['--engine', 'verbs', '--gid-index', '99'], /has no GID 99 .*\n.*there are 0, 1/, true],
    // Whoever should be there, and is not, is no matter of this host.
    [['--engine', 'verbs', '--peer', '127.0.0.1:9'], /ECONNREFUSED/, false],
  ] as const) {
    const { stderr, stdout, status } = smoke(...args)
    t.equal(status, untestable ? 77 : 1)
    t.match(stderr, message)
    const report = JSON.parse(stdout) as SmokeReport
    t.strictSame(report.scenarios, [])
    t.equal(report.untestable !== null, untestable)
    t.equal(report.error === null, untestable)
  }
})

/** The smoke test between two RDMA devices, and between two hosts. */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import t from 'tap'
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

t.test('the other end on another host, whose buffers move too', async (t) => {
  // The namespace is the other host: see the rig's guest-init.sh.
  const serve = ['serve', '--device', 'rxe1', '--port', '0', '--size', '131072', '--every', '50']
  const child = spawn('ip', ['netns', 'exec', 'peer', process.execPath, main, ...serve], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const events: ServeEvent[] = []
  const lines = createInterface({ input: child.stdout })
  lines.on('line', (line) => events.push(JSON.parse(line) as ServeEvent))
  await once(lines, 'line')
  const [ready] = events
  t.match(ready, { event: 'ready', device: 'rxe1', size: 131072 })
  const port = ready?.event === 'ready' ? ready.port : 0
  const peer = ['--engine', 'verbs:rxe0', '--peer', `10.0.0.2:${port}`, '--moves', '12']
  const { stdout, stderr, status } = smoke(...peer)
  t.equal(status, 0, wrong(stderr))
  const report = JSON.parse(stdout) as SmokeReport
  t.match(report, { ok: true, moves: 12, lost: 0, doubled: 0, torn: 0, strayWrites: 0 })
  t.equal(report.scenarios.length, 3)
  child.kill('SIGHUP')
  const [code] = (await once(child, 'close')) as [number]
  t.equal(code, 129, 'in good order, as by SIGTERM')
  const gone = events.flatMap((event) => (event.event === 'gone' ? [event] : []))
  t.equal(gone.length, 4, 'one look, and one peer for each scenario')
  for (const { error, failedMoves, strayWrites } of gone) {
    t.match({ error, failedMoves, strayWrites }, { error: null, failedMoves: 0, strayWrites: 0 })
  }
  t.ok(gone.some(({ moves }) => moves > 0))
})

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
  const missing = smoke('--engine', 'verbs:mlx5_0')
  t.equal(missing.status, 77)
  t.match(missing.stderr, /There is no RDMA device 'mlx5_0' .*\n.*rxe0, rxe1/)
  t.match(JSON.parse(missing.stdout), { error: null, untestable: /'mlx5_0'/, scenarios: [] })
  // Whoever should be there, and is not, is no matter of this host.
  const refused = smoke('--engine', 'verbs', '--peer', '127.0.0.1:9')
  t.equal(refused.status, 1)
  t.match(JSON.parse(refused.stdout), { error: /ECONNREFUSED/, untestable: null, scenarios: [] })
})

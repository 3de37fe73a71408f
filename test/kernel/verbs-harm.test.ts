/** What the smoke test does to a host on which others work: nothing, unless it is asked to. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { SendOp } from '../../lib/kernel/verbs/index.js'
import type { SmokeReport } from '../../lib/smoke/index.js'
import { wrong } from './support.js'
import { close, completions, pair, send, settledResources, rdmaResources } from './verbs-support.js'

if (process.env['P2PDMA_RIG'] !== '1') {
  throw new Error('this takes links down: run it in the rig')
}

const main = join(dirname(fileURLToPath(import.meta.url)), '../../lib/cli/main.js')

t.setTimeout(1_500_000)

const ARGS = ['smoke', '--engine', 'verbs', '--size', '65536', '--json', '-']

interface Result {
  code: number | null
  report: SmokeReport
  tap: string
}

function start(...args: string[]): { child: ChildProcess; ended: Promise<Result> } {
  const child = spawn(process.execPath, [main, ...ARGS, ...args])
  let [stdout, tap] = ['', '']
  child.stdout.on('data', (part: Buffer) => (stdout += part.toString()))
  child.stderr.on('data', (part: Buffer) => (tap += part.toString()))
  const ended = once(child, 'close').then(([code]) => ({
    code: code as number | null,
    report: (stdout === '' ? {} : JSON.parse(stdout)) as SmokeReport,
    tap,
  }))
  return { child, ended }
}

const text = (...words: [string, ...string[]]) =>
  execFileSync(words[0], words.slice(1), { encoding: 'utf8' })

/** What of it is to be as before; with how often each link has changed since the boot. */
function snapshot(): Record<string, unknown> {
  const ip = [
    'link',
    'address',
    'route show table all',
    '-6 route show table all',
    'neigh show nud permanent',
  ]
  const both = ip.flatMap((words) => {
    const args = ['-o', ...words.split(' ')]
    return [text('ip', ...args), text('ip', '-netns', 'peer', ...args)]
  })
  const net = readdirSync('/sys/class/net').map((name) =>
    [
      'flags',
      'mtu',
      'tx_queue_len',
      'carrier_changes',
      'carrier_up_count',
      'carrier_down_count',
    ].map((file) => `${name} ${file} ${read(`/sys/class/net/${name}/${file}`)}`),
  )
  const pci = readdirSync('/sys/bus/pci/devices').map((address) => {
    const folder = `/sys/bus/pci/devices/${address}`
    const files = ['driver_override', 'enable', 'power_state', 'd3cold_allowed'].map(
      (file) => `${file} ${read(`${folder}/${file}`)}`,
    )
    return [address, ...files, link(`${folder}/driver`)].join(' ')
  })
  return {
    ip: both.join('\n').replaceAll(/(?:valid_lft|preferred_lft|expires) \S+/g, ''),
    net: net.flat(),
    pci,
    modules: read('/proc/modules')
      .split('\n')
      .map((line) => line.split(' ')[0]),
    rdma: text('rdma', '-j', 'link') + text('rdma', '-j', 'system'),
    sysctl: spawnSync('sysctl', ['-a', '--pattern', '^(net|vm|kernel\\.printk)'], {
      encoding: 'utf8',
    })
      .stdout.split('\n')
      .filter((line) => !/random|entropy|drop_caches|stat_refresh/.test(line)),
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return 'none'
  }
}

function link(path: string): string {
  try {
    return readlinkSync(path)
  } catch {
    return 'none'
  }
}

const isUp = () => (Number(read('/sys/class/net/p2p0/flags')) & 1) !== 0

/** Link events from now on, as `ip monitor` tells them. */
async function watchLinks(): Promise<{ end: () => Promise<string> }> {
  const child = spawn('ip', ['monitor', 'link'])
  let seen = ''
  child.stdout.on('data', (part: Buffer) => (seen += part.toString()))
  // It says nothing when it listens: an event of an interface of its own tells.
  while (!seen.includes('p2pdma-probe')) {
    text('ip', 'link', 'add', 'p2pdma-probe', 'type', 'dummy')
    text('ip', 'link', 'delete', 'p2pdma-probe')
    await sleep(200)
  }
  await sleep(1000)
  seen = ''
  return {
    end: async () => {
      await sleep(1000)
      child.kill()
      await once(child, 'close')
      return seen
    },
  }
}

/** Stopped and continued, at its first `ok`. */
function stopAWhile(child: ChildProcess, ms: number): void {
  const onTap = (part: Buffer) => {
    if (!part.toString().includes('# Subtest')) return
    child.stderr?.off('data', onTap)
    child.kill('SIGSTOP')
    setTimeout(() => child.kill('SIGCONT'), ms)
  }
  child.stderr?.on('data', onTap)
}

t.test('nothing outside of its process is changed', async (t) => {
  // Somebody else's queue pairs, on the same devices.
  const others = await pair()
  const resources = rdmaResources()
  const links = await watchLinks()
  const before = snapshot()
  const { child, ended } = start('--moves', '60')
  // In the middle of it all, the process does not run for a while.
  stopAWhile(child, 5000)
  const { code, report, tap } = await ended
  t.equal(code, 0, wrong(tap))
  t.strictSame(snapshot(), before)
  t.equal(await links.end(), '', 'no event of any link')
  t.equal(await settledResources(resources), resources)
  // Time in which it was stopped is held against nobody.
  t.match(report, { error: null, forcedStops: 0, failedOperations: 0 })
  t.match(report, { ok: true, moves: 60, planned: { effects: [], touches: [] } })
  t.match(report.kernelLog, { complaints: [], unreadable: null })
  const unasked = report.skipped.filter(({ effects }) => effects.length > 0)
  t.same(
    unasked.map(({ effects }) => effects),
    [['link'], ['kill'], ['revoke']],
  )
  for (const { name, reason, effects } of unasked) {
    t.match(reason, new RegExp(`nobody has asked for: --disruptive=${effects.join(',')}$`))
    t.ok(tap.includes(`${name} # SKIP ${reason}`), name)
  }
  t.ok(report.scenarios.every(({ effects }) => effects.length === 0))
  t.match(tap, /^# will change nothing outside of this process$/m)
  const [sender] = others
  send(sender, {
    opcode: SendOp.RDMA_WRITE,
    remoteAddress: others[1].region.iova,
    ...{ rkey: others[1].region.rkey },
  })
  t.match(await completions(sender.cq, 1), [{ status: 'SUCCESS' }], "others' queue pairs work on")
  await close(...others)
})

t.test('in the profile for hosts, it keeps within its bounds', async (t) => {
  const before = snapshot()
  const begun = performance.now()
  // Half of its minute, for as many moves as there are time for: it is the time that ends it.
  const args = ['--profile', 'host', '--seconds', '30', '--moves', '100000']
  const { code, report, tap } = await start(...args).ended
  const seconds = (performance.now() - begun) / 1000
  t.equal(code, 0, wrong(tap))
  t.strictSame(snapshot(), before)
  const bounds = { profile: 'host', seconds: 30, maxMemoryBytes: 256 << 20, effects: [] }
  t.match(report.planned, bounds)
  t.ok(report.planned.memoryBytes <= 256 << 20)
  t.ok(report.peakMemoryBytes <= 256 << 20, `${report.peakMemoryBytes} bytes at most`)
  t.ok(report.durationMs <= 30_000, `${report.durationMs} ms`)
  // From outside there are this process's turns, and the guest's busy hours.
  t.ok(seconds <= 60, `${seconds} s from outside`)
  t.ok(report.scenarios.length > 0)
})

t.test('an interface that is not there, or not under the devices, is refused', async (t) => {
  for (const [name, message] of [
    ['lo', /--link lo: that is under none of them/],
    ['p2p9', /--link p2p9: that is no network interface here/],
  ] as const) {
    const wrongLink = await start('--disruptive=link', '--link', name).ended
    t.match(wrongLink, { code: 2, tap: message })
  }
})

t.test('killed while a link is down, the next run puts it back, routes and all', async (t) => {
  text('ip', 'address', 'add', '2001:db8::5/64', 'dev', 'p2p0', 'nodad')
  text('ip', 'route', 'add', '198.51.100.0/24', 'via', '10.0.0.2', 'dev', 'p2p0')
  text('ip', 'route', 'add', '203.0.113.0/24', 'via', '10.0.0.2', 'dev', 'p2p0', 'table', '77')
  t.teardown(() => {
    text('ip', 'address', 'delete', '2001:db8::5/64', 'dev', 'p2p0')
    text('ip', 'route', 'delete', '198.51.100.0/24')
    text('ip', 'route', 'flush', 'table', '77')
  })
  const routes = () =>
    text('ip', 'route', 'show', 'table', 'all', 'dev', 'p2p0') +
    text('ip', '-6', 'route', 'show', 'table', 'all', 'dev', 'p2p0', 'type', 'unicast')
  const before = routes()
  const { child, ended } = start('--moves', '15', '--disruptive=link', '--link', 'p2p0')
  while (isUp() && child.exitCode === null) await sleep(2)
  child.kill('SIGKILL')
  const killed = await ended
  t.equal(child.signalCode, 'SIGKILL', wrong(killed.tap))
  t.equal(isUp(), false, 'it is down')
  t.not(routes(), before)

  // And what carries more than RDMA is left alone unless it is named.
  const { code, report, tap } = await start('--moves', '1', '--disruptive=link').ended
  t.equal(code, 0, wrong(tap))
  t.equal(isUp(), true, 'it is up again')
  const kept = report.skipped.find(({ effects }) => effects.includes('link'))
  t.match(kept?.reason, /p2p0 carries more than RDMA \(10\.0\.0\.1, .*\): --link p2p0 takes it/)
  await sleep(3000)
  const lines = (routes: string) => routes.trim().split('\n').sort()
  t.strictSame(lines(routes()), lines(before))
  t.match(report.putBack, [{ pid: child.pid, what: /link of p2p0 was taken down/, error: null }])
  t.match(tap, /^# process \d+ was ended before its time: the link of p2p0 .*; put back$/m)
})

t.test('ended by a signal while a link is down, it puts it back itself', async (t) => {
  const { child, ended } = start('--moves', '15', '--disruptive=link', '--link', 'p2p0')
  while (isUp() && child.exitCode === null) await sleep(2)
  // The second one ends it at once.
  child.kill('SIGHUP')
  child.kill('SIGTERM')
  const { code } = await ended
  t.ok(code === 129 || code === 143, `${code}`)
  t.equal(isUp(), true, 'it is up again')
  const left = readdirSync('/run/p2pdma').filter((name) => name.startsWith('undo-'))
  t.same(left, [])
})

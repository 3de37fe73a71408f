/** `p2pdma smoke --engine vfio`, and a device that fails or goes away in the middle. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import type { SmokeReport } from '../../lib/smoke/index.js'
import { pinnedPages, wrong } from './support.js'
import {
  Aer,
  PARTNER,
  PORT,
  VICTIM,
  bindBoth,
  devicePath,
  injectAer,
  rescan,
  write,
} from './vfio-lost-help.js'

const main = join(dirname(fileURLToPath(import.meta.url)), '../../lib/cli/main.js')

t.setTimeout(900_000)

const unbind = await bindBoth()
t.teardown(() => unbind())

/** Runs it, and `disrupt` when the first scenario has ended. */
async function smoke(moves: number, disrupt?: () => Promise<unknown>) {
  const child = spawn(
    process.execPath,
    [
      main,
      'smoke',
      '--engine',
      `vfio:${PARTNER},${VICTIM}`,
      '--json',
      '-',
      '--size',
      '262144',
    ].concat(['--moves', String(moves)]),
    { stdio: ['ignore', 'pipe', 'pipe'] },
  )
  const closed = once(child, 'close')
  let [report, tap] = ['', '']
  let disrupted: Promise<unknown> | undefined
  child.stdout.on('data', (chunk: Buffer) => (report += String(chunk)))
  child.stderr.on('data', (chunk: Buffer) => {
    tap += String(chunk)
    if (/^ok 1 /m.test(tap)) disrupted ??= disrupt?.()
  })
  const [code, signal] = (await closed) as [number | null, string | null]
  await disrupted
  if (disrupt !== undefined && disrupted === undefined) throw new Error(`never began: ${tap}`)
  return { code, signal, tap, report: JSON.parse(report) as SmokeReport }
}

t.test('smoke, and the device is lost in the middle', async (t) => {
  const pinned = pinnedPages()
  for (const [name, disrupt, back] of [
    ['removed', () => write(devicePath(VICTIM, 'remove'), '1'), () => rescan()],
    ['a fatal error', () => injectAer(Aer.MALFORMED), () => sleep(1500)],
  ] as const) {
    const { code, signal, tap, report } = await smoke(140, disrupt)
    t.equal(signal, null, `${name}: it ends by itself`)
    t.equal(code, 1, `${name}: it says that it has failed`)
    t.equal(report.ok, false)
    t.match(report.error ?? tap, /is gone \(ERR_DEVICE_LOST\); hint:/, `${name}: and why`)
    t.equal(pinnedPages(), pinned, `${name}: nothing stays mapped`)
    await back()
  }
  const { code, tap, report } = await smoke(14)
  t.equal(code, 0, wrong(tap))
  t.match(report, { ok: true, error: null }, 'the next run works')
})

t.test('smoke, and an error and a reset that it survives', async (t) => {
  const disrupt = async () => {
    await injectAer(Aer.COMPLETION_TIMEOUT)
    await sleep(1000)
    await write(devicePath(PORT, 'reset_subordinate'), '1')
  }
  // So many that the first scenario leaves enough for both.
  const { code, tap, report } = await smoke(84, disrupt)
  t.equal(code, 0, wrong(tap))
  t.match(report, { ok: true, error: null, lost: 0, doubled: 0, torn: 0 })
})

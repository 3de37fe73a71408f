/** The smoke test over memory of a device that a NIC registers, which the kernel revokes. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv } from 'ajv'
import t from 'tap'
import { wrong } from './support.js'
import type { SmokeReport } from '../../lib/smoke/index.js'
import { dist, root } from './list.js'

t.setTimeout(900_000)

const NAME = 'the kernel revokes a BAR, RDMA write'

function smoke(...args: string[]) {
  const main = join(dist, 'lib/cli/main.js')
  const all = [main, 'smoke', '--engine', 'verbs', ...args, '--size', '65536', '--json', '-']
  return spawnSync(process.execPath, all, { encoding: 'utf8' })
}

t.test('a BAR and system memory', async (t) => {
  const disruptive = ['--disruptive=revoke', '--moves', '16']
  const { stdout, stderr, status } = smoke('--from', 'vfio-bar', '--to', 'udmabuf', ...disruptive)
  t.equal(status, 0, wrong(stderr))
  const report = JSON.parse(stdout) as SmokeReport
  t.match(report, { error: null, ok: true, moves: 16, failedMoves: 0, failedOperations: 0 })
  t.match(report, { lost: 0, doubled: 0, torn: 0, strayWrites: 0 })
  t.ok(report.scenarios.some(({ name, ok }) => name === NAME && ok))
  t.match(stderr, /1 times the memory was revoked and [1-9]\d* writes to it failed: EFAULT/)

  const schema = readFileSync(join(root, 'lib/smoke/smoke.schema.json'), 'utf8')
  const validate = new Ajv({ strict: true, allowUnionTypes: true }).compile(
    JSON.parse(schema) as object,
  )
  t.ok(validate(report), JSON.stringify(validate.errors))
  const axesOf = (wanted: string) =>
    report.axes.filter(({ exporter }) => exporter.startsWith(wanted))
  for (const [exporter, mover] of [
    ['vfio-bar', 'us'],
    ['udmabuf', 'us'],
    ['p2pdma_mover', 'kernel'],
  ] as const) {
    t.strictSame(
      axesOf(exporter).map((axes) => [axes.device, axes.registration, axes.mover, axes.reason]),
      ['rxe0', 'rxe1'].map((device) => [device, 'dma-buf', mover, null]),
      exporter,
    )
  }
  t.match(stderr, /^# p2pdma_mover on rxe1: .*; mover kernel, decided by: an attempt to move/m)
})

t.test('no memory of a device', async (t) => {
  const { stderr, status } = smoke('--from', 'udmabuf', '--to', 'heap:system', '--moves', '1')
  t.equal(status, 0, wrong(stderr))
  t.match(
    stderr,
    new RegExp(
      `^ok \\d+ - ${NAME} # SKIP no buffer .*: --from vfio-bar; and .*: --disruptive=revoke$`,
      'm',
    ),
  )
})

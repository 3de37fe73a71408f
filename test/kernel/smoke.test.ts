/** The smoke test on the kernel's own exporters. */
import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import type { SmokeReport } from '../../lib/smoke/index.js'

const main = join(dirname(fileURLToPath(import.meta.url)), '../../lib/cli/main.js')

t.setTimeout(900_000)

void t.test('udmabuf, heap and memory, with the kernel as a witness', async (t) => {
  const args = ['--from', 'udmabuf', '--to', 'heap:system,memfd', '--moves', '20']
  const { stdout, stderr } = spawnSync(
    process.execPath,
    [main, 'smoke', ...args, '--size', '1048576', '--json', '-'],
    { encoding: 'utf8' },
  )
  const report = JSON.parse(stdout) as SmokeReport
  t.match(
    report,
    { error: null, moves: 20, failedMoves: 0, lost: 0, doubled: 0, torn: 0, strayWrites: 0 },
    stderr,
  )
  t.ok(report.bytesVerified > 0)
  const [heap, memory, udmabuf] = report.exporters
  t.match(heap, { name: 'heap:system', kind: 'kernel', kernelName: 'system' })
  t.match(memory, { name: 'memfd', kind: 'embedded', kernelName: null })
  t.match(udmabuf, { name: 'udmabuf', kind: 'kernel', kernelName: 'udmabuf' })
  for (const { name, seenByKernel } of [heap, udmabuf].flatMap((each) => each ?? [])) {
    t.ok(Number(seenByKernel) > 0, `${name}: in the kernel's list of dma-bufs`)
  }
})

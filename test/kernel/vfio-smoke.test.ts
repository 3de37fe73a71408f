/** The smoke test on two NICs, and the examples that drive them. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { iommu, wrong } from './support.js'
import { memfd } from '../../lib/exporters/index.js'
import { type SmokeReport, withDefaults } from '../../lib/smoke/index.js'
import { openPlant } from '../../lib/smoke/open-plant.js'
import { describe } from '../../lib/smoke/tally.js'

const dist = join(dirname(fileURLToPath(import.meta.url)), '../..')
const main = join(dist, 'lib/cli/main.js')

t.setTimeout(400_000)

t.test('every scenario, with the IOMMU as a judge', async (t) => {
  const every = ['smoke', '--engine', 'vfio', '--disruptive', '--moves', '28', '--size', '256K']
  const { stdout, stderr, status } = spawnSync(process.execPath, [main, ...every, '--json', '-'], {
    encoding: 'utf8',
  })
  t.equal(status, 0, wrong(stderr))
  const report = JSON.parse(stdout) as SmokeReport
  t.match(report, { iommu, error: null, ok: true, moves: 28, failedMoves: 0, dmaFaults: 0 })
  t.match(report, { lost: 0, doubled: 0, torn: 0, strayWrites: 0, framesDropped: 0 })
  t.equal(report.scenarios.length, 7)
  for (const { name, bytesVerified, moves } of report.scenarios) {
    t.ok(bytesVerified > 0 && moves > 0, name)
  }
})

t.test('unasked, no device is reset and no link goes down', async (t) => {
  const args = ['smoke', '--engine', 'vfio', '--moves', '8', '--size', '256K', '--json', '-']
  const { stdout, stderr, status } = spawnSync(process.execPath, [main, ...args], {
    encoding: 'utf8',
  })
  t.equal(status, 0, wrong(stderr))
  const { resets, skipped, scenarios } = JSON.parse(stdout) as SmokeReport
  t.equal(resets, 0)
  t.same(
    skipped.flatMap(({ effects }) => effects),
    ['reset', 'link'],
  )
  t.equal(scenarios.length, 5)
})

t.test('what is missing is said', async (t) => {
  for (const [engine, memory, message] of [
    ['vfio:0000:00:11.0,0000:00:11.0', null, /two NICs/],
    ['vfio:0000:00:1f.0,0000:00:11.0', null, /p2pdma bind 0000:00:1f.0/],
    ['vfio', '0000:99:00.0', /no PCI device/],
  ] as const) {
    const opening = openPlant(withDefaults({ engine, memory }), { from: memfd(), to: [memfd()] })
    const error = await opening.then(
      () => null,
      (thrown: unknown) => thrown,
    )
    t.match(describe(error), message)
  }
})

t.test('the sink takes what the generator sends', async (t) => {
  // How long the generator takes to start says nothing of the sink.
  const words = [join(dist, 'examples/packet-sink.js'), '0000:00:12.0', '300']
  const sink = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  sink.stdout.setEncoding('utf8')
  while (!text.includes('listens')) text += String((await once(sink.stdout, 'data'))[0])
  sink.stdout.on('data', (chunk: string) => (text += chunk))
  const generator = spawnSync(process.execPath, [join(dist, 'examples/packet-generator.js')], {
    encoding: 'utf8',
  })
  t.equal(generator.status, 0, generator.stderr)
  t.match(generator.stdout, /1024 sent, 0 dropped/)
  const [code] = (await once(sink, 'close')) as [number]
  t.equal(code, 0)
  t.match(text, /^1024 frames, 1550336 bytes/m)
})

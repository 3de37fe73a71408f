/** Two safeguards that only real memory shows; test/mutants/table.ts takes them out. */
import t from 'tap'
import { SoftwareEngine } from '../../lib/engines/index.js'
import type { SoftwareChannel } from '../../lib/engines/software/channel.js'
import { memfd } from '../../lib/exporters/index.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { outcome, turn } from '../lifecycle/support.js'

const MiB = 1 << 20
const SIZE = 4 * MiB

void t.test('a long copy is stopped in its middle, and its target moves', async (t) => {
  await using engine = new SoftwareEngine()
  const channels: SoftwareChannel[] = []
  const open = engine.openChannel.bind(engine)
  engine.openChannel = (options) => {
    const channel = open(options)
    channels.push(channel)
    return channel
  }
  const importer = engine.importer()
  await using source = await MovableBuffer.create(SIZE, memfd())
  await using target = await MovableBuffer.create(SIZE, memfd(), { poison: true })
  await source.withCpuAccess('w', (cpu) => {
    const words = cpu.view()
    for (let i = 0; i < SIZE; i++) words[i] = (i >> 12) + i
  })
  const from = await importer.attach(source)
  const to = await importer.attach(target)
  importer.channel()
  const channel = importer.channels[0]
  // 64 chunks, 6 s: nobody is so busy that it is over before it is stopped.
  channels[0]?.slow(100_000_000)
  const done = channel?.copy(from, 0, to, 0, SIZE) ?? Promise.reject(new Error('no channel'))
  done.catch(() => {})
  while (engine.stats().chunks < 3) await turn()
  await target.move(memfd())
  const { chunks } = engine.stats()
  t.ok(chunks < SIZE / 65536, `it was in its middle: ${chunks} chunks`)
  channels[0]?.slow(0)
  t.equal(await outcome(done), 'ok', 'held work goes on in the new backing')
  t.equal(engine.stats().faults, 0)
  const same = await source.withCpuAccess('r', (a) =>
    target.withCpuAccess('r', (b) => Buffer.compare(a.view(), b.view()) === 0),
  )
  t.ok(same, 'every byte is there, those of before the move too')
  t.equal(channel?.stats.stops, 1)
  t.equal(await target.countStrayWrites(), 0)
})

void t.test('a view ends with its bracket', async (t) => {
  await using buffer = await MovableBuffer.create(4096, memfd())
  const access = await buffer.beginCpuAccess('rw')
  const view = access.view()
  const window = new DataView(view.buffer)
  view[0] = 1
  await access.end()
  t.equal(view.length, 0, 'a stale view is empty')
  t.throws(() => window.getUint8(0), TypeError)
  t.throws(() => access.view(), { code: 'ERR_CLOSED' })
})

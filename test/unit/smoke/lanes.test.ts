import t, { type Test } from 'tap'
import { Importer } from '../../../lib/move-notify/importer/importer.js'
import { MovableBuffer } from '../../../lib/move-notify/exporter/movable-buffer.js'
import { type Form, openLane } from '../../../lib/smoke/lanes.js'
import { Probe } from '../../../lib/smoke/probe.js'
import { Tally } from '../../../lib/smoke/tally.js'
import { FakeEngine, FakeExporter } from '../fake-memory.js'

const PAGE = 4096
const turns = (count = 5) => new Promise<void>((resolve) => setTimeout(resolve, count))

async function lane(t: Test, form: Form) {
  const engine = new FakeEngine()
  const probe = new Probe(engine)
  const importer = new Importer(probe, { minRunMs: 0 })
  const memory = new FakeExporter('a')
  const source = await MovableBuffer.create(PAGE, memory)
  const target = await MovableBuffer.create(PAGE, memory)
  const from = await importer.attach(source)
  const to = await importer.attach(target)
  const tally = new Tally()
  const opened = openLane(form, importer.channel({ depth: 8 }), tally)
  const copies = (count: number) =>
    Array.from({ length: count }, (_, i) => ({
      from,
      fromOffset: i % 64,
      to,
      toOffset: i % 64,
      length: 64,
    }))
  t.teardown(async () => {
    await importer.close()
    await source.close()
    await target.close()
  })
  return { engine, probe, lane: opened, tally, target, to, copies, memory }
}

for (const form of ['promise', 'batch'] as const) {
  void t.test(`${form} form: more copies than the ring and the batch hold`, async (t) => {
    const { lane: opened, tally, copies } = await lane(t, form)
    const done = await Promise.all([opened.copy(copies(300)), opened.copy(copies(7))])
    t.strictSame(
      done.map(({ failed }) => failed),
      [0, 0],
    )
    opened.count()
    t.match(tally.counts, { failedOperations: 0, doubled: 0 })
  })

  void t.test(`${form} form: what waits for a closed gate is counted, once`, async (t) => {
    const { engine, lane: opened, tally, target, copies, memory, probe, to } = await lane(t, form)
    engine.held = true
    const first = opened.copy(copies(2))
    let moved = () => {}
    memory.beforeCopy = () => new Promise((resolve) => (moved = resolve))
    probe.watch(to.id)
    const moving = target.move(memory)
    await turns()
    t.equal(probe.unwatch(to.id), true, 'the move met work in flight')
    const second = opened.copy(copies(3))
    await turns()
    moved()
    await moving
    engine.resume()
    t.strictSame(
      (await Promise.all([first, second])).map(({ failed }) => failed),
      [0, 0],
    )
    opened.count()
    t.match(tally.counts, { operationsParked: 3, stops: 1, failedOperations: 0 })
  })

  void t.test(`${form} form: a second completion is counted as doubled`, async (t) => {
    const { engine, lane: opened, tally, copies } = await lane(t, form)
    engine.held = true
    const done = opened.copy(copies(2))
    await turns()
    const channel = engine.channels[0]
    const row = channel?.work[0]
    channel?.complete(row?.cookie ?? -1, 64, 0, 1)
    engine.resume()
    t.equal((await done).failed, 0)
    opened.count()
    t.equal(tally.counts.doubled, 1)
  })

  void t.test(`${form} form: a close ends what is under way`, async (t) => {
    const { engine, lane: opened, tally, copies } = await lane(t, form)
    engine.held = true
    const done = opened.copy(copies(20))
    await turns()
    await opened.channel.close()
    t.equal((await done).failed, 20)
    t.equal(tally.counts.failedOperations, 20)
    t.equal((await opened.copy(copies(1))).failed, 1, 'and what comes later')
  })

  void t.test(`${form} form: an attachment that is gone fails its copies`, async (t) => {
    const { lane: opened, tally, copies, to } = await lane(t, form)
    await to.close()
    t.equal((await opened.copy(copies(3))).failed, 3)
    t.equal(tally.counts.failedOperations, 3)
  })
}

void t.test('a move that meets no work is not counted as one that does', async (t) => {
  const { probe, lane: opened, target, to, copies, memory } = await lane(t, 'promise')
  await opened.copy(copies(2))
  probe.watch(to.id)
  await target.move(memory)
  t.equal(probe.unwatch(to.id), false)
})

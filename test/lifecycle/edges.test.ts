/** What once went wrong at the edges of the heart, one test each. */
import t from 'tap'
import { SoftwareEngine } from '../../lib/engines/index.js'
import { memfd } from '../../lib/exporters/index.js'
import { Batch, Completions, Op, Status } from '../../lib/move-notify/importer/batch.js'
import type { Attachment } from '../../lib/move-notify/importer/attachment.js'
import { Fence } from '../../lib/move-notify/reservation/fence.js'
import { Importer } from '../../lib/move-notify/importer/importer.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { quarantined } from '../../lib/move-notify/exporter/quarantine.js'
import { Usage } from '../../lib/move-notify/reservation/reservation.js'
import { FakeEngine, FakeExporter } from '../unit/fake-memory.js'
import { outcome, PAGE, turn } from './support.js'

function fillBatch(target: Attachment, length: number, rows = 1): Batch {
  const batch = new Batch(rows)
  batch.op.fill(Op.FILL)
  batch.target.fill(target.id)
  batch.length.fill(length)
  batch.operand.fill(7)
  return batch
}

void t.test("a row that names another importer's attachment is drained, not cut off", async (t) => {
  await using engine = new SoftwareEngine()
  await using buffer = await MovableBuffer.create(PAGE, memfd())
  const owner = engine.importer()
  // No stop is forced, however long this process is kept waiting.
  const other = engine.importer({ starvationLimit: 0, stopTimeoutMs: 600_000 })
  const attachment = await owner.attach(buffer)
  const channel = other.channel()
  const batch = fillBatch(attachment, PAGE)
  // The row is under way when the move comes, and until it is let go.
  engine.inject({ kind: 'stall' })
  t.equal(channel.post(batch, 0, 1), 1)
  while (engine.stats().injected === 0) await turn(0)
  let moved = false
  const move = buffer.move(memfd()).then(() => (moved = true))
  while (channel.state !== 'stopping' && !moved) await turn(0)
  t.notOk(moved, 'the move waits for the row')
  t.equal(channel.post(batch, 0, 1), 0, 'a row that must wait is not refused')
  engine.unstall()
  await move
  await channel.ready(batch, 0)
  const out = new Completions(1)
  while (channel.reap(out) === 0) await channel.completions()
  t.equal(out.status[0], Status.OK)
  t.equal(channel.stats.stops, 1)
  t.equal(engine.stats().faults, 0)
})

void t.test(
  'the slot of a mapping that a failed importer left behind is not used again',
  async (t) => {
    await using engine = new SoftwareEngine()
    await using a = await MovableBuffer.create(PAGE, memfd())
    await using b = await MovableBuffer.create(PAGE, memfd())
    const first = engine.importer()
    await first.attach(a)
    const channel = first.channel()
    first.fail(new Error('broken'))
    await turn()
    t.equal(channel.state, 'failed', 'and its channel says so until it is closed')
    await first.close()
    t.equal(channel.state, 'closed')
    const second = engine.importer()
    const attachment = await second.attach(b)
    t.same(await second.fill(attachment, 0, PAGE, 1), { bytes: PAGE })
  },
)

void t.test(
  'an engine that throws in unmap() fails its importer; the old backing is kept',
  async (t) => {
    const engine = new FakeEngine()
    const importer = new Importer(engine)
    const here = new FakeExporter('here')
    const buffer = await MovableBuffer.create(PAGE, here)
    const attachment = await importer.attach(buffer)
    engine.beforeUnmap = () => {
      throw new Error('no unmap')
    }
    const old = buffer.backing
    await t.rejects(buffer.move(here), { message: 'no unmap' })
    t.ok(quarantined().includes(old))
    t.equal(attachment.state, 'failed')
    t.match(importer.error, { message: 'no unmap' })
    t.notOk(buffer.reservation.locked)
    await importer.close()
    await buffer.close()
  },
)

void t.test('the close of an importer leaves turns to the event loop', async (t) => {
  const importer = new Importer(new FakeEngine())
  const here = new FakeExporter('here')
  for (let i = 0; i < 2000; i++) await importer.attach(await MovableBuffer.create(8, here))
  let done = false
  const before = importer.size
  const closed = importer.close().then(() => (done = true))
  const sizes = new Set<number>()
  while (!done) {
    sizes.add(importer.size)
    await new Promise((resolve) => setImmediate(resolve))
  }
  await closed
  t.equal(before, 2000)
  t.equal(importer.size, 0)
  t.ok(sizes.size >= 4, 'it was seen half done')
})

void t.test('one signal aborts all that waits, in one pass', async (t) => {
  const engine = new FakeEngine()
  const importer = new Importer(engine)
  const here = new FakeExporter('here')
  const buffer = await MovableBuffer.create(PAGE, here)
  const attachment = await importer.attach(buffer)
  const channel = importer.channel({ depth: 1 })
  engine.held = true
  const first = channel.fill(attachment, 0, 8, 1)
  const controller = new AbortController()
  const { signal } = controller
  const count = 20_000
  const waiting: Promise<unknown>[] = []
  for (let i = 0; i < count; i++) waiting.push(channel.fill(attachment, 0, 8, 2, { signal }))
  const last = channel.fill(attachment, 0, 8, 3)
  const settled = Promise.allSettled(waiting)
  // Taken out one by one they are looked at 2e8 times; all together, 20,001 times.
  let looks = 0
  const push = Array.prototype.push
  Array.prototype.push = function (this: unknown[], ...items: unknown[]) {
    looks += items.length
    return push.apply(this, items)
  }
  try {
    controller.abort()
    t.equal(channel.stats.waiting, 1)
    await Promise.resolve()
  } finally {
    Array.prototype.push = push
  }
  t.ok(looks < 10 * count, `${looks} looks`)
  for (const each of await settled) {
    if (each.status === 'fulfilled') t.fail('was not aborted')
  }
  engine.resume()
  t.same([await first, await last], [{ bytes: 8 }, { bytes: 8 }])
  t.equal(channel.stats.waiting, 0)
  await importer.close()
  await buffer.close()
})

void t.test('an aborted operation does not hold back those behind it', async (t) => {
  const engine = new FakeEngine()
  const importer = new Importer(engine)
  const here = new FakeExporter('here')
  const hanging = new FakeExporter('hanging')
  let copied = () => {}
  hanging.beforeCopy = () => new Promise((resolve) => (copied = resolve))
  const a = await MovableBuffer.create(PAGE, here)
  const b = await MovableBuffer.create(PAGE, here)
  const [toA, toB] = [await importer.attach(a), await importer.attach(b)]
  const move = a.move(hanging)
  await turn()
  const controller = new AbortController()
  const first = importer.fill(toA, 0, 8, 1, { signal: controller.signal })
  const behind = importer.fill(toB, 0, 8, 1)
  controller.abort()
  t.equal(await outcome(first), 'ABORT_ERR')
  t.same(await behind, { bytes: 8 })
  copied()
  await move
  await importer.close()
  await Promise.all([a.close(), b.close()])
})

void t.test('ready() with a full ring does not wait for one who waits for it', async (t) => {
  await using engine = new SoftwareEngine()
  await using buffer = await MovableBuffer.create(PAGE, memfd())
  const importer = engine.importer()
  const channel = importer.channel({ depth: 4 })
  const batch = fillBatch(await importer.attach(buffer), 8, 64)
  const out = new Completions(64)
  let row = 0
  let reaped = 0
  const signal = AbortSignal.timeout(300_000)
  while (row < 64) {
    row += channel.post(batch, row, 64 - row)
    if (row === 64) break
    await channel.ready(batch, row, { signal })
    reaped += channel.reap(out)
  }
  while (reaped < 64) {
    await channel.completions()
    reaped += channel.reap(out)
  }
  t.equal(reaped, 64)
})

void t.test("a move, the CPU and a close wait for others' fences", async (t) => {
  const here = new FakeExporter('here')
  const buffer = await MovableBuffer.create(PAGE, here)
  const add = async (usage: Usage) => {
    const { fence, signal } = Fence.create()
    await buffer.reservation.lock()
    buffer.reservation.addFence(fence, usage)
    buffer.reservation.unlock()
    return signal
  }
  const waits = async (work: Promise<unknown>, signal: (error?: Error) => void, error?: Error) => {
    let settled = false
    void work.then(() => (settled = true))
    await turn()
    const before = settled
    signal(error)
    await work
    return !before
  }
  const writing = await add(Usage.WRITE)
  t.ok(await waits(buffer.move(here), writing), 'a move waits for a write')
  const failing = await add(Usage.BOOKKEEP)
  t.ok(await waits(buffer.move(here), failing, new Error('x')), 'how it ends is not its business')
  const reader = await add(Usage.READ)
  await buffer.withCpuAccess('r', () => {})
  t.ok(
    await waits(
      buffer.withCpuAccess('w', () => {}),
      reader,
    ),
    'a writer waits for readers',
  )
  const never = await add(Usage.WRITE)
  await t.rejects(buffer.move(here, { copyTimeoutMs: 5 }), { code: 'ETIMEDOUT' })
  await t.rejects(buffer.move(here, { signal: AbortSignal.timeout(5) }), { code: 'ABORT_ERR' })
  t.notOk(buffer.reservation.locked)
  t.ok(await waits(buffer.close(), never), 'a close waits before it gives the memory back')
  t.equal(here.alive, 0)
})

void t.test('a bracket that cannot be ended does not keep the buffer open', async (t) => {
  const here = new FakeExporter('here')
  const engine = new FakeEngine()
  const importer = new Importer(engine)
  const buffer = await MovableBuffer.create(PAGE, here)
  const attachment = await importer.attach(buffer)
  buffer.backing.openCpuWindow = () =>
    Promise.resolve({
      view: () => new Uint8Array(0),
      end: () => Promise.reject(new Error('no end')),
    })
  await buffer.beginCpuAccess()
  await t.rejects(buffer.close(), { message: 'no end' })
  t.equal(attachment.state, 'closed')
  t.equal(here.alive, 0)
  await importer.close()
})

void t.test('a backing that cannot be poisoned is freed all the same', async (t) => {
  const here = new FakeExporter('here')
  const buffer = await MovableBuffer.create(PAGE, here, { poison: true })
  buffer.backing.poison = () => Promise.reject(new Error('no poison'))
  await t.rejects(buffer.move(here), { message: 'no poison' })
  t.equal(here.alive, 1)
  await buffer.close()
  t.equal(here.alive, 0)
})

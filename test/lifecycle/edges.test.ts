/** What once went wrong at the edges of the heart, one test each. */
import t from 'tap'
import { Fence } from '../../lib/move-notify/fence.js'
import { Importer } from '../../lib/move-notify/importer.js'
import { MovableBuffer } from '../../lib/move-notify/movable-buffer.js'
import { Usage } from '../../lib/move-notify/reservation.js'
import { FakeEngine, FakeExporter } from '../unit/fake-memory.js'
import { outcome, PAGE, turn } from './support.js'

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
  engine.release()
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

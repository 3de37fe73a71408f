/** Sends, and receives that stay posted: a device with two kinds of queue. */
import t, { type Test } from 'tap'
import { SoftwareEngine } from '../../lib/engines/software/engine.js'
import { memfd } from '../../lib/exporters/index.js'
import type { Attachment } from '../../lib/move-notify/importer/attachment.js'
import { Batch, Completions, Op, Status } from '../../lib/move-notify/importer/batch.js'
import type { Channel } from '../../lib/move-notify/importer/channel.js'
import { Importer, type ImporterOptions } from '../../lib/move-notify/importer/importer.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { deviceLostError } from '../../lib/errors.js'
import { quarantined } from '../../lib/move-notify/exporter/quarantine.js'
import { loseDevice } from '../../lib/move-notify/importer/shared.js'
import { FakeExporter, type FakeBacking } from './fake-memory.js'
import { BAD_FRAME, FakeRingEngine } from './fake-ring.js'

const PAGE = 4096

async function rig(t: Test, options: ImporterOptions = {}) {
  const engine = new FakeRingEngine()
  const importer = new Importer(engine, { minRunMs: 0, ...options })
  const memory = new FakeExporter('a')
  const other = new FakeExporter('b')
  const source = await MovableBuffer.create(PAGE, memory, { poison: true })
  const target = await MovableBuffer.create(PAGE, memory, { poison: true })
  const from = await importer.attach(source)
  const to = await importer.attach(target)
  await source.withCpuAccess('w', (cpu) => void cpu.view().fill(7))
  const bytes = () => (target.backing as FakeBacking).bytes
  const close = async () => {
    await importer.close()
    await source.close()
    await target.close()
    t.equal(memory.alive + other.alive, 0, 'every backing was freed')
    t.equal(engine.mapped.size, 0, 'nothing is mapped')
  }
  return { engine, importer, memory, other, source, target, from, to, bytes, close }
}

const tick = () => new Promise((resolve) => setImmediate(resolve))

/** Until the device has the work. */
async function posted(importer: Importer, count: number) {
  while (importer.stats.inFlight < count) await tick()
}

void t.test('a frame goes out of one buffer into another', async (t) => {
  const { engine, importer, from, to, bytes, close } = await rig(t)
  const got = importer.receive(to, 64, 2048)
  t.same(await importer.send(from, 0, 100), { bytes: 100 })
  t.same(await got, { bytes: 100 }, 'what arrived, not what there was room for')
  t.ok(
    bytes()
      .subarray(64, 164)
      .every((byte) => byte === 7),
  )
  t.equal(bytes()[164], 0)
  await Promise.all([importer.receive(to, 0, 64), importer.send(from, 0, 64)])
  t.equal(engine.rings.length, 2, 'one default channel for each queue')
  await close()
})

void t.test('moves do not wait for what never comes', async (t) => {
  const { importer, other, memory, source, target, from, to, bytes, close } = await rig(t)
  const got = [importer.receive(to, 0, 64), importer.receive(to, 64, 64)]
  await posted(importer, 2)
  await target.move(other)
  await target.move(memory)
  await source.move(other)
  t.equal(importer.stats.forcedStops, 0)
  const stops = importer.stats.stops
  t.ok(stops >= 1 && stops <= 2, 'the rx stopped, the idle tx did not')
  t.same(await importer.send(from, 0, 64), { bytes: 64 })
  t.same(await importer.send(from, 0, 32), { bytes: 32 })
  t.same(await Promise.all(got), [{ bytes: 64 }, { bytes: 32 }], 'in order, once each')
  t.ok(
    bytes()
      .subarray(0, 96)
      .every((byte) => byte === 7),
  )
  t.equal(await target.countStrayWrites(), 0)
  await close()
})

void t.test('frames that arrive during a move wait on the wire', async (t) => {
  const { engine, importer, other, target, from, to, bytes, close } = await rig(t)
  const got = importer.receive(to, 0, 64)
  await posted(importer, 1)
  let release = () => {}
  other.beforeCopy = () => new Promise((resolve) => (release = resolve))
  const moved = target.move(other)
  await importer.send(from, 0, 64)
  for (let i = 0; i < 10; i++) await tick()
  t.equal(engine.wire.length, 1)
  release()
  await moved
  t.same(await got, { bytes: 64 })
  t.ok(
    bytes()
      .subarray(0, 64)
      .every((byte) => byte === 7),
  )
  await close()
})

const ends: [
  string,
  (rig: { importer: Importer; rx: Channel; to: Attachment }) => Promise<void>,
][] = [
  ['its attachment', ({ to }) => to.close()],
  ['its channel', ({ rx }) => rx.close()],
  ['its importer', ({ importer }) => importer.close()],
  ['its buffer', ({ to }) => to.buffer.close()],
]

for (const [what, end] of ends) {
  void t.test(`a posted receive ends with ${what}`, async (t) => {
    const { engine, importer, from, to, close } = await rig(t)
    const rx = importer.channel({ queue: 'rx', depth: 1 })
    const first = t.rejects(rx.receive(to, 0, 64), { code: 'ERR_CLOSED' })
    const waits = t.rejects(rx.receive(to, 64, 64), { code: 'ERR_CLOSED' })
    await posted(importer, 1)
    await end({ importer, rx, to })
    await Promise.all([first, waits])
    t.equal(importer.stats.forcedStops, 0)
    if (what === 'its attachment') {
      t.same(engine.released, [to.id])
      const again = await importer.attach(to.buffer)
      const got = rx.receive(again, 0, 64)
      const tx = importer.channel({ queue: 'tx' })
      await tx.send(from, 0, 64)
      t.same(await got, { bytes: 64 }, 'the channel goes on')
    }
    await close()
    const released = [...engine.released].sort()
    t.same(released, what === 'its attachment' ? [0, 1, 2 ** 20 + 1] : [0, 1], 'each once')
  })
}

void t.test('a send in flight when its channel closes has an unknown outcome', async (t) => {
  const { engine, importer, from, close } = await rig(t)
  const tx = importer.channel({ queue: 'tx' })
  engine.held = true
  const doomed = t.rejects(tx.send(from, 0, 64), { code: 'ERR_OUTCOME_UNKNOWN' })
  await posted(importer, 1)
  await tx.close()
  await doomed
  await close()
})

void t.test('a lost device ends all of its work with one error', async (t) => {
  const { engine, importer, other, source, target, from, to, close } = await rig(t)
  const second = new Importer(engine, { minRunMs: 0 })
  const before = quarantined().length
  engine.held = true
  const lost = deviceLostError('the device', 'plug it in again')
  const [tx, rx] = [importer.channel({ queue: 'tx', depth: 1 }), importer.channel({ queue: 'rx' })]
  const works = [tx.send(from, 0, 64), tx.send(from, 64, 64), rx.receive(to, 0, 64)]
  const ended = works.map((work) => work.catch((error: unknown) => error))
  await posted(importer, 2)
  loseDevice(engine, lost, true)
  for (const error of await Promise.all(ended)) t.equal(error, lost)
  for (const each of [importer, second]) t.equal(each.error, lost)
  t.same([tx.state, rx.state, from.state, to.error], ['failed', 'failed', 'failed', lost])
  await t.rejects(tx.send(from, 0, 64), { code: 'ERR_DEVICE_LOST', hint: /plug it in/ })
  t.throws(() => importer.channel({ queue: 'tx' }), { code: 'ERR_DEVICE_LOST' })
  await t.rejects(importer.attach(source), { code: 'ERR_DEVICE_LOST' })
  await target.move(other)
  t.equal(quarantined().length, before, 'out of its reach: the memory is used again')
  loseDevice(engine, deviceLostError('again', 'never'), false)
  t.equal(importer.error, lost, 'the first reason stays')
  await second.close()
  // Nobody asks a lost device to unmap: what it had mapped goes with the engine's close.
  engine.mapped.clear()
  await close()
})

void t.test('a lost device ends a batch with that error too', async (t) => {
  const { engine, importer, from, close } = await rig(t)
  engine.held = true
  const tx = importer.channel({ queue: 'tx' })
  const batch = new Batch(1)
  batch.op[0] = Op.SEND
  batch.source[0] = from.id
  batch.length[0] = 64
  t.equal(tx.post(batch, 0, 1), 1)
  const waiting = tx.completions()
  const lost = deviceLostError('the device', 'plug it in again')
  loseDevice(engine, lost, true)
  await waiting
  t.throws(() => tx.reap(new Completions(1)), { code: 'ERR_DEVICE_LOST' })
  t.throws(() => tx.post(batch, 0, 1), { code: 'ERR_DEVICE_LOST' })
  engine.mapped.clear()
  await close()
})

void t.test('an aborted receive keeps its place in the device', async (t) => {
  const { importer, other, target, from, to, bytes, close } = await rig(t)
  const rx = importer.channel({ queue: 'rx', depth: 2 })
  const controller = new AbortController()
  const { signal } = controller
  const aborted = t.rejects(rx.receive(to, 0, 64, { signal }), { code: 'ABORT_ERR' })
  const kept = rx.receive(to, 64, 64)
  const waits = t.rejects(rx.receive(to, 128, 64, { signal }), { code: 'ABORT_ERR' })
  await posted(importer, 2)
  controller.abort()
  await Promise.all([aborted, waits])
  await target.move(other)
  t.equal(rx.stats.stops, 1, 'the device may write there still: a move stops it')
  await importer.send(from, 0, 64)
  await importer.send(from, 0, 32)
  t.same(await kept, { bytes: 32 }, 'the second frame')
  t.equal(bytes()[0], 7, 'the first went where the aborted one pointed')
  t.equal(bytes()[128], 0, 'what waited was taken out')
  t.same(rx.stats.inFlight + rx.stats.waiting, 0)
  t.equal(rx.stats.unmatchedCompletions, 0)
  await t.rejects(rx.receive(to, 0, 64, { signal }), { code: 'ABORT_ERR' }, 'aborted before')
  await close()
})

void t.test("the device's own error", async (t) => {
  const { importer, source, from, close } = await rig(t)
  await source.withCpuAccess('w', (cpu) => void (cpu.view()[0] = BAD_FRAME))
  await t.rejects(importer.send(from, 0, 64), { code: 'ERR_DEVICE', message: /0x2a/ })
  t.same(await importer.send(from, 64, 64), { bytes: 64 }, 'the next one goes on')
  await close()
})

void t.test('a queue refuses what it does not do, and goes on', async (t) => {
  const { importer, from, to, close } = await rig(t)
  const tx = importer.channel({ queue: 'tx' })
  await t.rejects(tx.receive(to, 0, 64), { code: 'ERR_UNSUPPORTED' })
  await t.rejects(tx.copy(from, 0, to, 0, 64), { code: 'ERR_UNSUPPORTED' })
  t.same(await tx.send(from, 0, 64), { bytes: 64 })
  t.throws(() => importer.channel(), { code: 'ERR_UNSUPPORTED', argument: 'queue' })
  t.throws(() => importer.channel({ queue: 'fast' }), { code: 'ERR_UNSUPPORTED' })
  await t.rejects(importer.copy(from, 0, to, 0, 64), { code: 'ERR_UNSUPPORTED' })
  t.equal(importer.channels.length, 1)
  await close()
})

void t.test('a default channel that was closed is opened anew', async (t) => {
  const { importer, from, close } = await rig(t)
  await importer.send(from, 0, 64)
  await importer.channels[0]?.close()
  t.same(await importer.send(from, 0, 64), { bytes: 64 })
  await close()
  await t.rejects(importer.send(from, 0, 64), { code: 'ERR_CLOSED' })
})

void t.test('the batch form waits for what a row names, and for nothing else', async (t) => {
  const { importer, other, source, target, from, to, bytes, close } = await rig(t)
  const tx = importer.channel({ queue: 'tx' })
  const rx = importer.channel({ queue: 'rx' })
  const batch = new Batch(2)
  batch.op.set([Op.SEND, Op.RECEIVE])
  batch.source.set([from.id, 999])
  batch.target.set([999, to.id])
  batch.length.set([64, 128])
  batch.cookie.set([1, 2])
  t.equal(rx.post(batch, 1, 1), 1)
  await target.move(other)
  let release = () => {}
  other.beforeCopy = () => new Promise((resolve) => (release = resolve))
  const moved = source.move(other)
  while (from.state === 'mapped') await tick()
  t.equal(tx.post(batch, 0, 1), 0, 'its source is away')
  const ready = tx.ready(batch, 0)
  release()
  await Promise.all([moved, ready])
  t.equal(tx.post(batch, 0, 1), 1)
  const out = new Completions(4)
  await rx.completions()
  t.throws(() => rx.completionsSync(10), { code: 'ERR_UNSUPPORTED' })
  t.equal(rx.reap(out), 1)
  t.same([out.cookie[0], out.status[0], out.result[0]], [2, Status.OK, 64])
  t.equal(bytes()[63], 7)
  await from.close()
  t.throws(() => tx.post(batch, 0, 1), { code: 'ERR_CLOSED' })
  await close()
})

void t.test('nothing is released that a device may still reach', async (t) => {
  const { engine, importer, other, source, target, from, to } = await rig(t, { stopTimeoutMs: 1 })
  // Its channel uses what is attached by the other importer of this engine.
  const stranger = new Importer(engine, { minRunMs: 0, stopTimeoutMs: 1 })
  const rx = stranger.channel({ queue: 'rx' })
  const ring = engine.rings[0]
  if (ring === undefined) throw new Error('no ring')
  ring.beforeQuiet = () => new Promise(() => {})
  ring.beforeForce = () => {
    throw new Error('no reset')
  }
  const batch = new Batch(1)
  batch.op[0] = Op.RECEIVE
  batch.target[0] = to.id
  batch.length[0] = 64
  t.equal(rx.post(batch, 0, 1), 1)
  await t.rejects(target.move(other), { code: 'ETIMEDOUT' })
  t.match(stranger.error, { code: 'ETIMEDOUT' })
  t.equal(importer.error, null)
  await stranger.close()
  await importer.close()
  t.same(engine.released, [from.id])
  await source.close()
  await target.close()
})

void t.test('an attachment that could not be mapped is released', async (t) => {
  const { engine, importer, memory, close } = await rig(t)
  const third = await MovableBuffer.create(PAGE, memory)
  engine.beforeMap = () => {
    throw new Error('no mapping')
  }
  await t.rejects(importer.attach(third), { message: 'no mapping' })
  t.same(engine.released, [2])
  await third.close()
  await close()
})

void t.test('the software engine has one kind of queue, which does neither', async (t) => {
  const engine = new SoftwareEngine()
  const importer = engine.importer()
  const buffer = await MovableBuffer.create(PAGE, memfd())
  const attachment = await importer.attach(buffer)
  await t.rejects(importer.send(attachment, 0, 64), { code: 'ERR_UNSUPPORTED', argument: 'queue' })
  await t.rejects(importer.receive(attachment, 0, 64), { code: 'ERR_UNSUPPORTED' })
  const channel = importer.channel()
  await t.rejects(channel.send(attachment, 0, 64), { code: 'ERR_UNSUPPORTED' })
  await t.rejects(channel.receive(attachment, 0, 64), { code: 'ERR_UNSUPPORTED' })
  const batching = importer.channel()
  const batch = new Batch(2)
  batch.op.set([Op.NOP, Op.RECEIVE])
  t.throws(() => batching.post(batch, 0, 2), {
    code: 'ERR_UNSUPPORTED',
    argument: 'batch.op[1]',
    accepted: 1,
  })
  t.equal(importer.error, null)
  await engine.close()
  await buffer.close()
})

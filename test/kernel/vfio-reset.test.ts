/** The engine `vfio` when its device is reset, or taken away, in the midst of something else. */
import t from 'tap'
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'
import { VfioEngine } from '../../lib/engines/index.js'
import { memfd, udmabuf } from '../../lib/exporters/index.js'
import { Batch, Completions, Op, Status } from '../../lib/move-notify/importer/batch.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { listFds, openFds, settled } from './support.js'
import { FRAME, openTraffic, ROOM, SENDER, wrongFrames } from './vfio-traffic.js'

t.setTimeout(900_000)

const before = openFds()

/** Its copy takes longer than the device's reset. */
const LARGE = 32 << 20

const upTo = (count: number) => Array.from({ length: count }, (_, n) => n)

async function isUp(engine: VfioEngine): Promise<void> {
  while (engine.isDown) await sleep(2)
}

t.test('a reset that ends before the move does: what was posted stays', async (t) => {
  const traffic = await openTraffic({ stopTimeoutMs: 500 })
  t.teardown(() => traffic.close())
  const { sender, receiver, into, from } = traffic
  const target = await MovableBuffer.create(LARGE, memfd())
  const to = await into.attach(target)

  const received = upTo(8).map((n) => into.receive(to, n * ROOM, ROOM))
  await traffic.out.send(from, 0, FRAME)
  await received[0]
  const moving = target.move(udmabuf())
  const [rx] = into.channels
  while (rx?.state === 'running') await turn()
  receiver.reset('a test')
  await isUp(receiver)
  t.not(rx?.state, 'running', 'the move goes on')
  await moving
  await Promise.all(upTo(7).map((n) => traffic.out.send(from, (n + 1) * ROOM, FRAME)))
  t.same(
    (await Promise.all(received)).map(({ bytes }) => bytes),
    upTo(8).map(() => FRAME),
  )
  await target.move(memfd())
  t.same(
    (await wrongFrames(target)).filter((n) => n < 8),
    [],
  )

  // The sender's: a transmitter that hangs is forced, and what it had not begun waits for the move.
  const out = sender.importer({ stopTimeoutMs: 500 })
  await traffic.out.close()
  const large = await MovableBuffer.create(LARGE, memfd())
  await large.withCpuAccess('w', (cpu) => cpu.view(0, FRAME).fill(9))
  const sources = [await out.attach(large), await out.attach(traffic.frames)]
  const tx = out.channel({ queue: 'tx' })
  const again = upTo(8).map((n) => into.receive(to, n * ROOM, ROOM))
  sender.inject({ kind: 'hang-tx' })
  const sent = upTo(8).map((n) => tx.send(sources[n % 2]!, (n % 2) * n * ROOM, FRAME))
  const move = large.move(udmabuf())
  while (tx.stats.forcedStops === 0) await turn()
  await isUp(sender)
  for (let i = 0; i < 20; i++) await turn()
  t.not(tx.state, 'running', 'the move goes on')
  t.equal(tx.stats.inFlight, 8, 'nothing has been sent, nothing given up')
  await move
  t.same(
    (await Promise.allSettled(sent)).map(({ status }) => status),
    upTo(8).map(() => 'fulfilled'),
  )
  await Promise.all(again)
  const bytes = await target.withCpuAccess('r', (cpu) => upTo(8).map((n) => cpu.view(n * ROOM)[0]))
  t.same(
    bytes,
    upTo(8).map((n) => (n % 2 === 0 ? 9 : n + 1)),
    'in order',
  )
  await traffic.close()
  await large.close()
  await target.close()
})

t.test('what came in before a surprise reset is not received again', async (t) => {
  const traffic = await openTraffic()
  t.teardown(() => traffic.close())
  const { receiver, into, out, from } = traffic
  const target = await MovableBuffer.create(16 * ROOM, memfd())
  const to = await into.attach(target)
  const rx = into.channel({ queue: 'rx' })
  const batch = new Batch(4)
  for (const n of upTo(4)) {
    batch.op[n] = Op.RECEIVE
    batch.target[n] = to.id
    batch.targetOffset[n] = n * ROOM
    batch.length[n] = ROOM
    batch.cookie[n] = n
  }
  t.equal(rx.post(batch, 0, 4), 4)
  await Promise.all([out.send(from, 0, FRAME), out.send(from, ROOM, FRAME)])
  await sleep(50)
  let isTold = false
  receiver.on('reset', () => (isTold = true))
  receiver.inject({ kind: 'reset' })
  while (!isTold) await sleep(5)
  await isUp(receiver)
  await Promise.all([out.send(from, 2 * ROOM, FRAME), out.send(from, 3 * ROOM, FRAME)])
  const completions = new Completions(4)
  const seen: number[] = []
  while (seen.length < 4) {
    await rx.completions()
    const count = rx.reap(completions)
    for (let i = 0; i < count; i++) {
      t.equal(completions.status[i], Status.OK)
      seen.push(completions.cookie[i] ?? -1)
    }
  }
  t.same(seen, [0, 1, 2, 3])
  t.same(
    (await wrongFrames(target)).filter((n) => n < 4),
    [],
  )

  isTold = false
  receiver.reset('a test')
  t.notOk(isTold, 'a listener is called later: what it throws hits nothing of ours')
  await turn()
  t.ok(isTold)
  await isUp(receiver)
  await traffic.close()
  await target.close()
})

t.test('somebody closes the device under the engine', async (t) => {
  const traffic = await openTraffic()
  t.teardown(() => traffic.close())
  const { receiver, into, out, from } = traffic
  const target = await MovableBuffer.create(16 * ROOM, memfd())
  const to = await into.attach(target)
  const received = upTo(4).map((n) => into.receive(to, n * ROOM, ROOM))
  const ended = Promise.allSettled(received)
  await out.send(from, 0, FRAME)
  await received[0]
  await receiver.device.close()
  while (receiver.error === null) await sleep(5)
  const results = await ended
  for (const result of results.slice(1)) t.match(result, { reason: { code: 'ERR_DEVICE_LOST' } })
  t.match(receiver.error, { code: 'ERR_DEVICE_LOST' })
  t.throws(() => into.channel({ queue: 'rx' }), { code: 'ERR_DEVICE_LOST' })
  t.type(receiver.stats().dropped, 'number')
  await to.close()
  await target.move(memfd())
  await receiver.close()
  t.equal(receiver.closed, true)

  // With work in flight, and in the same turn.
  const sends = upTo(16).map((n) => out.send(from, n * ROOM, FRAME))
  const settledSends = Promise.allSettled(sends)
  void traffic.sender.device.close()
  const moved = traffic.frames.move(memfd())
  await traffic.sender.close()
  await settledSends
  await moved
  await traffic.close()
  await target.close()
  const engine = await VfioEngine.open(SENDER)
  t.equal(engine.error, null, 'it can be opened again')
  await engine.close()
})

t.test('closing and opening while the device is down', async (t) => {
  const traffic = await openTraffic()
  t.teardown(() => traffic.close())
  const { sender, receiver, into, out, from } = traffic
  const target = await MovableBuffer.create(16 * ROOM, memfd())
  const to = await into.attach(target)
  const first = into.channel({ queue: 'rx' })
  const given = first.receive(to, 0, ROOM)
  receiver.reset('a test')
  await first.close()
  await t.rejects(given, { code: 'ERR_CLOSED' })
  const rx = into.channel({ queue: 'rx' })
  t.ok(receiver.isDown)
  const posted = rx.receive(to, 0, ROOM)
  receiver.inject({ kind: 'reset' })
  receiver.reset('once more')
  await isUp(receiver)
  await out.send(from, 0, FRAME)
  t.match(await posted, { bytes: FRAME })

  // Stopped, moved and restarted while it is down, and again when it is up.
  const kept = [rx.receive(to, ROOM, ROOM), rx.receive(to, 2 * ROOM, ROOM)]
  receiver.reset('a test')
  await target.move(udmabuf())
  await isUp(receiver)
  await out.send(from, ROOM, FRAME)
  await target.move(memfd())
  await out.send(from, 2 * ROOM, FRAME)
  for (const each of kept) t.match(await each, { bytes: FRAME })
  t.same(
    (await wrongFrames(target)).filter((n) => n < 3),
    [],
  )

  const sends = Promise.allSettled([0, 1, 2].map((n) => out.send(from, n * ROOM, FRAME)))
  sender.reset('a test')
  await sender.close()
  for (const each of await sends) {
    if (each.status === 'rejected') t.match(each.reason, { code: /ERR_(CLOSED|OUTCOME_UNKNOWN)/ })
  }
  t.equal(sender.stats().resets, 1)
  await traffic.close()
  await target.close()
})

t.test('nothing is left', async (t) => {
  await settled()
  t.equal(openFds(), before, listFds().join('\n'))
})

import t from 'tap'
import { Op, Status } from '../../../lib/move-notify/importer/batch.js'
import { Access } from '../../../lib/move-notify/importer/engine.js'
import { backing, Bench, KiB, MiB, pattern, READ_WRITE, until } from './rig.js'

const CHUNK = 64 * KiB
const turn = () => new Promise((resolve) => setTimeout(resolve, 5))

/** A copy of 16 chunks that has begun and is far from its end: each next chunk takes an hour. */
async function longCopy(bench: Bench, id = 1) {
  const from = bench.map(id, 16 * CHUNK)
  const to = bench.map(id + 1, 16 * CHUNK)
  const { chunks } = bench.engine.stats()
  from.bytes.set(pattern(from.size, 1))
  bench.channel.slow(3600e9)
  bench.post({ source: id, target: id + 1, length: 16 * CHUNK, cookie: 9 })
  await until(() => bench.engine.stats().chunks === chunks + 1)
  return { from, to }
}

t.test('a stop comes between two chunks, a restart goes on with the next', async (t) => {
  using bench = new Bench()
  const { channel, engine } = bench
  const { from, to } = await longCopy(bench)
  await channel.stop()
  t.equal(engine.stats().chunks, 1)
  t.equal(channel.inFlight, 1)
  t.ok(channel.uses(1) && channel.uses(2))
  t.notOk(channel.uses(3))
  t.equal(bench.post({ op: Op.NOP }), 0, 'a stopped channel takes no work')
  await channel.stop()
  channel.slow(0)
  await turn()
  t.equal(engine.stats().chunks, 1, 'quiet')
  t.ok(to.bytes.subarray(CHUNK).every((byte) => byte === 0))
  to.bytes.fill(0, 0, CHUNK) // to see that the first chunk is not repeated
  channel.restart()
  t.match(await bench.take(1), [{ cookie: 9, status: Status.OK, result: 16 * CHUNK, epoch: 1 }])
  t.equal(engine.stats().chunks, 16)
  t.ok(to.bytes.subarray(0, CHUNK).every((byte) => byte === 0))
  t.equal(Buffer.compare(to.bytes.subarray(CHUNK), from.bytes.subarray(CHUNK)), 0)
  t.notOk(channel.uses(1))
})

t.test('a restart resolves what is held against the mappings of its time', async (t) => {
  using bench = new Bench()
  const { channel, engine } = bench
  const { from, to } = await longCopy(bench)
  bench.post(
    { op: Op.FILL, target: 2, targetOffset: 0, length: 8, operand: 1 },
    { op: Op.FETCH_ADD, target: 2, targetOffset: 8, length: 8, operand: 1 },
    { source: 3, target: 2, length: 8 },
  )
  bench.map(3, 4 * KiB)
  bench.post({ source: 3, target: 2, length: 8, cookie: 5 }, { op: Op.NOP, cookie: 6 })
  await channel.stop()
  engine.unmap(2)
  engine.unmap(3)
  const moved = backing(to.size)
  moved.bytes.set(to.bytes)
  to.bytes.fill(0xee)
  engine.map(2, moved, moved.size, READ_WRITE)
  channel.slow(0)
  channel.restart() // still sealed: that is for new work only
  const done = await bench.take(5)
  t.strictSame(
    done.map(({ status }) => status),
    [Status.OK, Status.OK, Status.OK, Status.NOT_MAPPED, Status.OK],
  )
  t.equal(Buffer.compare(moved.bytes.subarray(16), from.bytes.subarray(16)), 0)
  t.ok(
    to.bytes.every((byte) => byte === 0xee),
    'not one byte to the old place',
  )
  t.equal(engine.stats().faults, 0)
  moved.mapping.unmap()
})

t.test(
  'after unmap has returned not one byte is written, and the late access is a fault',
  async (t) => {
    using bench = new Bench()
    const { engine } = bench
    let caught = 0
    for (let round = 0; round < 60; round++) {
      bench.map(1, 4 * MiB)
      const to = bench.map(2, 4 * MiB)
      const bytes = to.bytes
      const { chunks, faults } = engine.stats()
      // Every other time with pauses, so that the unmap comes in the middle for certain.
      bench.channel.slow(round % 2 === 0 ? 0 : 100_000)
      bench.post({ op: Op.FILL, target: 2, length: 4 * MiB, operand: 1 }, { source: 1, target: 2 })
      while (engine.stats().chunks <= chunks + (round % 8));
      engine.unmap(2)
      bytes.fill(0xee)
      const done = await bench.take(2)
      for (const { status, result } of done) {
        if (status === Status.FAULT) t.equal(result % CHUNK, 0)
        else t.equal(status, Status.OK)
      }
      if (done[0]?.status === Status.FAULT) caught++
      const refused = done.filter(({ status }) => status === Status.FAULT).length
      t.equal(engine.stats().faults - faults, refused)
      t.equal(bytes.indexOf(1), -1)
      to.mapping.unmap()
      engine.unmap(1)
    }
    t.ok(caught > 0, `${caught} caught in the middle`)
  },
)

t.test('access is checked when the device touches, not only when it is asked', async (t) => {
  using bench = new Bench()
  const { channel, engine } = bench
  const { to } = await longCopy(bench)
  bench.post({ op: Op.FILL, target: 2, length: 8, operand: 1 })
  await channel.stop()
  engine.unmap(2)
  engine.map(2, to, CHUNK, Access.READ)
  channel.slow(0)
  channel.restart()
  t.match(await bench.take(2), [
    { status: Status.FAULT, result: CHUNK },
    { status: Status.FAULT, result: 0 },
  ])
})

t.test('a hung operation answers no stop; force starts a new epoch', async (t) => {
  using bench = new Bench()
  const { channel, engine } = bench
  const from = bench.map(1, 4 * CHUNK)
  const to = bench.map(2, 4 * CHUNK)
  from.bytes.set(pattern(from.size, 7))
  bench.post({ op: Op.NOP, cookie: 100 })
  await until(() => engine.stats().operations === 1)
  engine.inject({ kind: 'stall' })
  bench.post(
    { source: 1, target: 2, length: 4 * CHUNK, cookie: 1 },
    { op: Op.FETCH_ADD, target: 1, length: 8, operand: 1, cookie: 2 },
  )
  await until(() => engine.stats().injected === 1)
  t.equal(engine.stats().chunks, 2, 'in its middle')
  let stopped = false
  const stop = channel.stop().then(() => (stopped = true))
  await turn()
  t.equal(stopped, false)
  t.throws(() => channel.restart(), { code: 'ERR_INVALID_STATE' })
  t.equal(channel.force(), 2)
  await stop
  t.match(bench.reap(), [{ cookie: 100, epoch: 2, status: Status.OK }], 'published: of today')
  t.equal(channel.inFlight, 2)
  engine.unmap(2)
  const moved = backing(to.size)
  to.bytes.fill(0xee)
  engine.map(2, moved, moved.size, READ_WRITE)
  channel.restart()
  const added = (await bench.take(2))[1]
  t.match(added, { cookie: 2, epoch: 2, status: Status.OK }, 'had not begun: executed')
  t.equal(engine.stats().faults, 0)
  const before = Buffer.from(moved.bytes)
  engine.unstall()
  t.match(await bench.takeLate(1), [
    { cookie: 1, epoch: 1, status: Status.FAULT, result: 2 * CHUNK },
  ])
  t.equal(channel.inFlight, 0, 'the late one is nobody\u2019s')
  t.equal(engine.stats().faults, 1)
  t.ok(to.bytes.every((byte) => byte === 0xee))
  t.equal(Buffer.compare(moved.bytes, before), 0)
  from.bytes.set(pattern(8, 7))
  t.equal(Buffer.compare(moved.bytes.subarray(8), from.bytes.subarray(8)), 0, 'repeated in full')
  moved.mapping.unmap()
})

t.test(
  'forced: what can be repeated is, from its start; an atomic that had begun is unknown',
  async (t) => {
    using bench = new Bench()
    const { channel, engine } = bench
    const memory = bench.map(1, 4 * KiB)
    engine.inject({ kind: 'stall', channel })
    const add = { op: Op.FETCH_ADD, target: 1, length: 8, operand: 1 }
    bench.post({ ...add, cookie: 1 }, { ...add, cookie: 2 }, { op: Op.NOP, cookie: 3 })
    await until(() => engine.stats().injected === 1)
    channel.force()
    channel.restart()
    t.match(await bench.take(3), [
      { cookie: 1, status: Status.OUTCOME_UNKNOWN, epoch: 2 },
      { cookie: 2, status: Status.OK, result: 0, epoch: 2 },
      { cookie: 3, status: Status.OK, epoch: 2 },
    ])
    engine.unstall()
    t.match(await bench.takeLate(1), [{ cookie: 1, epoch: 1, status: Status.FAULT }])
    t.equal(new DataView(memory.bytes.buffer).getUint8(0), 1, 'the hung one did not add')

    const { from, to } = await longCopy(bench, 10)
    t.equal(channel.force(), 3)
    to.bytes.fill(0xee)
    channel.slow(0)
    channel.restart()
    t.match(await bench.take(1), [{ status: Status.OK, result: 16 * CHUNK, epoch: 3 }])
    t.equal(Buffer.compare(to.bytes, from.bytes), 0, 'from its start')
  },
)

t.test(
  'several epochs can hang at once, and no late completion takes a place in the ring',
  async (t) => {
    using bench = new Bench(2)
    const { channel, engine } = bench
    for (const epoch of [1, 2, 3]) {
      engine.inject({ kind: 'stall' })
      if (epoch === 1) t.equal(bench.post({ op: Op.NOP, cookie: 1 }, { op: Op.NOP, cookie: 2 }), 2)
      else channel.restart()
      await until(() => engine.stats().injected === epoch)
      t.equal(channel.force(), epoch + 1)
    }
    engine.unstall()
    await until(() => engine.stats().faults === 3)
    t.match(bench.reap(), [
      { cookie: 1, epoch: 1 },
      { cookie: 1, epoch: 2 },
      { cookie: 1, epoch: 3 },
    ])
    t.equal(channel.inFlight, 2)
    channel.restart()
    t.match(await bench.take(2), [
      { cookie: 1, epoch: 4, status: Status.OK },
      { cookie: 2, epoch: 4, status: Status.OK },
    ])
  },
)

t.test('a stop that a force and a restart overtook does not answer the next one', async (t) => {
  using bench = new Bench()
  const { channel, engine } = bench
  const first = channel.stop()
  channel.force()
  channel.restart()
  await first
  engine.inject({ kind: 'stall' })
  bench.post({ op: Op.NOP })
  await until(() => engine.stats().injected === 1)
  let quiet = false
  const second = channel.stop().then(() => (quiet = true))
  await turn()
  t.equal(quiet, false)
  engine.unstall()
  await second
  channel.restart()
  await bench.take(1)
})

import t from 'tap'
import { Batch, Completions, Op, Status } from '../../../lib/move-notify/importer/batch.js'
import { Access } from '../../../lib/move-notify/importer/engine.js'
import { PostError } from '../../../lib/move-notify/importer/post-error.js'
import { Bench, KiB, MiB, pattern, until, type Row } from './rig.js'

const slot = (tag: number, index: number) => tag * 2 ** 20 + index

t.test('copies, byte for byte, at any length and offset', async (t) => {
  using bench = new Bench()
  const from = bench.map(1, MiB)
  const to = bench.map(2, MiB)
  from.bytes.set(pattern(MiB, 1))
  const expected = new Uint8Array(MiB)
  const cases = [0, 1, 7, 64, 4095, 64 * KiB - 1, 64 * KiB, 64 * KiB + 1, 300 * KiB + 5]
  let at = 3
  const rows = cases.map((length, i) => {
    const row = { source: 1, target: 2, sourceOffset: i * 11, targetOffset: at, length, cookie: i }
    expected.set(from.bytes.subarray(i * 11, i * 11 + length), at)
    at += length + 1
    return row
  })
  const done = await bench.run(...rows)
  t.strictSame(
    done,
    cases.map((length, cookie) => ({ cookie, result: length, status: Status.OK, epoch: 1 })),
  )
  t.equal(Buffer.compare(to.bytes, expected), 0)
  t.equal(bench.channel.inFlight, 0)
  const { operations, bytes, faults } = bench.engine.stats()
  t.strictSame([operations, bytes, faults], [cases.length, cases.reduce((a, b) => a + b), 0])
})

t.test('fills, adds and does nothing', async (t) => {
  using bench = new Bench()
  const memory = bench.map(1, 256 * KiB)
  const counter = new BigUint64Array(memory.bytes.buffer)
  counter[2] = 2n ** 53n - 9n
  const done = await bench.run(
    { op: Op.NOP, source: 77, target: 78, length: -5, cookie: 2 ** 53 - 1 },
    { op: Op.FILL, target: 1, targetOffset: 100 * KiB, length: 100 * KiB, operand: 255 },
    { op: Op.FETCH_ADD, target: 1, targetOffset: 16, length: 8, operand: 7 },
    { op: Op.FETCH_ADD, target: 1, targetOffset: 16, length: 8, operand: 1 },
    { op: Op.FETCH_ADD, target: 1, targetOffset: 256 * KiB - 8, length: 8, operand: 2 ** 53 - 1 },
  )
  t.strictSame(
    done.map(({ result }) => result),
    [0, 100 * KiB, 2 ** 53 - 9, 2 ** 53 - 2, 0],
  )
  t.equal(done[0]?.cookie, 2 ** 53 - 1)
  t.equal(counter[2], 2n ** 53n - 1n)
  t.equal(counter.at(-1), 2n ** 53n - 1n)
  const bytes = memory.bytes
  t.strictSame([bytes[100 * KiB - 1], bytes[100 * KiB], bytes[200 * KiB - 1]], [0, 255, 255])
  t.equal(bytes[200 * KiB], 0)
})

t.test(
  'a malformed row throws, names its column, and leaves the rows before it posted',
  async (t) => {
    using bench = new Bench()
    bench.map(1, 4 * KiB)
    bench.map(2, 4 * KiB)
    bench.map(3, 4 * KiB, Access.READ)
    bench.map(4, 4 * KiB, Access.WRITE)
    const copy = { source: 1, target: 2, length: 8 }
    const fill = { op: Op.FILL, target: 2, length: 8 }
    const add = { op: Op.FETCH_ADD, target: 2, length: 8 }
    const numbers = [-1, 0.5, NaN, Infinity, 2 ** 53, -Infinity]
    const malformed: [string, Row][] = [
      ['op', { op: 6 }],
      ['op', { op: 255 }],
      ...numbers.flatMap((bad): [string, Row][] => [
        ['length', { ...copy, length: bad }],
        ['sourceOffset', { ...copy, sourceOffset: bad }],
        ['targetOffset', { ...copy, targetOffset: bad }],
        ['targetOffset', { ...fill, targetOffset: bad }],
        ['targetOffset', { ...add, targetOffset: bad }],
        ['operand', { ...fill, operand: bad }],
        ['operand', { ...add, operand: bad }],
        ['length', { ...add, length: bad }],
      ]),
      ['operand', { ...fill, operand: 256 }],
      ['sourceOffset', { ...copy, length: 4 * KiB, sourceOffset: 1 }],
      ['targetOffset', { ...copy, length: 4 * KiB + 1 }],
      ['targetOffset', { ...copy, targetOffset: 2 ** 53 - 1, length: 2 ** 53 - 1 }],
      ['sourceOffset', { ...copy, sourceOffset: 4 * KiB + 1, length: 0 }],
      ['targetOffset', { ...add, targetOffset: 4 * KiB }],
      ['targetOffset', { ...add, targetOffset: 12 }],
      ['length', { ...add, length: 16 }],
      ['source', { ...copy, source: 4 }],
      ['target', { ...copy, target: 3 }],
      ['target', { ...fill, target: 3 }],
      ['target', { ...add, target: 3 }],
      ['targetOffset', { source: 1, target: 1, sourceOffset: 0, targetOffset: 7, length: 8 }],
      ['targetOffset', { source: 1, target: 1, sourceOffset: 7, targetOffset: 0, length: 8 }],
    ]
    for (const [column, row] of malformed) {
      try {
        bench.post(copy, fill, row, copy)
        t.fail(`accepted ${JSON.stringify(row)}`)
      } catch (error) {
        t.ok(error instanceof PostError, `${column}: ${String(error)}`)
        t.match(error, {
          code: 'ERR_INVALID_ARG_VALUE',
          argument: `batch.${column}[2]`,
          accepted: 2,
        })
      }
      const done = await bench.take(2)
      t.strictSame(
        done.map(({ status }) => status),
        [Status.OK, Status.OK],
      )
    }
    const touching = { source: 1, target: 1, sourceOffset: 0, targetOffset: 8, length: 8 }
    t.equal((await bench.run(touching))[0]?.status, Status.OK, 'ranges that only touch')
  },
)

t.test('first, count and the batch itself are checked', (t) => {
  using bench = new Bench()
  const { channel } = bench
  const batch = new Batch(4)
  const range = { code: 'ERR_OUT_OF_RANGE' }
  t.throws(() => channel.post(batch, 0, 5), { ...range, argument: 'count' })
  t.throws(() => channel.post(batch, 4, 1), { ...range, argument: 'count' })
  t.throws(() => channel.post(batch, 5, 0), { ...range, argument: 'first' })
  for (const bad of [-1, 0.5, NaN, 2 ** 32, 2 ** 53]) {
    t.throws(() => channel.post(batch, bad, 1), { ...range, argument: 'first' })
    t.throws(() => channel.post(batch, 0, bad), { ...range, argument: 'count' })
  }
  for (const bad of ['1', null, 1n, Symbol('1')] as unknown as number[]) {
    const type = { code: 'ERR_INVALID_ARG_TYPE' }
    t.throws(() => channel.post(batch, bad, 1), { ...type, argument: 'first' })
    t.throws(() => channel.post(batch, 0, bad), { ...type, argument: 'count' })
  }
  t.equal(channel.post(batch, 4, 0), 0)
  const type = { code: 'ERR_INVALID_ARG_TYPE', argument: 'batch' }
  for (const bad of [undefined, null, {}, [], new Completions(1)] as unknown as Batch[]) {
    t.throws(() => channel.post(bad, 0, 0), type)
  }
  t.throws(() => channel.reap(batch as unknown as Completions), {
    code: 'ERR_INVALID_ARG_TYPE',
    argument: 'out',
  })
  const broken = (change: object) =>
    Object.defineProperties(new Batch(4), Object.getOwnPropertyDescriptors(change))
  const detachable = { op: new Uint8Array(4) }
  t.throws(() => channel.post(broken(detachable), 0, 0), type)
  t.throws(() => channel.post(broken({ capacity: 5 }), 0, 5), { code: 'ERR_OUT_OF_RANGE' })
  t.throws(() => channel.post(broken({ capacity: -1 }), 0, 0), { code: 'ERR_OUT_OF_RANGE' })
  const mixed = { ...new Batch(4), op: new Batch(4).cookie } as unknown as Batch
  t.throws(() => channel.post(broken(mixed), 0, 4), { code: 'ERR_INVALID_ARG_TYPE' })
  t.equal(channel.inFlight, 0)
  t.end()
})

t.test(
  'what is not mapped, sealed or stale stops a post and accepts what came before',
  async (t) => {
    using bench = new Bench()
    const { engine } = bench
    const id = slot(3, 5)
    const stale = slot(2, 5)
    bench.map(id, 4 * KiB)
    const good = { op: Op.FILL, target: id, length: 8 }
    for (const other of [slot(3, 6), stale, slot(0, 5), 2 ** 32 - 1, slot(0, 2 ** 20 - 1)]) {
      t.notOk(engine.isMapped(other))
      t.equal(bench.post(good, { ...good, target: other }, good), 1)
      t.equal(bench.post({ source: other, target: id, length: 8 }), 0)
      await bench.take(1)
    }
    engine.seal(id)
    t.equal(bench.post(good), 0, 'sealed')
    t.ok(engine.isMapped(id))
    engine.unseal(id)
    t.equal(bench.post(good), 1, 'opened')
    await bench.take(1)
    engine.unmap(stale)
    t.ok(engine.isMapped(id), 'a stale id takes nothing away')
    engine.unmap(id)
    engine.unmap(id)
    t.equal(bench.post(good), 0)
  },
)

t.test('a full ring pushes back, and goes on when it is reaped', async (t) => {
  using bench = new Bench(8)
  bench.map(1, 4 * KiB)
  const rows = Array.from({ length: 20 }, (_, cookie) => ({
    op: Op.FETCH_ADD,
    target: 1,
    length: 8,
    operand: 1,
    cookie,
  }))
  t.equal(bench.post(...rows), 8)
  t.equal(bench.channel.inFlight, 8)
  t.equal(bench.post(...rows), 0)
  await until(() => bench.engine.stats().operations === 8)
  t.equal(bench.post(...rows), 0, 'completed is not reaped')
  const first = await bench.take(8)
  t.strictSame(
    first.map(({ result }) => result),
    [0, 1, 2, 3, 4, 5, 6, 7],
  )
  t.equal(bench.channel.post(bench.batch, 8, 12), 8)
  const small = new Completions(3)
  await until(() => bench.engine.stats().operations === 16)
  t.equal(bench.channel.reap(small), 3)
  t.strictSame([...small.cookie], [8, 9, 10])
  t.equal(bench.channel.inFlight, 5)
  t.equal(bench.channel.post(bench.batch, 16, 4), 3)
  t.equal((await bench.take(8)).length, 8)
})

t.test('one notification for each arm', async (t) => {
  using bench = new Bench()
  const { channel } = bench
  const turn = () => new Promise((resolve) => setTimeout(resolve, 5))
  bench.post({ op: Op.NOP })
  await until(() => bench.engine.stats().operations === 1)
  await turn()
  t.equal(bench.notifications, 0, 'not armed')
  channel.arm()
  channel.arm()
  t.equal(bench.notifications, 0, 'never from within arm()')
  await until(() => bench.notifications === 1)
  bench.post({ op: Op.NOP }, { op: Op.NOP })
  await until(() => bench.engine.stats().operations === 3)
  await turn()
  t.equal(bench.notifications, 1, 'not armed again')
  bench.reap()
  channel.arm()
  await turn()
  t.equal(bench.notifications, 1, 'nothing to reap')
  bench.post({ op: Op.NOP })
  await until(() => bench.notifications === 2)
})

t.test('long operations starve no other channel', async (t) => {
  using bench = new Bench()
  bench.map(1, 64 * MiB)
  bench.map(2, 64 * MiB)
  bench.map(3, 4 * KiB)
  const batch = new Batch(1)
  const out = new Completions(1)
  let notified = false
  const other = bench.engine.openChannel({ depth: 1, onCompletion: () => (notified = true) })
  const long = { source: 1, target: 2, length: 64 * MiB }
  t.equal(bench.post(...Array.from({ length: 16 }, () => long)), 16)
  batch.op[0] = Op.FILL
  batch.target[0] = 3
  batch.length[0] = 8
  t.equal(other.post(batch, 0, 1), 1)
  other.arm()
  await until(() => notified)
  t.equal(other.reap(out), 1)
  t.ok(bench.reap().length < 16, 'the long ones are still going on')
  t.ok(bench.channel.inFlight > 0)
})

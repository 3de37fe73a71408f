import t from 'tap'
import { Op, Status } from '../../../lib/move-notify/importer/batch.js'
import type { SoftwareFault } from '../../../lib/engines/software/inject.js'
import { Bench, KiB, READ_WRITE, until } from './rig.js'

const SIZE = 200 * KiB

async function prepared(fault?: SoftwareFault) {
  const bench = new Bench()
  const from = bench.map(1, SIZE)
  const to = bench.map(2, SIZE)
  from.bytes.fill(1)
  if (fault !== undefined) bench.engine.inject(fault)
  const copy = { source: 1, target: 2, length: SIZE }
  return { bench, from, to, copy }
}

const whole = [{ status: Status.OK, result: SIZE }]

t.test('lost: completes, has written nothing, and only once', async (t) => {
  const { bench, to, copy } = await prepared({ kind: 'lost' })
  using _ = bench
  await bench.run({ op: Op.FILL, target: 2, length: 1, operand: 7 })
  t.match(await bench.run(copy), whole)
  t.equal(to.bytes.lastIndexOf(1), -1)
  t.equal(to.bytes[0], 7, 'a FILL is not lost')
  t.equal(bench.engine.stats().injected, 1)
  await bench.run(copy)
  t.equal(to.bytes.indexOf(0), -1)
})

t.test('torn: the first half only', async (t) => {
  const { bench, to, copy } = await prepared({ kind: 'torn' })
  using _ = bench
  t.match(await bench.run(copy), whole)
  t.equal(to.bytes.indexOf(0), SIZE / 2)
  t.equal(to.bytes.lastIndexOf(1), SIZE / 2 - 1)
  t.equal(bench.engine.stats().injected, 1)
})

t.test('doubled: executed again after so many others', async (t) => {
  const { bench, to, copy } = await prepared({ kind: 'doubled', after: 2 })
  using _ = bench
  const fill = { op: Op.FILL, target: 2, length: SIZE, operand: 9 }
  await bench.run(copy)
  await bench.run(fill)
  t.equal(to.bytes.indexOf(1), -1, 'not yet')
  await bench.run(fill)
  await until(() => bench.engine.stats().injected === 1)
  t.equal(to.bytes.indexOf(9), -1, 'written again, long after its completion')
  t.equal(bench.channel.inFlight, 0)
})

t.test('doubled: what is not mapped when its time comes is executed when it is', async (t) => {
  const { bench, to, copy } = await prepared({ kind: 'doubled', after: 1 })
  using _ = bench
  await bench.run(copy)
  bench.engine.unmap(2)
  to.bytes.fill(9)
  await bench.run({ op: Op.NOP })
  await bench.run({ op: Op.NOP })
  t.equal(bench.engine.stats().injected, 0, 'not yet')
  bench.engine.map(2, to, SIZE, READ_WRITE)
  bench.engine.unseal(2)
  await bench.run({ op: Op.NOP })
  await until(() => bench.engine.stats().injected === 1)
  t.equal(to.bytes.indexOf(9), -1)
})

t.test('doubled: at the next idle moment', async (t) => {
  const { bench, from, to, copy } = await prepared({ kind: 'doubled', after: 0 })
  using _ = bench
  await bench.run(copy)
  await until(() => bench.engine.stats().injected === 1)
  t.equal(Buffer.compare(from.bytes, to.bytes), 0)
})

t.test('doubled-completion: the second one owns no place in the ring', async (t) => {
  const { bench, copy } = await prepared({ kind: 'doubled-completion' })
  using _ = bench
  const done = await bench.run({ ...copy, cookie: 4 })
  if (done.length === 1) done.push(...(await bench.takeLate(1)))
  t.match(done, [
    { cookie: 4, status: Status.OK, epoch: 1 },
    { cookie: 4, status: Status.OK, epoch: 1 },
  ])
  t.equal(bench.channel.inFlight, 0)
})

t.test('stray: one write of 8 bytes into the range that an unmap retired', async (t) => {
  const { bench, to } = await prepared({ kind: 'stray', offset: 64 })
  using _ = bench
  bench.engine.unmap(2)
  await new Promise((resolve) => setTimeout(resolve, 10))
  t.equal(bench.engine.stats().injected, 0, 'waits until there is something to find')
  to.bytes.fill(0xdb)
  await until(() => bench.engine.stats().injected === 1)
  const bytes = to.bytes
  const changed = [...bytes.keys()].filter((i) => bytes[i] !== 0xdb)
  t.ok(changed.length > 0 && changed.every((i) => i >= 64 && i < 72), String(changed))
  t.equal(bench.engine.stats().faults, 0)
  bench.engine.inject({ kind: 'stray', delayMs: 0 })
  bench.engine.unmap(1)
  await until(() => bench.engine.stats().injected === 2)
})

t.test('stall: for a while, and on one channel only', async (t) => {
  const { bench, to, copy } = await prepared()
  using _ = bench
  const other = bench.engine.openChannel({ depth: 1, onCompletion: () => undefined })
  bench.engine.inject({ kind: 'stall', channel: other })
  t.match(await bench.run(copy), whole)
  bench.engine.inject({ kind: 'stall', channel: bench.channel.index })
  const fill = { op: Op.FILL, target: 2, length: SIZE, operand: 9 }
  bench.post(fill)
  await until(() => bench.engine.stats().injected === 1)
  t.equal(to.bytes.indexOf(1), SIZE / 2, 'in its middle')
  bench.engine.unstall()
  t.match(await bench.take(1), whole)
  t.equal(to.bytes.indexOf(1), -1)
  bench.engine.inject({ kind: 'stall', channel: bench.channel.index, ms: 20 })
  t.match(await bench.run(fill), whole, 'it ends by itself')
  t.equal(bench.engine.stats().injected, 2)
})

t.test('a fault is checked', async (t) => {
  const { bench } = await prepared()
  using _ = bench
  const { engine } = bench
  for (const bad of [undefined, null, 'lost', 1] as unknown as SoftwareFault[]) {
    t.throws(() => engine.inject(bad), { code: 'ERR_INVALID_ARG_TYPE', argument: 'fault' })
  }
  const value = { code: 'ERR_INVALID_ARG_VALUE', argument: 'fault.kind' }
  t.throws(() => engine.inject({ kind: 'loss' } as unknown as SoftwareFault), value)
  const range = (argument: string) => ({ code: 'ERR_OUT_OF_RANGE', argument })
  t.throws(() => engine.inject({ kind: 'stall', ms: -1 }), range('fault.ms'))
  t.throws(() => engine.inject({ kind: 'stall', ms: NaN }), range('fault.ms'))
  t.throws(() => engine.inject({ kind: 'doubled', after: 0.5 }), range('fault.after'))
  t.throws(() => engine.inject({ kind: 'stray', offset: -8 }), range('fault.offset'))
  t.throws(() => engine.inject({ kind: 'stray', delayMs: 1e9 }), range('fault.delayMs'))
  t.throws(() => engine.inject({ kind: 'lost', channel: 0 }), range('fault.channel'))
  t.throws(() => bench.channel.slow(-1), range('nanoseconds'))
  // Beyond the end of what is unmapped: nothing is written.
  engine.inject({ kind: 'stray', offset: SIZE, delayMs: 0 })
  engine.unmap(1)
  t.equal(engine.stats().injected, 0)
})

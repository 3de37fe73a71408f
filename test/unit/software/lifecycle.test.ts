import t from 'tap'
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Worker } from 'node:worker_threads'
import { openEngine, SoftwareEngine } from '../../../lib/engines/index.js'
import { Batch, Completions, Op } from '../../../lib/move-notify/importer/batch.js'
import type { Backing } from '../../../lib/move-notify/exporter/backing.js'
import { backing, Bench, KiB, READ_WRITE, until } from './rig.js'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

const child = fileURLToPath(new URL('./child.js', import.meta.url))
const threads = () => readdirSync('/proc/self/task').length
const closed = { code: 'ERR_CLOSED' }

t.test('openEngine knows its names', async (t) => {
  await using engine = await openEngine('software')
  t.equal(engine.name, 'software')
  t.ok(engine instanceof SoftwareEngine)
  await t.rejects(openEngine('cuda'), { code: 'ERR_UNSUPPORTED', argument: 'name' })
  for (const name of ['software', 'vfio:0000:00:00.0'] as string[]) {
    const refused = openEngine(name, { gidIndex: 1 })
    await t.rejects(refused, { code: 'ERR_INVALID_ARG_VALUE', argument: 'options' })
  }
  await t.rejects(openEngine('verbs:none'), { code: /^(ENODEV|ERR_VERBS_MISSING|ENOSYS)$/ })
  for (const name of ['', 'verbs', 'softwar', 'Software', 'software:1']) {
    await t.rejects(openEngine(name), { code: 'ERR_INVALID_ARG_VALUE', message: /software/ })
  }
  for (const name of [undefined, null, 1] as unknown as string[]) {
    await t.rejects(openEngine(name), { code: 'ERR_INVALID_ARG_TYPE' })
  }
})

t.test('bad input: typed errors', (t) => {
  using bench = new Bench()
  const { engine } = bench
  const memory = backing(4 * KiB)
  const onCompletion = () => undefined
  for (const depth of [0, -1, 3, 0.5, NaN, 2 ** 17, 2 ** 53]) {
    const error = { code: 'ERR_OUT_OF_RANGE', argument: 'depth' }
    t.throws(() => engine.openChannel({ depth, onCompletion }), error)
  }
  const type = { code: 'ERR_INVALID_ARG_TYPE' }
  t.throws(() => engine.openChannel(null as never), type)
  t.throws(() => engine.openChannel({ depth: '4' as never, onCompletion }), type)
  t.throws(() => engine.openChannel({ depth: 4, onCompletion: 1 as never }), type)
  const range = { code: 'ERR_OUT_OF_RANGE' }
  for (const id of [-1, 2 ** 32, 0.5, NaN]) {
    t.throws(() => engine.map(id, memory, 8, READ_WRITE), { ...range, argument: 'id' })
    for (const call of ['seal', 'unseal', 'unmap', 'isMapped'] as const) {
      t.throws(() => engine[call](id), { ...range, argument: 'id' })
    }
    t.throws(() => bench.channel.uses(id), { ...range, argument: 'id' })
    t.throws(() => bench.channel.benchPause(id, memory.mapping), { ...range, argument: 'id' })
  }
  t.throws(() => bench.channel.benchPause(1, null as never), type)
  t.throws(() => bench.channel.benchPause(1, memory.mapping), { code: 'ERR_INVALID_STATE' })
  t.throws(() => engine.map(1, memory, 4 * KiB + 1, READ_WRITE), { ...range, argument: 'size' })
  t.throws(() => engine.map(1, memory, 8, 0), { ...range, argument: 'access' })
  t.throws(() => engine.map(1, memory, 8, 4), { ...range, argument: 'access' })
  t.throws(() => engine.map(1, undefined as unknown as Backing, 8, 1), type)
  const like = (change: object) =>
    ({ size: 4 * KiB, offset: 0, mapping: null, ...change }) as Backing
  t.throws(() => engine.map(1, like({}), 8, 1), { code: 'ERR_UNSUPPORTED' })
  t.throws(() => engine.map(1, like({ mapping: {} }), 8, 1), type)
  const { mapping } = memory
  t.throws(() => engine.map(1, like({ mapping, offset: 4 }), 8, 1), {
    ...range,
    argument: 'offset',
  })
  t.throws(() => engine.map(1, like({ mapping, offset: 4096 }), 8, 1), range)
  engine.map(1, memory, 8, READ_WRITE)
  t.throws(() => engine.map(1 + 2 ** 20, memory, 8, 1), { code: 'ERR_INVALID_STATE' })
  mapping.unmap()
  t.throws(() => engine.map(2, memory, 8, 1), closed)
  t.end()
})

t.test('closing twice, and use after close', async (t) => {
  const before = threads()
  const bench = new Bench()
  const { engine, channel } = bench
  const other = engine.openChannel({ depth: 2, onCompletion: () => undefined })
  t.equal(threads(), before + 1)
  bench.map(1, 4 * KiB)
  engine.inject({ kind: 'stall', channel })
  bench.post({ op: Op.FILL, target: 1, length: 8 })
  channel.arm()
  await until(() => engine.stats().injected === 1)
  const stop = channel.stop()
  channel.close()
  channel.close()
  await stop
  t.equal(channel.inFlight, 0)
  t.notOk(channel.uses(1))
  for (const use of [
    () => channel.post(bench.batch, 0, 1),
    () => channel.reap(bench.out),
    () => channel.arm(),
    () => channel.force(),
    () => channel.restart(),
    () => channel.slow(1),
    () => channel.unstall(),
    () => channel.bench(1, 1, 1, 1),
    () => channel.benchPause(1, backing(4 * KiB).mapping),
  ]) {
    t.throws(use, closed)
  }
  await t.rejects(channel.stop(), closed)
  await engine.close()
  await engine.close()
  t.equal(threads(), before)
  t.throws(() => other.post(bench.batch, 0, 0), closed)
  t.throws(() => engine.openChannel({ depth: 2, onCompletion: () => undefined }), closed)
  t.throws(() => engine.map(1, backing(4 * KiB), 8, 1), closed)
  t.throws(() => engine.inject({ kind: 'lost' }), closed)
  t.throws(() => engine.unstall(), closed)
  t.throws(() => engine.importer(), closed)
  engine.seal(1)
  engine.unseal(1)
  engine.unmap(1)
  t.notOk(engine.isMapped(1))
  t.equal(engine.stats().injected, 1)
})

t.test('a mapping unmapped under the engine is harmless', async (t) => {
  using bench = new Bench()
  const memory = bench.map(1, 4 * KiB)
  memory.mapping.unmap()
  const [done] = await bench.run({ op: Op.FILL, target: 1, length: 4 * KiB, operand: 1 })
  t.equal(done?.status, 0)
})

t.test('closing from within a completion', async (t) => {
  const engine = new SoftwareEngine()
  const batch = new Batch(1)
  let calls = 0
  const channels = Array.from({ length: 3 }, () =>
    engine.openChannel({
      depth: 1,
      onCompletion: () => {
        calls++
        void engine.close()
      },
    }),
  )
  for (const channel of channels) {
    channel.post(batch, 0, 1)
    channel.arm()
  }
  await until(() => engine.closed)
  t.equal(calls, 1)
})

t.test('garbage: an engine that nobody closed ends its thread', async (t) => {
  const before = threads()
  ;(() => {
    for (let i = 0; i < 5; i++) {
      const bench = new Bench()
      bench.post({ op: Op.NOP })
      bench.engine.importer()
    }
  })()
  t.equal(threads(), before + 5)
  await until(() => {
    collect()
    return threads() === before
  })
})

t.test('what is awaited is not garbage', async (t) => {
  const done = (() => {
    const bench = new Bench()
    const memory = bench.map(1, 4 * KiB)
    bench.engine.inject({ kind: 'stall', ms: 50 })
    return bench
      .run({ op: Op.FETCH_ADD, target: 1, length: 8, operand: 1 })
      .then((all) => ({ all, memory }))
  })()
  for (let i = 0; i < 10; i++) {
    collect()
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
  t.match((await done).all, [{ status: 0, result: 0 }])
})

t.test('many engines, opened and closed', async (t) => {
  const before = threads()
  for (let i = 0; i < 200; i++) {
    const bench = new Bench(1)
    bench.post({ op: Op.NOP })
    if (i % 2 === 0) bench.channel.arm()
    await bench.engine.close()
  }
  t.equal(threads(), before)
})

const stages = ['idle', 'unarmed', 'in-flight', 'stopping', 'stopped', 'hung', 'stray', 'closed']

async function terminate(stage: string): Promise<void> {
  const worker = new Worker(child, { argv: [stage, 'stay'] })
  await once(worker, 'message')
  await worker.terminate()
}

for (const stage of stages) {
  t.test(`process.exit while ${stage}`, (t) => {
    const { status, signal, stderr } = spawnSync(process.execPath, [child, stage, 'exit'])
    t.strictSame([status, signal, String(stderr)], [7, null, ''])
    t.end()
  })

  t.test(`a worker is terminated while ${stage}`, async (t) => {
    // The first one of all starts what stays: threads of the pool, and the like.
    if (stage === stages[0]) await terminate(stage)
    const before = threads()
    await terminate(stage)
    await until(() => threads() <= before)
    t.pass('its threads are gone')
  })
}

t.test('the process ends by itself when no event is to come, and not before', (t) => {
  for (const stage of ['idle', 'unarmed', 'stopped', 'closed']) {
    const { status, stderr } = spawnSync(process.execPath, [child, stage, 'end'], {
      timeout: 600_000,
    })
    t.strictSame([status, String(stderr)], [0, ''], stage)
  }
  const { status, stdout } = spawnSync(process.execPath, [child, 'awaited', 'end'])
  t.strictSame([status, String(stdout)], [0, 'completed\n'])
  t.end()
})

t.test('an exception in a completion is an uncaught exception', (t) => {
  const { status, stderr } = spawnSync(process.execPath, [child, 'throwing', 'end'])
  t.equal(status, 1)
  t.match(String(stderr), /Error: thrown in a completion/)
  t.end()
})

t.test('completions can be reaped into what another engine uses', async (t) => {
  using one = new Bench()
  using two = new Bench()
  const batch = new Batch(2)
  const out = new Completions(2)
  for (let i = 0; i < 10; i++) {
    const bench = i % 2 === 0 ? one : two
    batch.cookie[1] = i
    t.equal(bench.channel.post(batch, 1, 1), 1)
    const operations = Math.floor(i / 2) + 1
    await until(() => bench.engine.stats().operations === operations)
    t.equal(bench.channel.reap(out), 1)
    t.equal(out.cookie[0], i)
  }
})

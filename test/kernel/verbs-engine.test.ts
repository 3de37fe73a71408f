/** The verbs engine under the heart: two NICs of the rig in one process, buffers that move. */
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { engineChecks } from '../../lib/conformance/index.js'
import { VerbsEngine } from '../../lib/engines/verbs/engine.js'
import { memfd, udmabuf } from '../../lib/exporters/index.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { type Batch, Op } from '../../lib/move-notify/importer/batch.js'
import { KIB, breakQueue, buffer, bytes, granted, open } from './verbs-engine-support.js'

t.setTimeout(900_000)

/** Of the queue pair that the conformance suite opens its channels on. */
const DEPTH = 64

t.test('write, read and atomics, while both ends move', async (t) => {
  const ends = await open(t)
  const { a, ours, theirs } = ends
  const source = await buffer(t, 64 * KIB, memfd(), 7)
  const target = await buffer(t, 64 * KIB, memfd(), 1)
  const from = await a.attach(source)
  const { remote } = await granted(ends, target)
  t.equal((await ours.copy(from, 0, remote, 0, 64 * KIB)).bytes, 64 * KIB)
  t.ok(
    (await bytes(target)).every((byte) => byte === 7),
    'written',
  )

  for (let round = 0; round < 6; round++) {
    const moved = round % 2 === 0 ? target : source
    const work = Array.from({ length: 16 }, (_, i) =>
      ours.copy(from, i * 4 * KIB, remote, i * 4 * KIB, 4 * KIB),
    )
    const [done] = await Promise.all([
      Promise.all(work),
      moved.move(round < 3 ? udmabuf() : memfd()),
    ])
    t.equal(done.length, 16, `round ${round}`)
    await source.withCpuAccess('w', (cpu) => void cpu.view().fill(10 + round))
    await ours.copy(from, 0, remote, 0, 64 * KIB)
    t.ok(
      (await bytes(target)).every((byte) => byte === 10 + round),
      'after the move',
    )
  }
  t.ok(theirs.stats.stops > 0 && ours.stats.stops > 0)
  t.equal(theirs.stats.forcedStops + ours.stats.forcedStops, 0)

  const back = await buffer(t, 64 * KIB, memfd())
  const into = await a.attach(back)
  await Promise.all([ours.copy(remote, 0, into, 0, 64 * KIB), target.move(memfd())])
  t.ok(
    (await bytes(back)).every((byte) => byte === 15),
    'read',
  )

  await target.withCpuAccess('w', (cpu) => void cpu.view(0, 8).fill(0))
  const sums = await Promise.all([
    ...Array.from({ length: 20 }, () => ours.fetchAdd(remote, 0, 3)),
    target.move(udmabuf()).then(() => ({ previous: -1 })),
  ])
  t.same(
    sums.slice(0, 20).map((each) => each.previous),
    Array.from({ length: 20 }, (_, i) => i * 3),
  )
  t.equal((await bytes(target, 0, 8)).readBigUInt64LE(), 60n)
})

t.test('messages arrive once and in order, while both ends move', async (t) => {
  const ends = await open(t, 16)
  const { a, b, ours, theirs } = ends
  const source = await buffer(t, 64 * KIB, memfd())
  const target = await buffer(t, 64 * KIB, memfd())
  await source.withCpuAccess('w', (cpu) => {
    const view = cpu.view()
    for (let i = 0; i < 64; i++) view.fill(i + 1, i * KIB, (i + 1) * KIB)
  })
  const from = await a.attach(source)
  const to = await b.attach(target)
  const early = ours.send(from, 0, 100)
  await sleep(20)
  t.equal(ours.stats.inFlight, 1, 'a send waits for a receive')
  const received: Promise<{ bytes: number }>[] = []
  const sent: Promise<unknown>[] = [early]
  for (let i = 0; i < 64; i++) received.push(theirs.receive(to, i * KIB, KIB))
  for (let i = 1; i < 64; i++) sent.push(ours.send(from, i * KIB, 100 + i))
  const moves = async (which: MovableBuffer, count: number) => {
    for (let i = 0; i < count; i++) {
      await which.move(i % 2 === 0 ? udmabuf() : memfd())
      await sleep(2)
    }
  }
  const all = Promise.all([Promise.all(received), Promise.all(sent)])
  await Promise.all([moves(source, 5), moves(target, 5), all])
  t.same(
    (await Promise.all(received)).map((each) => each.bytes),
    Array.from({ length: 64 }, (_, i) => 100 + i),
  )
  const got = await bytes(target)
  for (let i = 0; i < 64; i++) {
    const message = got.subarray(i * KIB, i * KIB + 100 + i)
    if (!message.every((byte) => byte === i + 1)) t.fail(`message ${i}`)
  }
  t.equal(theirs.stats.forcedStops + ours.stats.forcedStops, 0)
})

t.test('a queue pair that breaks comes back, and nothing is lost or doubled', async (t) => {
  const ends = await open(t)
  const { a, b, ours, theirs, here } = ends
  const source = await buffer(t, 64 * KIB, memfd(), 9)
  const target = await buffer(t, 64 * KIB, memfd())
  const from = await a.attach(source)
  const { remote, attachment } = await granted(ends, target)
  const lines: Promise<unknown>[] = []
  for (let i = 0; i < 20; i++) lines.push(theirs.receive(attachment, 32 * KIB + i * 100, 100))
  for (let i = 0; i < 20; i++) {
    lines.push(ours.send(from, 0, 60 + i))
    lines.push(ours.copy(from, 0, remote, (i % 8) * 4 * KIB, 4 * KIB))
    if (i % 7 === 3) breakQueue(here, ours.queue)
  }
  const done = (await Promise.all(lines)) as { bytes: number }[]
  t.same(
    done.slice(0, 20).map((each) => each.bytes),
    Array.from({ length: 20 }, (_, i) => 60 + i),
  )
  t.ok((await bytes(target, 0, 32 * KIB)).every((byte) => byte === 9))
  await b.close()
})

t.test('a move just after an error', async (t) => {
  const ends = await open(t)
  const { a, ours, theirs, here, there } = ends
  const source = await buffer(t, 64 * KIB, memfd(), 9)
  const target = await buffer(t, 64 * KIB, memfd())
  const from = await a.attach(source)
  const { remote, attachment } = await granted(ends, target)
  let messages = 0
  for (let round = 0; round < 12; round++) {
    const arrived = theirs.receive(attachment, 60 * KIB, 64)
    const work = [ours.copy(from, 0, remote, 0, 4 * KIB), ours.send(from, 0, 1 + round), arrived]
    if (round % 2 === 0) breakQueue(there, theirs.queue)
    // Both at once, now and then.
    if (round % 3 !== 2) breakQueue(here, ours.queue)
    await Promise.all([...work, target.move(round % 2 === 0 ? udmabuf() : memfd())])
    if ((await arrived).bytes === 1 + round) messages++
  }
  t.equal(messages, 12)
  t.equal(theirs.state, 'running')
})

t.test('over TCP; an engine closes whoever is connected', async (t) => {
  const here = await VerbsEngine.open('rxe0')
  const there = await VerbsEngine.open('rxe1')
  t.teardown(() => Promise.all([here.close(), there.close()]).then(() => {}))
  await new Promise<void>((resolve) => {
    void there
      .listen({ host: '127.0.0.1' }, () => resolve())
      .then(({ port }) => here.connect({ host: '127.0.0.1', port }))
  })
  await there.close()
  t.ok(there.closed)
})

t.test('a peer that goes is a typed error, and the rest goes on', async (t) => {
  const ends = await open(t)
  const { a, near, far, ours, there } = ends
  const source = await buffer(t, 64 * KIB, memfd())
  const target = await buffer(t, 64 * KIB, memfd())
  const from = await a.attach(source)
  const { remote } = await granted(ends, target)
  await ours.copy(from, 0, remote, 0, 4 * KIB)
  const closed = new Promise((resolve) => near.once('closed', resolve))
  await there.close()
  await closed
  t.ok(far.closed)
  await t.rejects(ours.copy(from, 0, remote, 0, 4 * KIB), { code: /^ERR_(PEER_LOST|REVOKED)$/ })
  await source.move(udmabuf())
  t.equal(source.placement, 'udmabuf')
})

t.test('the conformance suite', async (t) => {
  const open = async () => {
    const [engine, there] = [await VerbsEngine.open('rxe0'), await VerbsEngine.open('rxe1')]
    const [near, far] = await engine.pair(there)
    const accepted = new Promise<string>((resolve) => far.once('queue', resolve))
    const queue = await near.openQueue({ depth: DEPTH })
    const into = there.importer()
    const theirs = into.channel({ queue: await accepted, depth: DEPTH })
    const target = await MovableBuffer.create(64 * KIB, memfd())
    far.grant(theirs, await into.attach(target), { label: 'target' })
    const remote = (await near.offered('target')).attach(engine.importer())
    return {
      engine,
      queue,
      fill: (batch: Batch, row: number, id: number, offset: number, length: number) => {
        batch.op[row] = Op.COPY
        batch.source[row] = id
        batch.target[row] = remote.id
        batch.sourceOffset[row] = offset
        batch.targetOffset[row] = 0
        batch.length[row] = length
      },
      close: async () => {
        await engine.close()
        await there.close()
        await target.close()
      },
    }
  }
  for (const check of engineChecks(open)) await t.test(check.name, () => check.run())
})

t.test('bad input', async (t) => {
  const ends = await open(t)
  const { a, b, ours, theirs, near, far, here } = ends
  const source = await buffer(t, 64 * KIB, memfd())
  const from = await a.attach(source)
  const mine = await b.attach(source)
  await t.rejects(VerbsEngine.open('nosuch'), { code: 'ENODEV' })
  await t.rejects(VerbsEngine.open('rxe0', { gidIndex: 200 }), { code: 'ERR_NO_GID' })
  const noQueue = { code: 'ERR_INVALID_ARG_VALUE', argument: 'queue', hint: /^there are / }
  t.throws(() => a.channel({ queue: 'none' }), noQueue)
  t.throws(() => here.inject({ kind: 'queue-pair-error', queue: 'none' }), noQueue)
  t.throws(() => here.inject({ kind: 'lost' } as never), { code: 'ERR_INVALID_ARG_TYPE' })
  t.throws(() => a.channel({ queue: ours.queue }), { code: 'EBUSY' })
  t.throws(() => far.grant(ours, mine), { code: 'ERR_INVALID_ARG_VALUE' })
  t.throws(() => far.grant(theirs, mine, { label: 'a b' }), { code: 'ERR_INVALID_ARG_TYPE' })
  await t.rejects(ours.copy(from, 0, from, 4096, 4096), { code: 'ERR_INVALID_ARG_VALUE' })
  await t.rejects(ours.fill(from, 0, 8, 1), { code: 'ERR_UNSUPPORTED' })
  await t.rejects(here.connect({ host: '127.0.0.1', port: 1 }), { code: 'ECONNREFUSED' })
  await t.rejects(near.openQueue({ depth: 3 }), { code: 'ERR_INVALID_ARG_TYPE' })
  const readOnly = await b.attach(source, { access: 1 })
  far.grant(theirs, readOnly, { label: 'read-only' })
  const remote = (await near.offered('read-only')).attach(a)
  await t.rejects(ours.copy(from, 0, remote, 0, 8), { code: 'ERR_INVALID_ARG_VALUE' })
  t.throws(() => far.grant(theirs, readOnly), { code: 'ERR_INVALID_STATE' }, 'granted already')
  const offer = await near.offered('read-only')
  t.throws(() => offer.attach(b), { code: 'ERR_INVALID_ARG_VALUE' }, "another engine's importer")
  await remote.close()
  await t.rejects(ours.copy(remote, 0, from, 0, 8), { code: 'ERR_CLOSED' })
})

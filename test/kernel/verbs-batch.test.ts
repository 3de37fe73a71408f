/** The batch form over RDMA: rows in columns, one native call a batch, one completion for several. */
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { memfd, udmabuf } from '../../lib/exporters/index.js'
import { QueuePair } from '../../lib/kernel/verbs/index.js'
import { type Batch, Completions, Op, Status } from '../../lib/move-notify/importer/batch.js'
import type { Channel } from '../../lib/move-notify/importer/channel.js'
import { type BatchRow, batchOf } from '../batch-row.js'
import { type Ends, KIB, breakQueue, buffer, bytes, granted, open } from './verbs-engine-support.js'

t.setTimeout(900_000)

/** Posts all rows and reaps as many completions, in the order in which they come. */
async function run(channel: Channel, batch: Batch, size = 7) {
  const out = new Completions(size)
  const done: { cookie: number; status: number; result: number; epoch: number }[] = []
  let row = 0
  while (done.length < batch.capacity) {
    if (row < batch.capacity) row += channel.post(batch, row, batch.capacity - row)
    const count = channel.reap(out)
    for (let i = 0; i < count; i++) {
      const [cookie = NaN, status = NaN] = [out.cookie[i], out.status[i]]
      done.push({ cookie, status, result: out.result[i] ?? NaN, epoch: out.epoch[i] ?? NaN })
    }
    if (count > 0) continue
    if (channel.stats.inFlight > 0) await channel.completions()
    else await channel.ready(batch, row)
  }
  return done
}

async function setUp(t: Test, ends: Ends) {
  const source = await buffer(t, 64 * KIB, memfd())
  const target = await buffer(t, 64 * KIB, memfd())
  await source.withCpuAccess('w', (cpu) => {
    const view = cpu.view()
    for (let i = 0; i < view.length; i++) view[i] = (i >> 8) + 1
  })
  const from = await ends.a.attach(source)
  return { source, target, from, ...(await granted(ends, target)) }
}

t.test('writes, reads and atomics, many times round the ring', async (t) => {
  const ends = await open(t, 32)
  const { source, target, from, remote } = await setUp(t, ends)
  const rows: Partial<BatchRow>[] = []
  for (let i = 0; i < 200; i++) {
    const at = (i % 60) * KIB
    rows.push(
      i % 5 === 4
        ? { op: Op.FETCH_ADD, target: remote.id, targetOffset: 63 * KIB, length: 8, operand: 2 }
        : {
            ...{ op: Op.COPY, source: from.id, sourceOffset: at },
            ...{ target: remote.id, targetOffset: at, length: i === 7 ? 0 : KIB },
          },
    )
  }
  const done = await run(ends.ours, batchOf(rows))
  t.same(
    done.map(({ cookie }) => cookie),
    rows.map((_, i) => i),
    'each once, in order',
  )
  t.ok(done.every(({ status }) => status === Status.OK))
  t.same(
    done.filter((_, i) => i % 5 === 4).map(({ result }) => result),
    Array.from({ length: 40 }, (_, i) => i * 2),
    'the value before, also of those that nobody asked a completion for',
  )
  t.equal(done[7]?.result, 0)
  const [wanted, got] = [await bytes(source), await bytes(target)]
  for (let at = 0; at < 60; at++) {
    const [here, there] = [wanted, got].map((all) => all.subarray(at * KIB, (at + 1) * KIB))
    // Every fifth row was an atomic.
    const isRight = at % 5 === 4 ? there?.every((byte) => byte === 0) : there?.equals(here!)
    if (isRight !== true) t.fail(`KiB ${at}`)
  }
})

t.test('every malformed row is refused, with those before it posted', async (t) => {
  const ends = await open(t, 32)
  const { from, remote, attachment } = await setUp(t, ends)
  const readOnly = await ends.a.attach(await buffer(t, 4 * KIB, memfd()), { access: 1 })
  const write = { op: Op.COPY, source: from.id, target: remote.id, length: 8 }
  const add = { op: Op.FETCH_ADD, target: remote.id, length: 8, operand: 1 }
  const wrong: readonly (readonly [Partial<BatchRow>, string, string?])[] = [
    [{ ...write, op: Op.NOP }, 'op', 'ERR_UNSUPPORTED'],
    [{ ...write, op: Op.FILL }, 'op', 'ERR_UNSUPPORTED'],
    [{ ...write, op: 6 }, 'op'],
    [{ ...write, op: 255 }, 'op'],
    [{ ...write, length: -1 }, 'length'],
    [{ ...write, length: 1.5 }, 'length'],
    [{ ...write, length: NaN }, 'length'],
    [{ ...write, length: 2 ** 40 }, 'length'],
    [{ ...write, sourceOffset: -1 }, 'sourceOffset'],
    [{ ...write, sourceOffset: 64 * KIB - 7 }, 'sourceOffset'],
    [{ ...write, sourceOffset: Infinity }, 'sourceOffset'],
    [{ ...write, targetOffset: 64 * KIB - 7 }, 'targetOffset'],
    [{ ...write, targetOffset: 0.5 }, 'targetOffset'],
    [{ ...write, target: from.id }, 'target'],
    [{ ...write, source: remote.id }, 'target'],
    [{ ...write, source: remote.id, target: readOnly.id }, 'target'],
    [{ ...add, target: from.id }, 'target'],
    [{ ...add, length: 4 }, 'length'],
    [{ ...add, targetOffset: 4 }, 'targetOffset'],
    [{ ...add, operand: -1 }, 'operand'],
    [{ ...add, operand: 0.1 }, 'operand'],
    [{ op: Op.SEND, source: remote.id, length: 8 }, 'source'],
    [{ op: Op.RECEIVE, target: remote.id, length: 8 }, 'target'],
  ]
  for (const [row, column, code = 'ERR_INVALID_ARG_VALUE'] of wrong) {
    const batch = batchOf([write, write, row, write])
    t.throws(
      () => ends.ours.post(batch, 0, 4),
      {
        ...{ code, argument: `batch.${column}[2]`, accepted: 2 },
      },
      `${column}: ${JSON.stringify(row)}`,
    )
    const out = new Completions(8)
    for (let taken = 0; taken < 2;) {
      await ends.ours.completions()
      taken += ends.ours.reap(out)
      if (taken > 2) t.fail('more than was posted')
    }
  }
  t.equal(ends.ours.stats.inFlight, 0)
  t.equal(ends.ours.post(batchOf([{ ...write, source: 12345 }]), 0, 0), 0)
  t.throws(() => ends.ours.post(batchOf([{ ...write, source: 12345 }]), 0, 1), {
    code: 'ERR_CLOSED',
  })
  t.throws(() => ends.ours.post(batchOf([write]), 0, 2), { code: 'ERR_OUT_OF_RANGE' })
  await attachment.close()
})

t.test(
  'an error in the middle of a chain: what was before it is done, what is after goes on',
  async (t) => {
    const ends = await open(t, 64)
    const { target, from, remote } = await setUp(t, ends)
    const key = ends.here.regions.remoteKey(remote.id)
    if (key === undefined) throw new Error('no key')
    // A second name for the same buffer, whose key is none.
    ends.far.grant(ends.theirs, await ends.b.attach(target), { label: 'again' })
    const dead = (await ends.near.offered('again')).attach(ends.a)
    ends.here.regions.updateRemote(dead.id, { ...key, rkey: key.rkey ^ 0xff })
    const rows = Array.from({ length: 40 }, (_, i) => ({
      ...{ op: Op.COPY, source: from.id, sourceOffset: i * KIB },
      ...{ target: i === 13 ? dead.id : remote.id, targetOffset: i * KIB, length: KIB },
    }))
    const done = await run(ends.ours, batchOf(rows))
    t.same(
      done.map(({ status }) => status),
      rows.map((_, i) => (i === 13 ? Status.FAULT : Status.OK)),
    )
    const got = await bytes(target, 0, 40 * KIB)
    const isRight = (i: number) =>
      got
        .subarray(i * KIB, i * KIB + KIB)
        .every((byte, at) => byte === (((i * KIB + at) >> 8) % 256) + 1)
    t.same(
      rows.map((_, i) => i === 13 || isRight(i)),
      rows.map(() => true),
    )
    t.ok(
      got.subarray(13 * KIB, 14 * KIB).every((byte) => byte === 0),
      'nothing by the dead key',
    )
    t.equal(ends.here.stats().resets, 1)
  },
)

t.test('messages in batches, while the receiver moves: once and in order', async (t) => {
  const ends = await open(t, 32)
  const { source, target, from, attachment } = await setUp(t, ends)
  const sends = batchOf(
    Array.from({ length: 160 }, (_, i) => ({ op: Op.SEND, source: from.id, length: i + 1 })),
  )
  const receives = batchOf(
    Array.from({ length: 160 }, (_, i) => ({
      ...{ op: Op.RECEIVE, target: attachment.id, length: 256, targetOffset: (i % 200) * 256 },
    })),
  )
  let over = false
  const moves = async () => {
    for (let i = 0; !over; i++) {
      await (i % 3 === 0 ? source : target).move(i % 2 === 0 ? udmabuf() : memfd())
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
  const traffic = Promise.all([run(ends.ours, sends), run(ends.theirs, receives)]).finally(
    () => (over = true),
  )
  const [[sent, got]] = await Promise.all([traffic, moves()])
  t.ok(sent.every(({ status }) => status === Status.OK))
  t.same(
    got.map(({ result }) => result),
    Array.from({ length: 160 }, (_, i) => i + 1),
  )
  t.ok(ends.theirs.stats.stops > 0)
})

t.test(
  'atomics that were handed over when the queue pair broke: counted, or unknown',
  async (t) => {
    const ends = await open(t, 64)
    const { target, remote } = await setUp(t, ends)
    const rows = Array.from({ length: 60 }, () => ({
      op: Op.FETCH_ADD,
      target: remote.id,
      length: 8,
      operand: 1,
    }))
    let known = 0
    let unknown = 0
    for (let round = 0; round < 6; round++) {
      const running = run(ends.ours, batchOf(rows))
      if (round % 2 === 0) breakQueue(ends.here, ends.ours.queue)
      for (const { status } of await running) {
        if (status === Status.OK) known++
        else if (status === Status.OUTCOME_UNKNOWN) unknown++
      }
    }
    const sum = Number((await bytes(target, 0, 8)).readBigUInt64LE())
    t.equal(known + unknown, 360)
    t.ok(
      sum >= known && sum <= known + unknown,
      `${sum} counted, ${known} known, ${unknown} unknown`,
    )
    t.ok(known >= 180 && unknown > 0)
  },
)

t.test('a provider refuses posts without saying where it stopped', async (t) => {
  const ends = await open(t, 16)
  const { target, remote, from } = await setUp(t, ends)
  // The queue pair of ours: in RESET, librxe takes nothing and leaves *bad_wr null.
  const pairs = new Set<QueuePair>()
  const modifyNow = Object.getOwnPropertyDescriptor(QueuePair.prototype, 'modifyNow')
  t.teardown(() => void Object.defineProperty(QueuePair.prototype, 'modifyNow', modifyNow ?? {}))
  QueuePair.prototype.modifyNow = function (this: QueuePair, attributes) {
    pairs.add(this)
    ;(modifyNow?.value as QueuePair['modifyNow']).call(this, attributes)
  }
  const write = { op: Op.COPY, source: from.id, target: remote.id, length: 64 }
  const add = { op: Op.FETCH_ADD, target: remote.id, length: 8, targetOffset: 8192, operand: 1 }
  breakQueue(ends.here, ends.ours.queue)
  t.match(await run(ends.ours, batchOf([write])), [{ status: Status.OK }])
  for (let round = 0; round < 3; round++) {
    const pair = [...pairs].find(({ domain }) => domain.device.name === 'rxe0')
    if (pair === undefined) throw new Error('no queue pair was broken')
    await pair.toReset()
    const found = await run(ends.ours, batchOf([write, add, write]))
    // It may have been done, as far as anybody knows.
    t.match(found, [
      { status: Status.OK },
      { status: Status.OUTCOME_UNKNOWN },
      { status: Status.OK },
    ])
  }
  t.equal((await bytes(target, 8192, 8)).readBigUInt64LE(), 0n)
  t.match(await run(ends.ours, batchOf([add])), [{ status: Status.OK }])
})

t.test('who waits for what arrives is not woken by what was sent', async (t) => {
  const ends = await open(t, 32)
  const { ours, theirs } = ends
  const { from, attachment } = await setUp(t, ends)
  const out = new Completions(4)
  const post = (channel: Channel, row: Partial<BatchRow>) =>
    t.equal(channel.post(batchOf([{ ...row, length: 64 }]), 0, 1), 1)
  const credit = async () => {
    const row = batchOf([{ op: Op.SEND, source: from.id, length: 64 }])
    await ours.ready(row, 0)
  }
  const arrivalsOnly = true
  await t.rejects(ours.completions({ arrivalsOnly: 1 as unknown as boolean }), {
    code: 'ERR_INVALID_ARG_TYPE',
    argument: 'arrivalsOnly',
  })

  post(ours, { op: Op.RECEIVE, target: from.id })
  for (let i = 0; i < 3; i++) post(theirs, { op: Op.RECEIVE, target: attachment.id })
  await credit()
  post(ours, { op: Op.SEND, source: from.id })
  let isWoken = false
  const waiting = ours.completions({ arrivalsOnly }).then(() => (isWoken = true))
  await theirs.completions()
  await sleep(300)
  t.equal(isWoken, false)
  t.equal(ours.reap(out), 1, 'what was sent is done')
  post(theirs, { op: Op.SEND, source: attachment.id })
  await waiting
  t.equal(ours.reap(out), 1)
  t.equal(out.result[0], 64, 'what has arrived')

  post(ours, { op: Op.SEND, source: from.id })
  await ours.completions({ arrivalsOnly })
  t.equal(ours.reap(out), 1, 'nothing can arrive: what was sent is waited for')

  post(ours, { op: Op.RECEIVE, target: from.id })
  const arrival = ours.completions({ arrivalsOnly })
  post(ours, { op: Op.SEND, source: from.id })
  await ours.completions()
  t.equal(ours.reap(out), 1, 'another wait for all of them wakes for each')
  await arrival

  // An event for all that is still asked for goes with this one.
  const next = ours.completions({ arrivalsOnly })
  await sleep(100)
  post(theirs, { op: Op.SEND, source: attachment.id })
  await next
  await sleep(100)
  t.equal(ours.reap(out), 1)
  post(ours, { op: Op.RECEIVE, target: from.id })
  const last = ours.completions({ arrivalsOnly })
  breakQueue(ends.here, ours.queue)
  const resets = () => ends.here.stats({ queue: ours.queue ?? '' }).resets
  for (let i = 0; i < 200 && resets() === 0; i++) await sleep(50)
  t.equal(resets(), 1, 'an error is seen, though nobody sends')
  post(theirs, { op: Op.SEND, source: attachment.id })
  await last
  t.equal(ours.reap(out), 1)
})

t.test('waiting within a call', async (t) => {
  const ends = await open(t, 16)
  const { a, b, near, far, ours, theirs } = ends
  const { from, attachment } = await setUp(t, ends)
  const accepted = new Promise<string>((resolve) => far.once('queue', resolve))
  const other = a.channel({ queue: await near.openQueue({ depth: 16 }), depth: 16 })
  const itsPeer = b.channel({ queue: await accepted, depth: 16 })
  const out = new Completions(16)
  const send = (channel: Channel) => {
    const source = channel === theirs ? attachment.id : from.id
    t.equal(channel.post(batchOf([{ op: Op.SEND, source, length: 64 }]), 0, 1), 1)
  }
  /** Posts receives at one end, and sends one message to it: then all of them are known there. */
  const prepare = async (to: Channel, at: Channel) => {
    const target = to === ours ? from.id : attachment.id
    const receives = batchOf(
      Array.from({ length: 6 }, () => ({ op: Op.RECEIVE, target, length: 64 })),
    )
    t.equal(to.post(receives, 0, 6), 6)
    send(at)
    while (to.reap(out) === 0) await to.completions()
    while (at.reap(out) === 0) await at.completions()
  }
  /** Nothing but the kernel does anything meanwhile. */
  const until = (channel: Channel, arrivalsOnly: boolean) => {
    for (let i = 0; i < 1000; i++) {
      if (channel.completionsSync(10_000, { arrivalsOnly })) return channel.reap(out)
    }
    return 0
  }

  t.equal(ours.completionsSync(10_000), true, 'nothing is in flight')
  for (const wrong of [-1, 10_001, 0.5, NaN]) {
    t.throws(
      () => ours.completionsSync(wrong),
      { code: /^ERR_/, argument: 'microseconds' },
      String(wrong),
    )
  }
  t.throws(() => ours.completionsSync('1' as never), { code: /^ERR_/, argument: 'microseconds' })
  t.throws(() => ours.completionsSync(1, { arrivalsOnly: 1 as never }), {
    code: 'ERR_INVALID_ARG_TYPE',
    argument: 'arrivalsOnly',
  })

  await prepare(ours, theirs)
  await prepare(theirs, ours)
  await prepare(itsPeer, other)
  const since = performance.now()
  t.equal(ours.completionsSync(5000), false)
  t.ok(performance.now() - since >= 5, 'all of its time')

  send(ours)
  t.equal(until(ours, false), 1, 'it has been sent')
  t.equal(until(theirs, true), 1, 'it has arrived')
  send(ours)
  t.equal(until(theirs, true), 1)
  t.equal(ours.completionsSync(5000, { arrivalsOnly: true }), false, 'to be sent is no arrival')
  send(theirs)
  t.equal(until(ours, true), 2, 'what was sent, and what has arrived')
  t.same([out.result[0], ours.reap(out), until(theirs, false)], [64, 0, 1])

  // Whoever waits on the event loop is told, too: on this channel, or on another.
  let told = ''
  const first = ours.completions().then(() => (told += 'ours '))
  send(theirs)
  t.equal(until(ours, false), 1)
  await first
  const second = other.completions().then(() => (told += 'other '))
  send(other)
  for (let i = 0; i < 20; i++) t.equal(ours.completionsSync(10_000), false)
  t.equal(told, 'ours ', 'the event loop has had no turn')
  await second
  t.equal(other.reap(out), 1)

  await ours.close()
  t.equal(ours.completionsSync(10_000), true, 'closed')
})

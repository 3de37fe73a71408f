/** What a move must not do to others, and what others cannot do to a move: verbs. */
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { memfd, udmabuf } from '../../lib/exporters/index.js'
import type { Attachment } from '../../lib/move-notify/importer/attachment.js'
import type { Channel } from '../../lib/move-notify/importer/channel.js'
import type { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { type ChannelTransition, trace } from '../../lib/move-notify/trace.js'
import { KIB, buffer, bytes, granted, open } from './verbs-engine-support.js'

t.setTimeout(900_000)

const places = [memfd(), udmabuf()] as const

t.test('a key kept from before the move reaches nothing', async (t) => {
  const ends = await open(t)
  const { a, ours, here, there } = ends
  const source = await buffer(t, 64 * KIB, memfd(), 5)
  const target = await buffer(t, 64 * KIB, memfd(), 1)
  const from = await a.attach(source)
  const { attachment, remote } = await granted(ends, target)
  await ours.copy(from, 0, remote, 0, KIB)
  const read = () => {
    const key = here.regions.remoteKey(remote.id)
    const region = there.regions.sharedKey(attachment.id, attachment.access)
    if (key === undefined || region === null) throw new Error('no region')
    t.equal(key.iova, region.iova, 'the peer has the address of today')
    return { ...key, generation: region.generation }
  }
  const old = read()
  await target.move(udmabuf())
  const now = read()
  t.not(now.iova, old.iova, 'addresses are never used again')
  t.equal(now.generation, old.generation + 1)
  // A peer that does not listen.
  here.regions.updateRemote(remote.id, old)
  await t.rejects(ours.copy(from, 0, remote, 8 * KIB, KIB), { code: 'EFAULT' })
  t.ok(
    (await bytes(target, KIB)).every((byte) => byte === 1),
    '0 bytes changed',
  )
  here.regions.updateRemote(remote.id, now)
  await ours.copy(from, 0, remote, 8 * KIB, KIB)
  t.ok(
    (await bytes(target, 8 * KIB, KIB)).every((byte) => byte === 5),
    'and it goes on',
  )
})

t.test('who does not use the buffer is not stopped', async (t) => {
  const ends = await open(t)
  const { a, b, near, far, ours } = ends
  const accepted = new Promise<string>((resolve) => far.once('queue', resolve))
  const queue = await near.openQueue({ depth: 16 })
  const bystander = a.channel({ queue, depth: 16 })
  const across = b.channel({ queue: await accepted, depth: 16 })
  const [source, target] = [
    await buffer(t, 64 * KIB, memfd(), 3),
    await buffer(t, 64 * KIB, memfd()),
  ]
  const still = await buffer(t, 64 * KIB, memfd())
  const from = await a.attach(source)
  const own = await a.attach(await buffer(t, 64 * KIB, memfd(), 4))
  const { remote } = await granted(ends, target)
  far.grant(across, await b.attach(still), { label: 'still' })
  const apart = (await near.offered('still')).attach(a)
  const stopped: ChannelTransition[] = []
  const onTransition = (message: unknown) => void stopped.push(message as ChannelTransition)
  trace.channel.subscribe(onTransition)
  let moving = true
  let copies = 0
  const traffic = async () => {
    for (; moving; copies++) await bystander.copy(own, 0, apart, 0, 16 * KIB)
  }
  const running = traffic()
  for (let i = 0; i < 10; i++) {
    await Promise.all([
      ours.copy(from, 0, remote, 0, 4 * KIB),
      target.move(places[i % 2] ?? memfd()),
    ])
    await sleep(20)
  }
  moving = false
  await running
  trace.channel.unsubscribe(onTransition)
  t.equal(bystander.stats.stops + across.stats.stops, 0)
  t.ok(stopped.filter((each) => each.event === 'invalidate').length >= 10)
  t.notOk(stopped.some((each) => each.channel === bystander.index || each.channel === across.index))
  t.ok(copies > 10, `${copies} copies meanwhile`)
})

t.test('a peer that does not answer is forced: nothing is doubled in silence', async (t) => {
  const ends = await open(t, 64, { stopTimeoutMs: 300 })
  const { a, b, ours, theirs, near } = ends
  const source = await buffer(t, 64 * KIB, memfd(), 6)
  const target = await buffer(t, 64 * KIB, memfd())
  const from = await a.attach(source)
  const { remote, attachment } = await granted(ends, target)
  const send = near.send.bind(near)
  let deaf = true
  near.send = (message) => (message.type === 'paused' && deaf ? true : send(message))
  const received = Array.from({ length: 40 }, (_, i) =>
    theirs.receive(attachment, 32 * KIB + i * 64, 64),
  )
  const sent: Promise<unknown>[] = []
  const added: Promise<{ previous?: number }>[] = []
  for (let i = 0; i < 40; i++) {
    sent.push(ours.send(from, 0, 1 + i))
    added.push(ours.fetchAdd(remote, 0, 1))
    sent.push(ours.copy(from, 0, remote, 8 * KIB + (i % 4) * 4 * KIB, 4 * KIB))
  }
  await target.move(udmabuf())
  deaf = false
  await Promise.all(sent)
  const sums = await Promise.allSettled(added)
  const unknown = sums.filter((each) => each.status === 'rejected')
  for (const each of unknown) {
    t.equal((each.reason as NodeJS.ErrnoException).code, 'ERR_OUTCOME_UNKNOWN')
  }
  const counted = Number((await bytes(target, 0, 8)).readBigUInt64LE())
  t.ok(counted >= 40 - unknown.length && counted <= 40, `${counted}, ${unknown.length} unknown`)
  const got = await Promise.all(received)
  t.same(
    got.map((each) => each.bytes),
    Array.from({ length: 40 }, (_, i) => 1 + i),
    'messages once, in order',
  )
  t.equal(theirs.stats.forcedStops, 1)
  t.ok((await bytes(target, 8 * KIB, 16 * KIB)).every((byte) => byte === 6))
  await target.move(memfd())
  t.equal(theirs.stats.forcedStops, 1, 'the next one is not')
  await b.close()
})

/** Sends messages until it is over, each with its number, and checks those that come. */
async function talk(
  channel: Channel,
  out: { at: Attachment; buffer: MovableBuffer },
  into: { at: Attachment; buffer: MovableBuffer },
  isOver: () => boolean,
  onSent: () => void,
): Promise<{ sent: number; received: number; wrong: number }> {
  const SLOTS = 16
  const told = { sent: 0, received: 0, wrong: 0 }
  const listen = async (slot: number) => {
    for (;;) {
      const { bytes: length } = await channel.receive(into.at, slot * 256, 256)
      if (length === 1) return
      await into.buffer.withCpuAccess('r', (cpu) => {
        const view = cpu.view(slot * 256, length)
        if (view.some((byte) => byte !== view[0])) told.wrong++
      })
      told.received++
    }
  }
  const speak = async (slot: number) => {
    for (let i = 0; !isOver(); i++) {
      await out.buffer.withCpuAccess('w', (cpu) => void cpu.view(slot * 256, 256).fill(i % 251))
      await channel.send(out.at, slot * 256, 2 + ((slot * 31 + i) % 250))
      told.sent++
      onSent()
    }
    await channel.send(out.at, slot * 256, 1)
  }
  const slots = Array.from({ length: SLOTS }, (_, i) => i)
  await Promise.all([...slots.map(listen), ...slots.map(speak)])
  return told
}

t.test(
  '60 s of messages both ways, both ends moving at random',
  { timeout: 600_000 },
  async (t) => {
    const ends = await open(t, 64, { stopTimeoutMs: 10_000 })
    const { a, b, ours, theirs } = ends
    let [moves, sent] = [0, 0]
    const [enough, latest] = [performance.now() + 60_000, performance.now() + 480_000]
    // On a busy machine it takes longer until there are so many.
    const isOver = () =>
      performance.now() > latest || (performance.now() > enough && moves > 100 && sent > 200)
    const onSent = () => void sent++
    const end = async (importer: typeof a) => {
      const [out, into] = [await buffer(t, 4 * KIB, memfd()), await buffer(t, 4 * KIB, memfd())]
      return {
        out: { buffer: out, at: await importer.attach(out) },
        into: { buffer: into, at: await importer.attach(into) },
      }
    }
    const [mine, yours] = [await end(a), await end(b)]
    const wander = async (which: MovableBuffer) => {
      while (!isOver()) {
        await which.move(places[Math.random() < 0.5 ? 0 : 1])
        moves++
        await sleep(Math.random() * 20)
      }
    }
    const [left, right] = await Promise.all([
      talk(ours, mine.out, mine.into, isOver, onSent),
      talk(theirs, yours.out, yours.into, isOver, onSent),
      ...[mine.out, mine.into, yours.out, yours.into].map((each) => wander(each.buffer)),
    ])
    t.equal(left.received, right.sent)
    t.equal(right.received, left.sent)
    t.equal(left.wrong + right.wrong, 0)
    t.equal(ours.stats.forcedStops + theirs.stats.forcedStops, 0)
    t.comment(`${left.sent + right.sent} messages, ${moves} moves`)
    t.ok(moves > 100 && left.sent > 0 && right.sent > 0)
  },
)

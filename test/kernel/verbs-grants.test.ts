/** What a peer may do, and until when, is the NIC's to guard: no flag of ours, at either end. */
import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { VerbsEngine } from '../../lib/engines/verbs/engine.js'
import type { Grant } from '../../lib/engines/verbs/grants.js'
import { Link } from '../../lib/engines/verbs/link/link.js'
import type { QueueMessage } from '../../lib/engines/verbs/link/messages.js'
import type { Peer } from '../../lib/engines/verbs/peer.js'
import { memfd, udmabuf } from '../../lib/exporters/index.js'
import { Completions, Op } from '../../lib/move-notify/importer/batch.js'
import { type ChannelTransition, trace } from '../../lib/move-notify/trace.js'
import { batchOf } from '../batch-row.js'
import { type Ends, KIB, buffer, bytes, granted, open } from './verbs-engine-support.js'

t.setTimeout(900_000)

const BOTH = 3

/** Has the sender believe that it may use `key` in any way: a peer that does not keep to anything. */
function forge({ here, ours }: Ends, id: number, key: { iova: number; rkey: number }) {
  const number = Number((ours.queue ?? '').replace(/.*q/, '')) + 1
  here.regions.setRemote(id, number, 64 * KIB, BOTH, key)
}

t.test('what is not granted cannot be reached, by whatever key', async (t) => {
  const ends = await open(t)
  const { a, b, ours, there } = ends
  const source = await buffer(t, 64 * KIB, memfd(), 5)
  const secret = await b.attach(await buffer(t, 64 * KIB, memfd(), 1))
  const from = await a.attach(source)
  const { remote } = await granted(ends, await buffer(t, 64 * KIB, memfd(), 2))
  await ours.copy(from, 0, remote, 0, KIB)
  // On soft-RoCE the key by which a device reaches its own is the one by which peers would.
  forge(ends, remote.id, there.regions.table.keyOf(secret.id))
  await t.rejects(ours.copy(from, 0, remote, 0, KIB), { code: 'EFAULT' })
  await t.rejects(ours.copy(remote, 0, from, 0, KIB), { code: 'EFAULT' })
  t.ok((await bytes(secret.buffer)).every((byte) => byte === 1))
})

t.test('a grant of less than the attachment has', async (t) => {
  const ends = await open(t)
  const { a, b, ours, theirs, near, far, there } = ends
  const source = await buffer(t, 64 * KIB, memfd(), 5)
  const target = await buffer(t, 64 * KIB, memfd(), 1)
  const from = await a.attach(source)
  const attachment = await b.attach(target)
  far.grant(theirs, attachment, { label: 'to-read', access: 1 })
  const remote = (await near.offered('to-read')).attach(a)
  await ours.copy(remote, 0, from, 32 * KIB, KIB)
  t.equal((await bytes(source, 32 * KIB, 1))[0], 1, 'read')
  for (let round = 0; round < 2; round++) {
    const key = there.regions.sharedKey(attachment.id, 1)
    if (key === null) throw new Error('no key')
    forge(ends, remote.id, key)
    await t.rejects(ours.copy(from, 0, remote, 0, KIB), { code: 'EFAULT' }, 'not written')
    await t.rejects(ours.fetchAdd(remote, 0, 1), { code: 'EFAULT' }, 'nor added to')
    await target.move(round === 0 ? udmabuf() : memfd())
  }
  t.ok((await bytes(target)).every((byte) => byte === 1))
})

/** When the peer has given back what it had; on a busy machine it takes its time for it. */
async function anew(grant: () => Grant): Promise<Grant> {
  for (let tries = 0; ; tries++) {
    try {
      return grant()
    } catch (error) {
      if ((error as { code?: string }).code !== 'EAGAIN' || tries === 6000) throw error
      await sleep(10)
    }
  }
}

for (const size of [64 * KIB, 256 * KIB]) {
  t.test(`a grant that ends, with writes under way; ${size / KIB} KiB`, async (t) => {
    const ends = await open(t)
    const { a, b, ours, theirs, near, far, here, there } = ends
    const source = await buffer(t, 64 * KIB, memfd(), 5)
    const target = await buffer(t, size, memfd(), 1)
    const from = await a.attach(source)
    const attachment = await b.attach(target)
    const grant = far.grant(theirs, attachment, { label: 'one' })
    await grant.told
    const remote = (await near.offered('one')).attach(a)
    const key = there.regions.sharedKey(attachment.id, attachment.access)
    if (key === null) throw new Error('no key')
    const writes = Array.from({ length: 32 }, () => ours.copy(from, 0, remote, 0, 32 * KIB))
    const settled = Promise.allSettled(writes)
    await sleep(5)
    grant[Symbol.dispose]()
    grant[Symbol.dispose]()
    if (there.regions.sharedKey(attachment.id, attachment.access) !== null) {
      t.throws(() => far.grant(theirs, attachment), { code: 'EAGAIN' }, 'it is under way')
    }
    const codes = (await settled).map((each) =>
      each.status === 'fulfilled' ? 'done' : (each.reason as { code: string }).code,
    )
    t.ok(
      codes.every((code) => code === 'done' || code === 'ERR_REVOKED'),
      codes.join(' '),
    )
    for (let i = 0; i < 100; i++) {
      if (there.regions.sharedKey(attachment.id, attachment.access) === null) break
      await sleep(10)
    }
    t.equal(there.regions.sharedKey(attachment.id, attachment.access), null, 'it has ended')
    t.equal(here.stats().resets + there.stats().resets, 0, 'and no queue pair has suffered')
    await t.rejects(ours.copy(from, 0, remote, 0, KIB), { code: 'ERR_REVOKED' })

    await target.withCpuAccess('w', (cpu) => void cpu.view().fill(2))
    await anew(() => far.grant(theirs, attachment, { label: 'again' })).then(({ told }) => told)
    const again = (await near.offered('again')).attach(a)
    forge(ends, again.id, key)
    await t.rejects(ours.copy(from, 0, again, 0, KIB), { code: 'EFAULT' }, 'the old key is dead')
    t.ok((await bytes(target)).every((byte) => byte === 2))
    const events: string[] = []
    const note = (message: unknown) => void events.push((message as ChannelTransition).event)
    await attachment.close()
    trace.channel.subscribe(note)
    await target.move(udmabuf())
    trace.channel.unsubscribe(note)
    t.notOk(events.includes('invalidate'), `who has no key is not stopped: ${events.join(' ')}`)
  })
}

t.test('who is told of completions takes the last that a grant waits for', async (t) => {
  const ends = await open(t)
  const { a, b, near, far, here } = ends
  const accepted = new Promise<string>((resolve) => far.once('queue', resolve))
  const queue = await near.openQueue({ depth: 16 })
  const theirs = b.channel({ queue: await accepted, depth: 16 })
  // So large that the end of the grant comes before the first of them is done.
  const size = 256 * KIB
  const from = await a.attach(await buffer(t, size, memfd(), 5))
  const attachment = await b.attach(await buffer(t, size, memfd(), 1))
  const out = new Completions(16)
  let reaped = 0
  const ours = here.openChannel({
    ...{ queue, depth: 16 },
    // Within the call that tells it: what waits beside it has nothing left to be woken by.
    onCompletion: () => {
      while (ours.inFlight > 0) reaped += ours.reap(out)
    },
  })
  t.teardown(() => ours.close())
  for (let round = 1; round <= 2; round++) {
    const label = `round-${round}`
    const grant = await anew(() => far.grant(theirs, attachment, { label }))
    const remote = (await near.offered(label)).attach(a)
    const row = { op: Op.COPY, source: from.id, target: remote.id, length: size }
    t.equal(ours.post(batchOf(Array.from({ length: 16 }, () => row)), 0, 16), 16)
    ours.arm()
    grant[Symbol.dispose]()
  }
  await anew(() => far.grant(theirs, attachment))
  t.equal(reaped, 2 * 16)
})

t.test('grants of large buffers, and moves meanwhile', async (t) => {
  const ends = await open(t)
  const { a, b, ours, theirs, near, far } = ends
  const from = await a.attach(await buffer(t, 64 * KIB, memfd(), 7))
  for (let round = 0; round < 8; round++) {
    const target = await buffer(t, 1024 * KIB, memfd())
    const attachment = await b.attach(target)
    // Registered on another thread, while it moves.
    const grant = far.grant(theirs, attachment, { label: `large-${round}` })
    const moved = target.move(udmabuf())
    if (round % 4 === 3) grant[Symbol.dispose]()
    await moved
    if (round % 4 === 3) {
      await t.rejects(grant.told, { code: 'ERR_REVOKED' }).catch(() => {})
      continue
    }
    await grant.told
    const remote = (await near.offered(`large-${round}`)).attach(a)
    await ours.copy(from, 0, remote, 960 * KIB, 64 * KIB)
    t.ok(
      (await bytes(target, 960 * KIB)).every((byte) => byte === 7),
      `round ${round}`,
    )
    await target.move(memfd())
    await ours.copy(from, 0, remote, 0, 64 * KIB)
    t.ok((await bytes(target, 0, 64 * KIB)).every((byte) => byte === 7))
    await attachment.close()
  }
})

t.test('a peer that never says that it has given a buffer back', async (t) => {
  const engine = await VerbsEngine.open('rxe1')
  t.teardown(() => engine.close())
  const arrived = new Promise<{
    queue: string
    peer: Peer
  }>((resolve) => {
    void engine
      .listen({ host: '127.0.0.1' }, (peer) =>
        peer.once('queue', (queue) => resolve({ queue, peer })),
      )
      .then(async ({ port }) => {
        const socket = connect({ host: '127.0.0.1', port })
        await once(socket, 'connect')
        const hello = { type: 'hello', version: 1, nonce: '0'.repeat(32), device: 'rxe0' } as const
        const gid = '00000000000000000000ffff0a000001'
        const link = await Link.open(socket, { ...hello, gid, mtu: 1024 }, { role: 'opener' })
        t.teardown(() => link.close())
        link.onMessage = (message) => said.push(message)
        link.send({ type: 'queue', queue: 0, qpn: 1000, psn: 1, depth: 16 })
      })
  })
  const said: QueueMessage[] = []
  const { queue, peer } = await arrived
  const importer = engine.importer()
  const channel = importer.channel({ queue, depth: 16 })
  const attachment = await importer.attach(await buffer(t, 64 * KIB, memfd()))
  const grant = peer.grant(channel, attachment, { label: 'x' })
  grant[Symbol.dispose]()
  t.not(engine.regions.sharedKey(attachment.id, 3), null, 'it may use it still')
  // For a second, after which soft-RoCE may need a while to take the key away.
  while (engine.regions.sharedKey(attachment.id, 3) !== null) await sleep(20)
  t.pass('but not for ever')
  t.throws(() => peer.grant(channel, attachment, { label: 'y' }), {
    code: 'EAGAIN',
    hint: /has not answered yet/,
  })
  t.same(
    said.map(({ type }) => type).filter((type) => type.includes('grant')),
    ['grant', 'ungrant'],
  )
})

/**
 * The path, the device, or the process's own time goes away in the middle of the traffic.
 * What is taken away here is put back: the files after this one want the rig as it was.
 */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { VerbsEngine, type VerbsEngineOptions } from '../../lib/engines/verbs/engine.js'
import type { Peer } from '../../lib/engines/verbs/peer.js'
import type { P2pdmaError } from '../../lib/errors.js'
import { memfd, udmabuf } from '../../lib/exporters/index.js'
import { quarantined } from '../../lib/move-notify/exporter/quarantine.js'
import { type DeviceLoss, type QueueReset, trace } from '../../lib/move-notify/trace.js'
import { buffer, bytes, type Ends, granted, KIB, open } from './verbs-engine-support.js'

t.setTimeout(900_000)

/** Far above any bound below: what is pending then is pending for ever. */
const EVER_MS = 120_000

function within<T>(work: Promise<T>): Promise<T | 'pending'> {
  return Promise.race([work, sleep(EVER_MS, 'pending' as const, { ref: false })])
}

const reason = (work: Promise<unknown>): Promise<unknown> =>
  within(work).then(
    (value) => value,
    (error: unknown) => error,
  )

const sh = (script: string) =>
  execFileSync('sh', ['-ec', script], { stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' })

/** Drops RoCE at rxe0's interface: what it sends, or what it is answered. */
function block(t: Test, way: 'egress' | 'ingress'): () => void {
  sh(`modprobe -a sch_ingress cls_u32 act_gact
    tc qdisc add dev p2p0 clsact
    tc filter add dev p2p0 ${way} protocol ip u32 match ip protocol 17 0xff \\
      match ip dport 4791 0xffff action drop`)
  let isBlocked = true
  const lift = () => {
    if (isBlocked) sh('tc qdisc del dev p2p0 clsact')
    isBlocked = false
  }
  t.teardown(lift)
  return lift
}

/** The messages of a diagnostics channel from now on. */
function heard<T>(t: Test, name: 'reset' | 'device', onMessage: (message: T) => void = () => {}) {
  const messages: T[] = []
  const note = (message: unknown) => {
    messages.push(message as T)
    onMessage(message as T)
  }
  trace[name].subscribe(note)
  t.teardown(() => trace[name].unsubscribe(note))
  return messages
}

/** Two ends, of which one writes to the other. */
async function writing(t: Test, engines: VerbsEngineOptions) {
  const ends = await open(t, 64, {}, engines)
  const source = await buffer(t, 64 * KIB, memfd(), 5)
  const target = await buffer(t, 64 * KIB, memfd())
  const from = await ends.a.attach(source)
  const { remote, attachment } = await granted(ends, target)
  const write = (length = 64 * KIB) => ends.ours.copy(from, 0, remote, 0, length)
  await write(64)
  return { ...ends, source, target, from, remote, attachment, write }
}

/** A neighbour has to be found first: a link that comes up needs seconds for it. */
async function openQueueAgain(near: Peer): Promise<string> {
  for (let i = 0; i < 60; i++) {
    const opened = await reason(near.openQueue({ depth: 16 }))
    if (typeof opened === 'string') return opened
    await sleep(500)
  }
  throw new Error('no queue pair in 60 tries')
}

/** On one more queue pair between the same two. */
async function writeAnew({ near, far, a, b }: Ends, t: Test): Promise<void> {
  const accepted = once(far, 'queue') as Promise<[string]>
  const queue = await openQueueAgain(near)
  const ours = a.channel({ queue, depth: 16 })
  const theirs = b.channel({ queue: (await accepted)[0], depth: 16 })
  const target = await buffer(t, 4 * KIB, memfd())
  far.grant(theirs, await b.attach(target), { label: 'anew' })
  const remote = (await near.offered('anew')).attach(a)
  await ours.copy(await a.attach(await buffer(t, 4 * KIB, memfd(), 6)), 0, remote, 0, 4 * KIB)
  t.ok((await bytes(target)).every((byte) => byte === 6))
}

for (const [way, what, engines, seen] of [
  ['egress', 'what is sent is dropped', { maxResets: 4 }, /./],
  ['ingress', 'what is answered is dropped', { maxResets: 2, stallTimeoutMs: 1000 }, /completed/],
] as const) {
  t.test(`${what}: bounded resets, then one code`, async (t) => {
    const ends = await writing(t, engines)
    const resets = heard<QueueReset>(t, 'reset')
    const arrival = reason(ends.theirs.receive(ends.attachment, 0, 64))
    const lift = block(t, way)
    const error = (await reason(ends.write())) as P2pdmaError
    t.match(error, { code: 'ERR_NO_PROGRESS', hint: /4791.*MTU of 1024.*GID.*route/ })
    t.match(error.message, seen)
    t.match(await arrival, { code: 'ERR_NO_PROGRESS', cause: { code: 'ERR_NO_PROGRESS' } })
    t.match(await reason(ends.write()), { code: 'ERR_NO_PROGRESS' }, 'and what comes later')
    t.match(await reason(ends.ours.send(ends.from, 0, 8)), { code: 'ERR_NO_PROGRESS' })
    const { maxResets } = engines
    t.match(ends.here.stats(), { givenUp: 1, fruitlessResets: maxResets })
    t.same(
      resets.map(({ fruitless, error: end }) => [fruitless, end === null]),
      Array.from({ length: maxResets }, (_, i) => [i + 1, i + 1 < maxResets]),
      'each is published, and the end',
    )
    t.same(resets.at(-1)?.error, error)
    t.equal(ends.here.error, null, 'of the device nothing is wrong')
    lift()
    await writeAnew(ends, t)
  })
}

t.test('a block that is lifted before the bound', async (t) => {
  let lift = () => {}
  const ends = await writing(t, { maxResets: 1000, resetTimeoutMs: EVER_MS })
  const resets = heard<QueueReset>(t, 'reset', ({ fruitless }) => {
    if (fruitless === 3) lift()
  })
  lift = block(t, 'egress')
  t.match(await reason(ends.write()), { bytes: 64 * KIB })
  t.ok(resets.length >= 3 && resets.every(({ error }) => error === null))
  t.ok((await bytes(ends.target)).every((byte) => byte === 5))
  t.match(ends.here.stats(), { givenUp: 0 })
})

t.test('a port that stays down', async (t) => {
  const ends = await writing(t, { resetTimeoutMs: 1500, stallTimeoutMs: 1000 })
  const arrival = reason(ends.theirs.receive(ends.attachment, 0, 64))
  sh('ip link set p2p0 down')
  try {
    const error = await reason(ends.write())
    t.match(error, { code: 'ERR_NO_PROGRESS', hint: /port 1 of rxe0 is down: see `ip link`/ })
    t.match(await arrival, { code: 'ERR_NO_PROGRESS' })
  } finally {
    sh('ip link set p2p0 up')
  }
  const active = ({ device }: VerbsEngine) => device.port().state === 'active'
  for (let i = 0; i < 200 && !(active(ends.here) && active(ends.there)); i++) await sleep(50)
  await writeAnew(ends, t)
})

interface Removal {
  what: string
  remove: string
  restore: string
  /** The other device stays. */
  alone: boolean
}

const ADD = 'rdma link add rxe0 type rxe netdev p2p0'

const removals: readonly Removal[] = [
  { what: 'the device is deleted', remove: 'rdma link delete rxe0', restore: ADD, alone: true },
  {
    what: 'its interface leaves the namespace',
    remove: 'ip netns add elsewhere; ip link set p2p0 netns elsewhere',
    restore: `ip netns exec elsewhere ip link set p2p0 netns 1
      ip netns delete elsewhere
      ip address add 10.0.0.1/24 dev p2p0; ip link set p2p0 up; ${ADD}`,
    alone: true,
  },
  {
    what: 'its module is removed',
    remove: 'modprobe -r rdma_rxe',
    restore: `modprobe rdma_rxe; ${ADD}
      ip netns exec peer rdma link add rxe1 type rxe netdev p2p1`,
    alone: false,
  },
]

for (const { what, remove, restore, alone } of removals) {
  t.test(what, async (t) => {
    const ends = await writing(t, {})
    const { here, there, near, far, a, b, ours, theirs, from, attachment, source } = ends
    const losses = heard<DeviceLoss>(t, 'device')
    const before = quarantined().length
    const lost = {
      code: 'ERR_DEVICE_LOST',
      message: /rxe0 is gone/,
      hint: /DEVICE_FATAL|lists|fail/,
    }
    const ended = once(near, 'closed')
    const told = once(far, 'closed')
    const pending = [
      reason(near.offered('never')),
      reason(ours.receive(from, 0, 64)),
      reason(repeat(() => ends.write())),
      reason(repeat(() => ours.send(from, 0, 64))),
    ]
    const arrival = reason(repeat(() => theirs.receive(attachment, 0, 64)))
    const removed = once(spawn('sh', ['-ec', remove], { stdio: 'inherit' }), 'close')
    try {
      const gone = alone ? lost : { code: /^ERR_(DEVICE|PEER)_LOST$/ }
      // Whichever of the two went first: of a peer that is lost what was in flight is not known.
      const either = alone ? lost : { code: /^ERR_(DEVICE_LOST|PEER_LOST|OUTCOME_UNKNOWN)$/ }
      for (const each of pending) t.match(await each, either)
      const [[error], [reported]] = (await Promise.all([ended, told])) as [[Error], [Error]]
      t.match(error, gone)
      t.match(reported, { code: alone ? 'ERR_PEER_LOST' : /LOST/ }, 'the peer is told')
      t.match(await arrival, { code: alone ? 'ERR_PEER_LOST' : /LOST/ })
      for (let i = 0; i < 600 && a.error === null; i++) await sleep(10)
      t.match(here.error, lost)
      t.equal(a.error, here.error, 'the importer has failed with it')
      t.match(
        losses.find(({ engine }) => engine === 'verbs:rxe0'),
        {
          error: here.error,
          isOutOfReach: true,
        },
      )
      t.equal(quarantined().length, before, 'the kernel has taken all of it back')
      t.match(await reason(near.openQueue()), gone)
      for (const call of [
        () => a.attach(source),
        () => Promise.resolve().then(() => here.importer()),
        () => here.pair(there),
        () => ours.send(from, 0, 8),
      ]) {
        t.match(await reason(call()), lost)
      }
      await source.move(udmabuf())
      if (alone) {
        t.equal(there.error, null)
        t.equal(b.error, null, 'the other engine goes on')
        await attachment.buffer.move(udmabuf())
      }
      t.not(await within(here.close()), 'pending')
      t.ok(here.closed)
    } finally {
      await removed
      sh(restore)
    }
    for (let i = 0; i < 200; i++) {
      if (await isUsable()) break
      await sleep(50)
    }
    const again = await writing(t, {})
    await again.write()
    t.ok(
      (await bytes(again.target)).every((byte) => byte === 5),
      'and it is opened again',
    )
  })
}

/** Until it is refused. */
async function repeat(work: () => Promise<unknown>): Promise<never> {
  for (;;) await work()
}

async function isUsable(): Promise<boolean> {
  try {
    for (const name of ['rxe0', 'rxe1']) await (await VerbsEngine.open(name)).close()
    return true
  } catch {
    return false
  }
}

t.test('a process that is stopped for a while finds its devices as they were', async (t) => {
  const ends = await writing(t, {})
  const { here, there, a, b, theirs, ours, attachment, from, target } = ends
  let on = true
  let messages = 0
  const talk = async () => {
    while (on) {
      const arrived = theirs.receive(attachment, 0, 64)
      await ours.send(from, 0, 64)
      await arrived
      messages++
    }
  }
  const write = async () => {
    while (on) await ends.write()
  }
  const move = async () => {
    while (on) {
      await target.move(udmabuf())
      await target.move(memfd())
    }
  }
  const work = Promise.all([talk(), write(), move()])
  await sleep(500)
  const before = messages
  const { pid } = process
  const script = `kill -STOP ${pid}; sleep 5; kill -CONT ${pid}`
  await once(spawn('sh', ['-c', script], { stdio: 'ignore' }), 'close')
  for (let i = 0; i < 600 && messages < before + 10; i++) await sleep(50)
  on = false
  t.not(await within(work), 'pending')
  t.ok(messages >= before + 10, `${messages - before} messages after it`)
  t.same(
    [a.stats.forcedStops, b.stats.forcedStops, here.stats().resets, there.stats().resets],
    [0, 0, 0, 0],
    'no stop was forced, and no queue pair reset',
  )
})

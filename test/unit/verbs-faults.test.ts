/**
 * What a call that fails leaves behind: nothing. Each sequence is run once for each of its
 * steps, which fails (fakes: fake-verbs.ts), and then everything has to be closed.
 */
import { getEventListeners, once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { VerbsBackend } from '../../lib/engines/verbs/backend.js'
import { Grants } from '../../lib/engines/verbs/grants.js'
import type { QueueMessage } from '../../lib/engines/verbs/link/messages.js'
import { tryMoving } from '../../lib/engines/verbs/move-trial.js'
import type { LifeOutcome } from '../../lib/engines/verbs/progress.js'
import { makeParts } from '../../lib/engines/verbs/queue-parts.js'
import type { Queue } from '../../lib/engines/verbs/queue.js'
import { Regions } from '../../lib/engines/verbs/regions.js'
import type { Registrar } from '../../lib/engines/verbs/registrar.js'
import { P2pdmaError } from '../../lib/errors.js'
import { memfd, slab } from '../../lib/exporters/index.js'
import type { MappedExporter } from '../../lib/exporters/slab.js'
import type { Mapping } from '../../lib/kernel/mapping.js'
import { QpState } from '../../lib/kernel/verbs/index.js'
import type {
  CompletionChannel,
  ProtectionDomain,
  VerbsDevice,
} from '../../lib/kernel/verbs/index.js'
import type { Attachment } from '../../lib/move-notify/importer/attachment.js'
import type { Backing } from '../../lib/move-notify/exporter/backing.js'
import type { Channel } from '../../lib/move-notify/importer/channel.js'
import { type QueueReset, trace } from '../../lib/move-notify/trace.js'
import { eachFailure, type FakeEnd, fakePeers, FakeVerbs } from './fake-verbs.js'

const codeOf = (error: unknown) => (error as { code?: string }).code

/** A device and a domain of it, with all that they make. */
function fakeDevice(fake: FakeVerbs) {
  const mappings: Mapping[] = []
  const device = {
    attributes: () => ({ maxCqe: 64, maxQpWr: 32 }),
    completionQueue: async () => {
      await Promise.resolve()
      return fake.make('cq', { poll: () => fake.call('poll') ?? 1 })
    },
    protectionDomain: async () => {
      await Promise.resolve()
      const domain = fake.make('domain', {
        device,
        queuePair: async ({ sendCq }: { sendCq: { children: object[] } }) => {
          await Promise.resolve()
          const qp = fake.queuePair('a', 7, sendCq)
          domain.children.push(qp)
          return Object.assign(qp, { post: () => fake.call('post') })
        },
        register: async (mapping: Mapping) => {
          await Promise.resolve()
          mappings.push(mapping)
          return fake.region(mapping.length, domain)
        },
      })
      return domain
    },
  }
  return { device: device as unknown as VerbsDevice, mappings }
}

t.test("a queue pair's parts", async (t) => {
  const steps = await eachFailure(async (fake, failed) => {
    const { device, mappings } = fakeDevice(fake)
    const from = fake.calls.length
    // Of which it is does not matter here.
    const domain = await device.protectionDomain().catch(() => null)
    if (domain === null || fake.calls.length - from !== 1) return
    const events = {} as CompletionChannel
    try {
      const parts = await makeParts(domain, events, 16, () => {})
      t.equal(fake.open.size, 4)
      await parts.close()
    } catch (error) {
      t.equal(error, fake.error, failed ?? 'nothing fails')
    }
    // One that cannot be closed may stay, and nothing beside it.
    t.same(
      fake.left.filter((each) => each !== domain),
      [],
      failed ?? 'all of it',
    )
    t.ok(mappings.every((mapping) => mapping.closed))
  })
  t.ok(steps >= 7, `${steps} steps`)
})

t.test('the trial of a move', async (t) => {
  const backing = { offset: 0 } as Backing
  const steps = await eachFailure(async (fake, failed) => {
    const { device, mappings } = fakeDevice(fake)
    const registrar = {
      register: async (domain: { children: object[] }) => {
        await Promise.resolve()
        return fake.region(4096, domain)
      },
    } as unknown as Registrar
    const port = { device, gid: {}, path: {} }
    const parts = { port, registrar } as unknown as Parameters<typeof tryMoving>[0]
    const move = () => Promise.resolve().then(() => fake.call('move'))
    const result = await tryMoving(parts, backing, move).catch((error: unknown) => error)
    if (failed === null) t.equal(result, 'followed')
    else t.equal(result, fake.error, failed)
    t.same(fake.left, [], failed ?? 'all of it')
    t.ok(mappings.every((mapping) => mapping.closed))
  })
  t.ok(steps >= 12, `${steps} steps`)
})

t.test('shared, given back and shared again before it was registered', async (t) => {
  const size = 256 << 10
  const fake = new FakeVerbs()
  const register = async () => {
    await sleep(1)
    return fake.region(size)
  }
  const regions = new Regions({} as ProtectionDomain, { register } as unknown as Registrar)
  await regions.map(1, { offset: 0, size } as Backing, size, 3)
  const first = regions.share(1, 1)
  regions.unshare(1, 1)
  const second = regions.share(1, 1)
  await Promise.all([first, second])
  t.not(regions.sharedKey(1, 1), null)
  regions.unshare(1, 1)
  await regions.unmap(1)
  t.equal(fake.open.size, 0, 'each registration has gone')
})

for (const size of [4096, 256 << 10]) {
  t.test(`registrations of an attachment, ${size >> 10} KiB`, async (t) => {
    const backing = { offset: 0, size } as Backing
    const steps = await eachFailure(async (fake, failed) => {
      const registrar = {
        register: async () => {
          await Promise.resolve()
          return fake.region(size)
        },
        registerNow: () => fake.region(size),
      } as unknown as Registrar
      const regions = new Regions({} as ProtectionDomain, registrar)
      const errors: unknown[] = []
      const step = async (work: () => void | Promise<void>) => {
        try {
          await work()
        } catch (error) {
          errors.push(error)
        }
      }
      await step(() => regions.map(1, backing, size, 3))
      let isShared = true
      await step(async () => {
        try {
          await regions.share(1, 1)
        } catch (error) {
          isShared = false
          throw error
        }
      })
      await step(() => regions.unmap(1))
      await step(() => regions.map(1, backing, size, 3))
      if (isShared) await step(() => regions.unshare(1, 1))
      await step(() => regions.unmap(1))
      // Only what cannot be deregistered, which has failed the unmap, is there still.
      t.same(fake.left, [], failed ?? 'all of it')
      // What the end of a grant could not deregister, the unmap could.
      if (failed === null || fake.open.size > 0 || failed.startsWith('make')) {
        t.equal(errors.includes(fake.error), failed !== null, `${failed ?? 'none'}: it is told`)
      }
    })
    t.ok(steps >= 8, `${steps} steps`)
  })
}

const QUEUE = { id: 1, name: 'q' } as Queue

/** Grants of one attachment on one queue, and what is left of them: shares and users. */
function fakeGrants(
  send: (message: QueueMessage) => boolean,
  share: () => Promise<void> | undefined = () => undefined,
  holds = true,
) {
  let shares = 0
  let users = 0
  const grants = new Grants({
    queueNamed: () => QUEUE,
    send,
    regions: {
      share: () => {
        const pending = share()
        shares++
        return pending
      },
      unshare: () => void shares--,
      sharedKey: () => ({ iova: 0, rkey: 1, generation: 1, size: 4096 }),
    } as unknown as Regions,
  })
  const channel = {
    queue: 'q',
    isRunning: true,
    grant: () => {
      if (!holds) throw new Error('fake: refused')
      users++
      return { [Symbol.dispose]: () => void users-- }
    },
  } as unknown as Channel
  const attachment = { id: 1, access: 3, state: 'mapped', error: null } as Attachment
  const add = () => grants.add(channel, attachment, {})
  return { grants, add, left: () => [shares, users] }
}

t.test('a grant', async (t) => {
  const ways: Record<string, [share: () => Promise<void> | undefined, holds: boolean, tells: boolean]> = {
    'the channel refuses': [() => undefined, false, true],
    'it cannot be registered': [() => { throw new Error('fake: no region') }, true, true],
    'it cannot be registered later': [() => Promise.reject(new Error('fake: no region')), true, true],
    'it cannot be told': [() => undefined, true, false],
    'it cannot be told later': [() => Promise.resolve(), true, false],
    'nothing fails': [() => undefined, true, true],
  } // prettier-ignore
  for (const [what, [share, holds, tells]] of Object.entries(ways)) {
    const fake = fakeGrants(
      () => {
        if (!tells) throw new Error('fake: not sent')
        return true
      },
      share,
      holds,
    )
    const failure = await Promise.resolve()
      .then(() => fake.add().told)
      .then(() => null, (error: unknown) => error) // prettier-ignore
    const isLeft = what === 'nothing fails' ? 1 : 0
    t.equal(failure === null, isLeft === 1, what)
    t.same(fake.left(), [isLeft, isLeft], `${what}: what is left`)
  }
})

t.test('a grant that a peer is late to give back', async (t) => {
  const said: string[] = []
  // As a link does: the peer would take another grant of the attachment for an error.
  const fake = fakeGrants(({ type }) => {
    if (type === 'grant' && said.at(-1) === 'ungrant') throw new Error('fake: being taken back')
    return said.push(type) > 0
  })
  const grant = fake.add()
  await grant.told
  grant[Symbol.dispose]()
  t.throws(() => fake.add(), { code: 'EAGAIN', hint: /when the peer has answered/ })
  t.ok(fake.grants.has(QUEUE), 'it may use it still')
  while (fake.left()[0] !== 0) await sleep(20)
  t.same(fake.left(), [0, 0], 'its key has gone')
  t.notOk(fake.grants.has(QUEUE))
  t.throws(() => fake.add(), { code: 'EAGAIN', hint: /has not answered yet/ })
  said.push('ungranted')
  fake.grants.onUngranted(1, 1)
  t.same(fake.left(), [0, 0], 'the answer takes nothing away once more')
  await fake.add().told
  t.same(fake.left(), [1, 1])
  fake.grants.drop(QUEUE)
  t.same(fake.left(), [0, 0])
})

t.test('a slab that grows by somebody else’s exporter', async (t) => {
  let freed = 0
  const free = () => Promise.resolve(void freed++)
  const other = { ...memfd(), placement: 'memfd', allocate: () => Promise.resolve({ free }) }
  const exporter = slab(other as unknown as MappedExporter)
  await t.rejects(exporter.allocate(4096), { code: 'ERR_INVALID_ARG_VALUE' })
  t.equal(freed, 1)
})

/** Until it is so; ends by the test's time limit. */
async function until(isTrue: () => boolean): Promise<void> {
  while (!isTrue()) await sleep(1)
}

const isEmpty = ({ queues }: FakeEnd) => queues.size === 0

t.test('a queue pair between two peers', async (t) => {
  const steps = await eachFailure(async (fake, failed) => {
    const [near, far] = await fakePeers(fake)
    const opened = await near.peer.openQueue().catch((error: unknown) => error)
    const isMade = failed === null || failed.startsWith('close')
    if (isMade) {
      t.equal(opened, 'opener/q0')
    } else {
      if (failed.includes('accepter')) {
        t.match(opened, {
          code: 'ERR_PEER_REFUSED',
          message: /fake: no memory/,
          hint: /ENOMEM/,
          cause: { code: 'ENOMEM', message: 'fake: no memory' },
        })
      } else t.equal(opened, fake.error, failed)
      await until(() => isEmpty(near) && isEmpty(far) && fake.open.size === 0)
      t.pass(`${failed}: nothing is left at either end`)
      t.match(await near.peer.openQueue(), /^opener/, 'and the next one is opened')
    }
    await near.peer.close()
    await until(() => isEmpty(near) && isEmpty(far) && fake.left.length === 0)
  })
  t.ok(steps >= 8, `${steps} steps`)
})

t.test('a peer that does not answer', async (t) => {
  const fake = new FakeVerbs()
  const [near, far] = await fakePeers(fake)
  let answer = (): void => {}
  const held = new Promise<void>((resolve) => (answer = () => resolve()))
  const open = (options: { timeoutMs?: number; signal?: AbortSignal }) =>
    near.peer.openQueue(options)
  const original = fake.queuePair.bind(fake)
  fake.queuePair = (name, number, parent) => {
    const qp = original(name, number, parent)
    return name === 'accepter' ? Object.assign(qp, { toInit: () => held }) : qp
  }
  await t.rejects(open({ timeoutMs: 20 }), { code: 'ETIMEDOUT', hint: /hangs/ })
  const controller = new AbortController()
  const aborted = open({ signal: controller.signal })
  setTimeout(() => controller.abort(new Error('enough')), 20)
  await t.rejects(aborted, { code: 'ABORT_ERR', cause: { message: 'enough' } })
  t.equal(getEventListeners(controller.signal, 'abort').length, 0)
  await t.rejects(open({ signal: controller.signal }), { code: 'ABORT_ERR' }, 'at once')
  await t.rejects(open({ signal: 5 as unknown as AbortSignal }), {
    code: 'ERR_INVALID_ARG_TYPE',
    argument: 'signal',
  })
  t.ok(isEmpty(near))
  await until(() => far.queues.size === 2)
  answer()
  await until(() => isEmpty(far) && fake.open.size === 0)
  t.pass('what comes too late is given back')
  await near.peer.close()
})

/** The backend of a channel whose queue pair gets nothing through, until it does. */
class FakeBackend {
  outcome: LifeOutcome = 'fruitless'
  readonly lives: number[] = []
  isLost = false
  #queue: Queue

  constructor(queue: Queue) {
    this.#queue = queue
    queue.backend = this as unknown as VerbsBackend
  }

  drainErrors(): Promise<void> {
    return Promise.resolve()
  }

  onEvent(): void {}

  /** Of a peer's device that has refused something: set to what happens then. */
  hearRefusal = (): Promise<void> => Promise.resolve()

  settle(): void {}

  /** In the life that begins it sends; and its device says at once that it is of no use. */
  pump(): void {
    this.lives.push(this.#queue.counts.life)
    if (this.outcome !== 'idle') setImmediate(() => this.#queue.break('RETRY_EXC_ERR'))
  }

  lost(): void {
    this.isLost = true
  }

  drainFor(): Promise<void> {
    return Promise.resolve()
  }
}

async function fruitless(limits: { maxResets?: number; resetTimeoutMs?: number }) {
  const fake = new FakeVerbs()
  const ends = await fakePeers(fake, limits)
  const [near, far] = ends
  const accepted = once(far.peer, 'queue')
  await near.peer.openQueue()
  await accepted
  const [[ours], [theirs]] = ends.map(({ queues }) => [...queues]) as [[Queue], [Queue]]
  return { fake, near, far, ours, theirs, channel: new FakeBackend(ours) }
}

for (const [what, limits] of [
  ['their number', { maxResets: 5, resetTimeoutMs: Infinity }],
  ['the time', { maxResets: 1e6, resetTimeoutMs: 100 }],
] as const) {
  t.test(`resets without progress are bounded by ${what}`, async (t) => {
    const { near, far, ours, theirs, channel } = await fruitless(limits)
    const resets: QueueReset[] = []
    const note = (message: unknown) => void resets.push(message as QueueReset)
    trace.reset.subscribe(note)
    t.teardown(() => trace.reset.unsubscribe(note))
    channel.pump()
    await until(() => channel.isLost)
    const { error } = ours
    t.match(error, {
      code: 'ERR_NO_PROGRESS',
      message: /RETRY_EXC_ERR x\d/,
      hint: /UDP port 4791.*MTU of 1024 bytes.*GID.*route/,
    })
    if (limits.maxResets === 5) {
      t.equal(near.fruitless, 5)
      t.same(resets.map((each) => each.fruitless), [1, 2, 3, 4, 5]) // prettier-ignore
      t.match(resets.at(-1), { queue: 'opener/q0', error, seen: { RETRY_EXC_ERR: 5 } })
    }
    t.equal(near.givenUp, 1)
    await until(() => theirs.error !== null)
    t.match(theirs.error, {
      code: 'ERR_NO_PROGRESS',
      cause: { code: 'ERR_NO_PROGRESS', message: error?.message ?? '' },
    })
    await until(() => isEmpty(far))
    await near.peer.close()
  })
}

t.test('what gets through in time begins the count anew', async (t) => {
  const { near, ours, channel } = await fruitless({ maxResets: 4 })
  for (let round = 0; round < 3; round++) {
    channel.outcome = 'fruitless'
    channel.pump()
    await until(() => ours.progress.row === 3)
    channel.outcome = 'progress'
    await until(() => ours.progress.row === 0)
  }
  channel.outcome = 'idle'
  t.equal(ours.error, null)
  t.equal(ours.progress.total, 9)
  t.equal(near.givenUp, 0)
  await near.peer.close()
})

t.test('a queue pair that has nothing to send is reset as often as need be', async (t) => {
  const { near, ours, channel } = await fruitless({ maxResets: 2 })
  channel.outcome = 'idle'
  for (let i = 0; i < 10; i++) {
    const { life } = ours.counts
    ours.break('forced')
    await until(() => ours.counts.life > life && ours.isReady)
  }
  t.equal(ours.error, null)
  t.equal(near.fruitless, 0)
  await near.peer.close()
})

for (const refuser of ['opener', 'accepter']) {
  for (const order of ['heard, then asked', 'heard with no ask', 'not heard']) {
    t.test(`a request that the ${refuser}'s device refuses: ${order}`, async (t) => {
      const { fake, near, ours, theirs, channel } = await fruitless({})
      channel.outcome = 'idle'
      const other = new FakeBackend(theirs)
      other.outcome = 'idle'
      const [refusing, sending] = refuser === 'opener' ? [ours, theirs] : [theirs, ours]
      const waited: boolean[] = []
      const heard = sending === ours ? channel : other
      heard.hearRefusal = async () => {
        waited.push(sending.isReady)
        await sleep(5)
        if (order !== 'not heard') sending.break('REM_ACCESS_ERR')
        // Its own ask goes out meanwhile.
        if (order === 'heard, then asked') await sleep(20)
      }
      fake.qpState = QpState.ERR
      refusing.onFatal('QP_ACCESS_ERR')
      await until(() => ours.isReady && theirs.isReady && ours.counts.life > 1)
      t.same(waited, [true], 'before it is cut off')
      // One that is told of late is of a life that is over.
      fake.qpState = QpState.RTS
      refusing.onFatal('QP_ACCESS_ERR')
      await sleep(50)
      for (const each of [ours, theirs]) {
        t.equal(each.counts.life, 2)
        t.ok(each.isReady)
        t.equal(each.error, null)
      }
      // The next one is of another kind.
      refusing.break('forced')
      await until(() => ours.isReady && theirs.isReady && ours.counts.life > 2)
      t.equal(waited.length, 1)
      await near.peer.close()
    })
  }
}

t.test('a device that is lost: both ends say so, each in its words', async (t) => {
  const fake = new FakeVerbs()
  const [near, far] = await fakePeers(fake)
  await near.peer.openQueue()
  await until(() => far.queues.size === 1)
  const [theirs] = [...far.queues] as [Queue]
  const offered = near.peer.offered('never')
  const ended = once(near.peer, 'closed')
  const told = once(far.peer, 'closed')
  const lost = new P2pdmaError('fake0 is gone', { code: 'ERR_DEVICE_LOST' })
  near.peer.lose(lost)
  await t.rejects(offered, { code: 'ERR_DEVICE_LOST' })
  t.same(await ended, [lost])
  await t.rejects(near.peer.openQueue(), { code: 'ERR_DEVICE_LOST' })
  t.match(await told, [{ code: 'ERR_PEER_LOST', message: /fake0 is gone/ }])
  t.match(theirs.error, { code: 'ERR_PEER_LOST', cause: { code: 'ERR_DEVICE_LOST' } })
  await until(() => fake.open.size === 0)
  t.equal(codeOf(lost), 'ERR_DEVICE_LOST')
})

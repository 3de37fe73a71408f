/**
 * Fakes of libibverbs' objects, of which any call can be made to fail: the rig has no way to
 * make a real one fail there. Never a source of figures.
 */
import type { Engine } from '../../lib/move-notify/importer/engine.js'
import { P2pdmaError } from '../../lib/errors.js'
import { QpState } from '../../lib/kernel/verbs/index.js'
import type { Queue, QueueParts } from '../../lib/engines/verbs/queue.js'
import { Link } from '../../lib/engines/verbs/link/link.js'
import { memoryPair } from '../../lib/engines/verbs/link/memory-pair.js'
import { Peer, type PeerHost } from '../../lib/engines/verbs/peer.js'
import type { ProgressLimits } from '../../lib/engines/verbs/progress.js'
import type { Regions } from '../../lib/engines/verbs/regions.js'
import { introduction } from './verbs-link-help.js'

/** What is open, and which call is to fail. */
export class FakeVerbs {
  readonly open = new Set<object>()
  /** Of all calls so far, their names. */
  readonly calls: string[] = []
  /** What queue pairs were asked for. */
  readonly requests: { call: string; request: unknown }[] = []
  /** The number of the call that fails; -1: none. */
  failing = -1
  /** What queue pairs are in, asked for it. */
  qpState: number = QpState.RTS
  /** What could not be closed, and what is of it. */
  readonly #stuck: object[] = []
  readonly error = new P2pdmaError('fake: no memory', {
    code: 'ENOMEM',
    errno: -12,
    syscall: 'fake_call',
  })

  /** Throws where it is this one's turn. */
  call(name: string): void {
    this.calls.push(name)
    if (this.calls.length - 1 === this.failing) throw this.error
  }

  /** What is open, and need not be. */
  get left(): object[] {
    return [...this.open].filter((each) => !this.#stuck.includes(each))
  }

  /** Something that is open until it is closed, and with it what it has of children. */
  make<T extends object>(name: string, extra: T, parent?: { children: object[] }) {
    this.call(`make ${name}`)
    const made = {
      ...extra,
      children: [] as object[],
      closed: false,
      closeNow: () => {
        if (!this.open.has(made)) return
        try {
          this.call(`close ${name}`)
        } catch (error) {
          this.#stuck.push(made, ...made.children)
          throw error
        }
        for (const child of made.children) this.open.delete(child)
        this.open.delete(made)
        made.closed = true
      },
      close: async () => {
        await Promise.resolve()
        made.closeNow()
      },
      [Symbol.asyncDispose]: () => made.close(),
    }
    this.open.add(made)
    parent?.children.push(made)
    return made
  }

  region(length: number, parent?: { children: object[] }) {
    const made = this.make('region', { iova: 0, lkey: 1, rkey: 2, length }, parent)
    return Object.assign(made, { deregisterNow: made.closeNow })
  }

  queuePair(name: string, qpNumber: number, parent?: { children: object[] }) {
    const step = (call: string) => async (request?: unknown) => {
      await Promise.resolve()
      this.requests.push({ call: `${name} ${call}`, request })
      this.call(`${name} ${call}`)
    }
    return this.make(
      `${name} qp`,
      {
        qpNumber,
        toInit: step('toInit'),
        toRtr: step('toRtr'),
        toRts: step('toRts'),
        toReset: step('toReset'),
        modifyNow: () => {},
        query: () => ({ qpState: this.qpState }),
      },
      parent,
    )
  }
}

/** One run without a failure, and one for each of its calls that fails. */
export async function eachFailure(
  run: (fake: FakeVerbs, failed: string | null) => Promise<void>,
): Promise<number> {
  const whole = new FakeVerbs()
  await run(whole, null)
  for (const [index, name] of whole.calls.entries()) {
    const fake = new FakeVerbs()
    fake.failing = index
    await run(fake, name)
  }
  return whole.calls.length
}

const LIMITS: ProgressLimits = { maxResets: 8, resetTimeoutMs: 10_000, stallTimeoutMs: 4000 }

export interface FakeEnd {
  peer: Peer
  queues: Set<Queue>
  fruitless: number
  givenUp: number
}

let numbers = 0

function host(fake: FakeVerbs, name: string, limits: Partial<ProgressLimits>, end: FakeEnd) {
  const made: PeerHost = {
    engine: { name: `fake:${name}` } as Engine,
    regions: {} as Regions,
    port: { path: { sgidIndex: 1, portNum: 2 }, mtu: 1024, trouble: () => null },
    limits: { ...LIMITS, ...limits },
    makeParts: async () => {
      await Promise.resolve()
      const qp = fake.queuePair(name, ++numbers)
      return { qp, close: () => qp.close() } as unknown as QueueParts
    },
    nextNumber: () => ++numbers,
    addQueue: (queue) => void end.queues.add(queue),
    dropQueue: (queue) => void end.queues.delete(queue),
    forgetPeer: () => {},
    onRefused: () => {},
    onFruitless: () => void end.fruitless++,
    onGivenUp: () => void end.givenUp++,
  }
  return made
}

/** Two peers over a link in memory; the first one is the opener. */
export async function fakePeers(
  fake: FakeVerbs,
  limits: Partial<ProgressLimits> = {},
): Promise<[FakeEnd, FakeEnd]> {
  const streams = memoryPair()
  const roles = ['opener', 'accepter'] as const
  const links = await Promise.all(
    roles.map((role, i) => Link.open(streams[i] ?? streams[0], introduction, { role })),
  )
  const [near, far] = roles.map((role, i) => {
    const end = { queues: new Set<Queue>(), fruitless: 0, givenUp: 0 } as FakeEnd
    end.peer = new Peer(host(fake, role, limits, end), links[i] as Link, role, role === 'opener')
    return end
  })
  return [near as FakeEnd, far as FakeEnd]
}

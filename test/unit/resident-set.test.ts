/** A device's memory that is too small: who goes, who stays, who comes back. */
import t, { type Test } from 'tap'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { P2pdmaError } from '../../lib/errors.js'
import { memfd } from '../../lib/exporters/index.js'
import type { Backing, Exporter } from '../../lib/move-notify/exporter/backing.js'
import type { BufferOptions, MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { HeldBacking } from '../../lib/move-notify/exporter/residency/held-backing.js'
import { LruList, LruNode } from '../../lib/move-notify/exporter/residency/lru-list.js'
import {
  ResidentSet,
  type ResidentSetOptions,
} from '../../lib/move-notify/exporter/residency/resident-set.js'
import { ThrashDetector } from '../../lib/move-notify/exporter/residency/thrash-detector.js'
import type { ThrashChange } from '../../lib/move-notify/trace.js'
import { native } from '../../lib/native.js'
import { Random } from '../../lib/smoke/random.js'

const page = native.pageSize

/** Video memory: memfds under another name, counted, and not more than `limit`. */
class Video implements Exporter {
  readonly placement = 'video'
  readonly kind = 'embedded'
  readonly limit: number
  used = 0
  most = 0

  constructor(limit = Infinity) {
    this.limit = limit
  }

  async allocate(size: number): Promise<Backing> {
    const backing = await memfd().allocate(size)
    this.used += backing.size
    this.most = Math.max(this.most, this.used)
    const held = new Video.Held(backing, ({ size }) => (this.used -= size))
    if (this.used > this.limit) {
      await held.free()
      throw new P2pdmaError('full', { code: 'ENOSPC' })
    }
    return held
  }

  static Held = class extends HeldBacking<null> {
    override readonly placement = 'video'
  }
}

function made(t: Test, pages: number, options: Partial<ResidentSetOptions> = {}, limit?: number) {
  const video = new Video(limit)
  const set = new ResidentSet(video, { budget: pages * page, evictTo: memfd(), ...options })
  t.teardown(() => set.close())
  return { video, set }
}

/** A buffer of one page, filled with a byte. */
async function filled(set: ResidentSet, byte: number, options: BufferOptions = {}, pages = 1) {
  const buffer = await set.create(pages * page, options)
  await buffer.withCpuAccess('w', (cpu) => void cpu.view().fill(byte))
  return buffer
}

const holds = (buffer: MovableBuffer, byte: number) =>
  buffer.withCpuAccess('r', (cpu) => cpu.view().every((each) => each === byte))

const places = (...buffers: MovableBuffer[]) => buffers.map((each) => each.placement[0]).join('')

void t.test('the least recently used one goes, and comes back', async (t) => {
  const { video, set } = made(t, 2)
  const a = await filled(set, 1)
  const b = await filled(set, 2)
  t.equal(places(a, b), 'vv')
  const c = await filled(set, 3)
  t.equal(places(a, b, c), 'mvv')
  await set.use(b)
  await set.use(a)
  t.equal(places(a, b, c), 'vvm', 'b was used after c')
  await set.use(c, b)
  t.equal(places(a, b, c), 'mvv', 'never one that is asked for')
  await set.use(a, a)
  t.equal(places(a, b, c), 'vvm', 'the later in a call is the more recently used')
  for (const [i, each] of [a, b, c].entries()) t.ok(await holds(each, i + 1))
  t.equal(video.most, 2 * page)
  const { evictions, restores, evictedBytes, restoredBytes, uses, residentBytes } = set.stats
  t.same(
    { evictions, restores, evictedBytes, restoredBytes, uses, residentBytes },
    {
      evictions: 4,
      restores: 3,
      evictedBytes: 4 * page,
      restoredBytes: 3 * page,
      uses: 5,
      residentBytes: 2 * page,
    },
  )
  await t.rejects(set.use(a, b, c), { code: 'ENOSPC' })
  t.equal(places(a, b, c), 'vvm', 'nothing was moved for what cannot be')
  await t.rejects(set.create(2 * page + 1), { code: 'ENOSPC' })
  t.equal(places(a, b, c), 'vvm')
  await a.close()
  t.same([set.stats.residentBytes, set.stats.buffers], [page, 2], 'closing gives the bytes back')
  const d = await set.create(page)
  t.equal(places(b, d), 'vv')
  const large = await set.create(2 * page)
  t.equal(places(b, d, large), 'mmv', 'as many as it takes')
  await set.close()
  await set.close()
  t.equal(video.used, 0)
  t.ok(b.isClosed && c.isClosed)
  await t.rejects(set.create(page), { code: 'ERR_CLOSED' })
  await t.rejects(set.use(), { code: 'ERR_CLOSED' })
})

void t.test('who may not go', async (t) => {
  const { video, set } = made(t, 2)
  const [a, b] = [await filled(set, 1), await filled(set, 2)]
  const pin = await a.pin()
  const c = await filled(set, 3)
  t.equal(places(a, b, c), 'vmv', 'not what is pinned')
  await t.rejects(set.use(b, c), { code: 'ENOSPC' })
  const other = await c.pin()
  await t.rejects(set.use(b), { code: 'ENOSPC' })
  await t.rejects(set.create(page), { code: 'ENOSPC' })
  other.unpin()
  pin.unpin()
  const hint = a.hint()
  await set.use(b)
  t.equal(places(a, b, c), 'vvm', 'not what is hinted, while there is another')
  await set.use(b, c)
  t.equal(places(a, b, c), 'mvv', 'but before one that is asked for')
  hint.drop()
  const cpu = await b.beginCpuAccess('r')
  await set.use(a)
  t.equal(places(a, b, c), 'vvm', 'not what the CPU looks at')
  await cpu.end()
  const elsewhere = await c.pin()
  await t.rejects(set.use(c), { code: 'EBUSY' })
  elsewhere.unpin()
  t.ok(set.stats.residentBytes <= 2 * page, 'the memory that was taken for it is given back')
  t.equal(video.used, set.stats.residentBytes)
  await set.use(c)
  await b.revoke()
  await t.rejects(set.use(b), { code: 'ERR_REVOKED' })
  t.equal(video.most, 2 * page)
})

void t.test('an exporter that is exhausted before the budget is', async (t) => {
  const { video, set } = made(t, 8, {}, 2 * page)
  const buffers = []
  for (let i = 1; i <= 4; i++) buffers.push(await filled(set, i))
  t.equal(places(...buffers), 'mmvv')
  await set.use(...buffers.slice(0, 2))
  t.equal(places(...buffers), 'vvmm')
  await t.rejects(set.use(...buffers), { code: 'ENOSPC' })
  t.equal(video.used, set.stats.residentBytes, 'what had been obtained is given back')
  for (const [i, each] of buffers.entries()) t.ok(await holds(each, i + 1))
})

void t.test('poisoned memory is given back at once', async (t) => {
  const { video, set } = made(t, 1)
  const buffers = []
  for (let i = 1; i <= 3; i++) buffers.push(await filled(set, i, { poison: true }))
  for (const each of buffers) await set.use(each)
  for (const [i, each] of buffers.entries()) {
    t.ok(await holds(each, i + 1))
    t.equal(await each.countStrayWrites(), 0)
  }
  t.equal(video.most, page)
})

void t.test('what the owner moves by himself', async (t) => {
  const { video, set } = made(t, 1)
  const a = await filled(set, 1)
  await a.move(memfd())
  t.equal(set.stats.residentBytes, 0)
  const b = await filled(set, 2)
  await set.use(a)
  t.equal(places(a, b), 'vm')
  t.ok(await holds(a, 1))
  t.equal(video.most, page)
})

void t.test('calls at once', async (t) => {
  const { video, set } = made(t, 2)
  const buffers = []
  for (let i = 1; i <= 4; i++) buffers.push(await filled(set, i))
  const [a, b, c, d] = buffers as [MovableBuffer, MovableBuffer, MovableBuffer, MovableBuffer]
  const before = set.stats.restores
  await Promise.all([set.use(a), set.use(a), set.use(a)])
  t.equal(set.stats.restores, before + 1, 'moved once')
  await Promise.all([set.use(a, b), set.use(c, d), set.use(b, c), set.use(d, a), set.use(a)])
  t.equal(video.most, 2 * page)
  for (const [i, each] of buffers.entries()) t.ok(await holds(each, i + 1))
  const late = Promise.allSettled([set.use(c), set.use(d), set.create(page), set.close()])
  const [, , , closed] = await late
  t.equal(closed.status, 'fulfilled')
  t.equal(video.used, 0)
})

void t.test('a device that rejects', async (t) => {
  const video = new Video()
  let broken: Error | null = null
  const evictTo: Exporter = {
    placement: 'system',
    kind: 'embedded',
    allocate: (size) => (broken === null ? memfd().allocate(size) : Promise.reject(broken)),
  }
  const set = new ResidentSet(video, { budget: page, evictTo })
  const a = await filled(set, 1)
  broken = new P2pdmaError('no memory', { code: 'ENOMEM' })
  await t.rejects(set.create(page), { code: 'ENOMEM' })
  t.equal(places(a), 'v')
  broken = null
  const b = await set.create(page)
  t.equal(places(b), 'v')
  t.ok(await holds(a, 1))
  const other = new ResidentSet(new Video(), { budget: page, evictTo })
  await t.rejects(other.use(a), { code: 'ERR_INVALID_ARG_VALUE', argument: 'buffers' })
  t.throws(() => new ResidentSet(video, { budget: page, evictTo: new Video() }), {
    code: 'ERR_INVALID_ARG_VALUE',
    argument: 'evictTo',
  })
  await Promise.all([set.close(), other.close()])
  t.equal(video.used, 0)
})

void t.test('thrashing begins and ends, and says so', async (t) => {
  const seen: ThrashChange[] = []
  const listener = (message: unknown) => void seen.push(message as ThrashChange)
  subscribe('p2pdma:thrash', listener)
  t.teardown(() => unsubscribe('p2pdma:thrash', listener))
  const { set } = made(t, 2, { thrash: { window: 8, enter: 0.5, leave: 0.25 } })
  const buffers: MovableBuffer[] = []
  for (let i = 0; i < 3; i++) buffers.push(await set.create(page))
  const [a, b, c] = buffers as [MovableBuffer, MovableBuffer, MovableBuffer]
  for (let i = 0; i < 8; i++) await set.use(b, c)
  t.equal(set.stats.thrashing, false, 'what fits does not thrash')
  t.same(seen, [])
  for (let i = 0; i < 4; i++) for (const each of [a, b, c]) await set.use(each)
  t.equal(set.stats.thrashing, true)
  t.equal(seen.length, 1)
  t.match(seen[0], { placement: 'video', thrashing: true, ratio: 0.5, window: 8 })
  t.equal(seen[0]?.refaultedBytes, 4 * page)
  for (let i = 0; i < 6; i++) await set.use(c)
  t.equal(set.stats.thrashing, false)
  t.match(seen[1], { thrashing: false, ratio: 0.25 })
  t.equal(seen.length, 2)
})

t.test('bad options', (t) => {
  const good = { budget: page, evictTo: memfd() }
  const bad: Record<string, unknown>[] = [
    { budget: 1.5 },
    { evictTo: 1 },
    { granularity: 0 },
    { thrash: 1 },
    { window: 0 },
    { enter: 0 },
    { enter: NaN },
    { leave: 0.5 },
    { leave: -1 },
  ]
  for (const each of bad) {
    const [argument = ''] = Object.keys(each)
    const options = argument in { window: 1, enter: 1, leave: 1 } ? { thrash: each } : each
    const make = () => new ResidentSet(new Video(), { ...good, ...options })
    t.throws(make, { name: 'P2pdmaError', argument }, JSON.stringify(each))
  }
  t.end()
})

t.test('the detector', (t) => {
  const detector = new ThrashDetector({ window: 4, enter: 0.5 })
  t.equal(detector.ratio, 0)
  t.notOk(detector.isRefault(-Infinity))
  t.ok(detector.add(8, 8), 'a quarter of the window has been seen')
  t.equal(detector.ratio, 1)
  t.notOk(detector.add(8, 0))
  t.notOk(detector.add(8, 0))
  t.ok(detector.thrashing, 'a third is above half of the half')
  t.ok(detector.add(8, 0))
  t.notOk(detector.add(100, 60), 'the first has left the window: 60 of 124')
  t.ok(detector.add(8, 8))
  t.ok(detector.isRefault(2))
  t.notOk(detector.isRefault(1))
  t.end()
})

t.test('the list', (t) => {
  const list = new LruList<number>()
  const nodes = [0, 1, 2, 3].map((each) => new LruNode(each))
  const at = (i: number) => nodes[i] as LruNode<number>
  t.same([...list], [])
  for (const each of nodes) list.touch(each)
  list.touch(at(0))
  list.touch(at(2))
  list.touch(at(2))
  t.same([...list], [1, 3, 0, 2])
  list.remove(at(1))
  list.remove(at(1))
  list.remove(at(2))
  t.same([...list], [3, 0])
  t.equal(list.length, 2)
  list.touch(at(1))
  t.same([...list], [3, 0, 1])
  for (const each of nodes) list.remove(each)
  t.same([[...list], list.length], [[], 0])
  t.end()
})

void t.test('whatever happens: the budget, the bytes, and an end', async (t) => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = new Random(seed)
    const pages = 2 + random.below(4)
    const limit = random.below(3) === 0 ? pages * page - page : Infinity
    const { video, set } = made(t, pages, {}, limit)
    const buffers = new Map<MovableBuffer, number>()
    const unexpected: unknown[] = []
    const allowed = ['ENOSPC', 'ERR_CLOSED', 'EBUSY', 'ETIMEDOUT']
    const under: Promise<unknown>[] = []
    const any = () => [...buffers.keys()][random.below(buffers.size)]
    const run = (work: Promise<unknown>) => {
      under.push(
        work.catch((error: unknown) => {
          if (!allowed.includes(String((error as P2pdmaError).code))) unexpected.push(error)
        }),
      )
    }
    const steps: (() => Promise<unknown> | undefined)[] = [
      async () => {
        const byte = 1 + random.below(255)
        const options = { poison: random.below(2) === 0 }
        buffers.set(await filled(set, byte, options, 1 + random.below(2)), byte)
      },
      () => {
        const some = [any(), any(), any()].slice(random.below(3))
        return set.use(...some.filter((each) => each !== undefined))
      },
      () => {
        const some = [any(), any()].filter((each) => each !== undefined)
        return set.use(...some)
      },
      () => any()?.move(memfd()),
      async () => {
        const pin = await any()?.pin()
        await new Promise(setImmediate)
        pin?.unpin()
      },
      async () => {
        const buffer = any()
        if (buffer !== undefined) t.ok(await holds(buffer, buffers.get(buffer) ?? 0))
      },
      () => {
        const buffer = random.below(3) === 0 ? any() : undefined
        return buffer?.close()
      },
    ]
    for (let i = 0; i < 60; i++) {
      const work = steps[random.below(steps.length)]?.()
      if (work !== undefined) run(work)
      if (random.below(3) === 0) await Promise.all(under)
      if (random.below(4) === 0) await new Promise(setImmediate)
    }
    await Promise.all(under)
    for (const [buffer, byte] of buffers) {
      if (!buffer.isClosed && !(await holds(buffer, byte))) t.fail(`seed ${seed}: bytes lost`)
    }
    t.same(unexpected, [], `seed ${seed}`)
    t.ok(video.most <= pages * page + (limit === Infinity ? 0 : 2 * page), `seed ${seed}: budget`)
    t.equal(video.used, set.stats.residentBytes, `seed ${seed}: accounts`)
    await set.close()
    t.equal(video.used, 0, `seed ${seed}: all given back`)
  }
})

/** What the kernel's self-test leaves out: order, hand-over, abort, lockAll, misuse. */
import t from 'tap'
import {
  type AcquireContext,
  lockAll,
  WwClass,
  WwMutex,
} from '../../lib/move-notify/reservation/ww-mutex.js'
import { item, mutexes, pair, settle, watch } from './ww-mutex-help.js'

for (const algorithm of ['wait-die', 'wound-wait'] as const) {
  t.test(`${algorithm}: the oldest who waits is next, whoever came first`, async (t) => {
    const wwClass = new WwClass(algorithm)
    const mutex = new WwMutex(wwClass)
    const order: number[] = []
    const contexts = [1, 2, 3, 4].map(() => wwClass.acquire())
    await mutex.lock()
    const waits = [2, 0, 3, 1].map(async (at) => {
      const context = item(contexts, at)
      await mutex.lock(context)
      order.push(context.stamp)
      mutex.unlock(context)
    })
    mutex.unlock()
    await Promise.all(waits)
    t.same(order, [1, 2, 3, 4])
  })

  t.test(`${algorithm}: a lock with waiters is handed over, never free`, async (t) => {
    const wwClass = new WwClass(algorithm)
    const mutex = new WwMutex(wwClass)
    const waiting = wwClass.acquire()
    await mutex.lock()
    const wait = mutex.lock(waiting)
    mutex.unlock()
    t.ok(mutex.locked)
    t.equal(mutex.holder, waiting)
    t.notOk(mutex.tryLock(), 'nobody comes in between')
    await wait
    mutex.unlock(waiting)
  })

  t.test(`${algorithm}: abort`, async (t) => {
    const wwClass = new WwClass(algorithm)
    const mutex = new WwMutex(wwClass)
    await mutex.lock()
    const [first, second] = [new AbortController(), new AbortController()]
    const [one, two, three] = [wwClass.acquire(), wwClass.acquire(), wwClass.acquire()]
    const waits = [
      watch(mutex.lock(one, { signal: first.signal })),
      watch(mutex.lock(two, { signal: second.signal })),
      watch(mutex.lock(three, { signal: first.signal })),
    ]
    const states = () => waits.map(({ state }) => state)
    second.abort()
    await settle()
    t.same(states(), ['pending', 'ABORT_ERR', 'pending'], 'only the one aborted')
    two.fini()
    mutex.unlock()
    first.abort()
    await settle()
    t.same(states(), ['held', 'ABORT_ERR', 'ABORT_ERR'], 'what was granted stays')
    mutex.unlock(one)
    t.notOk(mutex.locked)
    const reason = new Error('why')
    await t.rejects(mutex.lock(one, { signal: AbortSignal.abort(reason) }), {
      name: 'AbortError',
      code: 'ABORT_ERR',
      cause: reason,
    })
    t.notOk(mutex.locked, 'an aborted signal takes not even a free lock')
  })

  t.test(`${algorithm}: lockAll`, async (t) => {
    const wwClass = new WwClass(algorithm)
    const locks = mutexes(wwClass, 4)
    const [a, b, c, d] = [item(locks, 0), item(locks, 1), item(locks, 2), item(locks, 3)]
    const older = wwClass.acquire()
    t.equal(lockAll(older, []), undefined)
    t.equal(lockAll(older, [a, b, a]), undefined, 'no promise where nothing was contended')
    t.equal(older.held, 2, 'what is named twice is locked once')
    t.equal(lockAll(older, new Set([b, c])), undefined, 'what is held is left alone')
    t.equal(older.held, 3)

    const younger = wwClass.acquire()
    const controller = new AbortController()
    const aborted = watch(lockAll(younger, [d, c], { signal: controller.signal }))
    controller.abort()
    await settle()
    t.equal(aborted.state, 'ABORT_ERR')
    t.equal(younger.held, 0, 'an abort leaves nothing locked')
    t.notOk(d.locked)
    const early = watch(lockAll(younger, [d], { signal: AbortSignal.abort() }))
    await settle()
    t.equal(early.state, 'ABORT_ERR')
    t.notOk(d.locked)

    const wait = watch(lockAll(younger, [d, ...locks]))
    for (const mutex of [c, b, a]) mutex.unlock(older)
    await settle()
    t.equal(wait.state, 'held')
    t.equal(younger.held, 4)
    t.equal(younger.stamp, 2, 'under the stamp it came with')
    for (const mutex of locks) mutex.unlock(younger)
  })

  t.test(`${algorithm}: an aborted lockAll keeps what was held before`, async (t) => {
    const wwClass = new WwClass(algorithm)
    const [mine, theirs] = pair(wwClass)
    const context = wwClass.acquire()
    t.ok(mine.tryLock(context))
    await theirs.lock()
    const controller = new AbortController()
    const wait = watch(lockAll(context, [mine, theirs], { signal: controller.signal }))
    controller.abort()
    await settle()
    t.equal(wait.state, 'ABORT_ERR')
    t.equal(mine.holder, context)
    const early = watch(lockAll(context, [mine], { signal: AbortSignal.abort() }))
    await settle()
    t.equal(early.state, 'ABORT_ERR')
    t.equal(mine.holder, context)
  })

  t.test(`${algorithm}: lockAll with other locks held hands EDEADLK on`, async (t) => {
    const wwClass = new WwClass(algorithm)
    const [mine, theirs] = pair(wwClass)
    const free = new WwMutex(wwClass)
    const [older, younger] = [wwClass.acquire(), wwClass.acquire()]
    t.ok(theirs.tryLock(older))
    t.ok(mine.tryLock(younger))
    const forward = watch(lockAll(older, [mine]))
    const back = watch(lockAll(younger, [mine, free, theirs]))
    await settle()
    t.equal(back.state, 'EDEADLK')
    t.notOk(free.locked, 'what it took itself is unlocked')
    t.equal(mine.holder, younger, 'what it was given is not')
    mine.unlock(younger)
    await settle()
    t.equal(forward.state, 'held')
  })

  t.test(`${algorithm}: misuse`, async (t) => {
    const wwClass = new WwClass(algorithm)
    const mutex = new WwMutex(wwClass)
    const [context, other] = [wwClass.acquire(), wwClass.acquire()]
    t.throws(() => mutex.unlock(), { code: 'EPERM', message: /not held/ })
    t.throws(() => mutex.unlock(context), { code: 'EPERM' })
    await mutex.lock(context)
    t.throws(() => mutex.unlock(), { code: 'EPERM', message: /holder/ })
    t.throws(() => mutex.unlock(other), { code: 'EPERM' })
    t.throws(() => context.fini(), { code: 'ERR_INVALID_STATE' }, 'fini with a lock held')
    await t.rejects(new WwMutex(wwClass).lockSlow(context), { code: 'ERR_INVALID_STATE' })

    const waiting = mutex.lock(other)
    t.throws(() => other.fini(), { code: 'ERR_INVALID_STATE' }, 'fini while it waits')
    t.throws(() => new WwMutex(wwClass).tryLock(other), { code: 'ERR_INVALID_STATE' })
    mutex.unlock(context)
    await waiting
    mutex.unlock(other)
    t.throws(() => mutex.unlock(other), { code: 'EPERM' }, 'a second time')

    other.done()
    t.throws(() => mutex.tryLock(other), { code: 'ERR_INVALID_STATE' })
    other.fini()
    other.fini()
    t.throws(() => other.done(), { code: 'ERR_CLOSED' })
    t.throws(() => mutex.tryLock(other), { code: 'ERR_CLOSED' })
    await t.rejects(mutex.lock(other), { code: 'ERR_CLOSED' })
    await t.rejects(mutex.lockSlow(other), { code: 'ERR_CLOSED' })
    await t.rejects(Promise.resolve(lockAll(other, [mutex])), { code: 'ERR_CLOSED' })

    const foreign = new WwClass(algorithm).acquire()
    const wrongClass = { code: 'ERR_INVALID_ARG_VALUE', argument: 'context' }
    t.throws(() => mutex.tryLock(foreign), wrongClass)
    const first = new WwMutex(foreign.class)
    await t.rejects(Promise.resolve(lockAll(foreign, [first, mutex])), wrongClass)
    t.notOk(first.locked, 'a failed lockAll leaves nothing locked')
  })
}

t.test('Wound-Wait: the wounded one goes on until it has to wait', async (t) => {
  const wwClass = new WwClass('wound-wait')
  const [a, b] = pair(wwClass)
  const free = new WwMutex(wwClass)
  const [older, younger] = [wwClass.acquire(), wwClass.acquire()]
  t.ok(a.tryLock(older))
  t.ok(b.tryLock(younger))
  const wait = watch(b.lock(older))
  t.ok(younger.wounded)
  t.ok(free.tryLock(younger), 'a lock that nobody holds is no reason')
  await t.rejects(a.lock(younger), { code: 'EDEADLK', errno: -35 })
  free.unlock(younger)
  t.ok(younger.wounded)
  b.unlock(younger)
  t.notOk(younger.wounded, 'healed by the back-off')
  await settle()
  t.equal(wait.state, 'held')
})

t.test('Wait-Die: who holds locks does not stay behind an older one', async (t) => {
  const wwClass = new WwClass('wait-die')
  const [a, b] = pair(wwClass)
  const [older, younger, youngest] = [wwClass.acquire(), wwClass.acquire(), wwClass.acquire()]
  t.ok(a.tryLock(youngest))
  t.ok(b.tryLock(younger))
  const early = watch(a.lock(younger))
  await settle()
  t.equal(early.state, 'pending', 'it may wait for a younger holder')
  const late = watch(a.lock(older))
  await settle()
  t.equal(early.state, 'EDEADLK', 'until an older one comes to wait')
  await t.rejects(a.lock(younger), { code: 'EDEADLK' }, 'and not behind that one either')
  b.unlock(younger)
  const empty = watch(a.lock(younger))
  a.unlock(youngest)
  await settle()
  t.equal(late.state, 'held')
  t.equal(empty.state, 'pending', 'who holds nothing may wait for anybody')
  a.unlock(older)
  await settle()
  t.equal(empty.state, 'held')
})

t.test('wrong types', async (t) => {
  const wwClass = new WwClass('wait-die')
  const mutex = new WwMutex(wwClass)
  const context = wwClass.acquire()
  const wrong = { code: 'ERR_INVALID_ARG_TYPE' }
  for (const value of [null, 1, 'x', {}, [], () => {}]) {
    t.throws(() => new WwClass(value as 'wait-die'), wrong)
    t.throws(() => new WwMutex(value as WwClass), wrong)
    const bad = value as AcquireContext
    t.throws(() => mutex.tryLock(bad), wrong)
    await t.rejects(mutex.lock(bad), wrong)
    await t.rejects(mutex.lockSlow(bad), wrong)
    await t.rejects(Promise.resolve(lockAll(bad, [mutex])), wrong)
    await t.rejects(Promise.resolve(lockAll(context, [mutex, value as WwMutex])), wrong)
  }
  t.notOk(mutex.locked)
  t.equal(context.held, 0)
})

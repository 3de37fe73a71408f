/**
 * What the kernel's own self-test of its ww_mutex asserts
 * (kernel/locking/test-ww_mutex.c), for both classes.
 */
import t from 'tap'
import {
  type AcquireContext,
  isDeadlock,
  lockAll,
  WwClass,
  WwMutex,
} from '../../lib/move-notify/reservation/ww-mutex.js'
import { item, mutexes, pair, settle, watch } from './ww-mutex-help.js'

for (const algorithm of ['wait-die', 'wound-wait'] as const) {
  t.test(`${algorithm}: mutual exclusion`, async (t) => {
    for (const how of ['lock', 'tryLock'] as const) {
      for (const withContext of [false, true]) {
        const wwClass = new WwClass(algorithm)
        const mutex = new WwMutex(wwClass)
        const context = withContext ? wwClass.acquire() : undefined
        await mutex.lock(context)
        let entered = false
        const other = async () => {
          if (how === 'lock') await mutex.lock()
          else while (!mutex.tryLock()) await new Promise(setImmediate)
          entered = true
          mutex.unlock()
        }
        const done = other()
        await settle()
        t.notOk(entered, `${how} waits for a holder ${withContext ? 'with' : 'without'} a context`)
        mutex.unlock(context)
        await done
        t.ok(entered)
        t.notOk(mutex.locked)
        context?.fini()
      }
    }
  })

  t.test(`${algorithm}: AA`, async (t) => {
    for (const how of ['lock', 'tryLock'] as const) {
      const wwClass = new WwClass(algorithm)
      const mutex = new WwMutex(wwClass)
      const context = wwClass.acquire()
      await take(how, mutex, context)
      t.equal(mutex.holder, context)
      t.notOk(mutex.tryLock(), 'not again without a context')
      t.notOk(mutex.tryLock(context), 'not again with it')
      await t.rejects(mutex.lock(context), { code: 'EALREADY', errno: -114 })
      t.equal(context.held, 1)
      mutex.unlock(context)
      context.fini()
    }
  })

  for (const how of ['lock', 'tryLock'] as const) {
    t.test(`${algorithm}: ABBA after ${how}, not resolved`, async (t) => {
      const wwClass = new WwClass(algorithm)
      const [a, b] = pair(wwClass)
      const [older, younger] = [wwClass.acquire(), wwClass.acquire()]
      await take(how, a, older)
      await take(how, b, younger)
      const first = watch(b.lock(older))
      const second = watch(a.lock(younger))
      await settle()
      t.same([first.state, second.state], ['pending', 'EDEADLK'], 'the younger one backs off')
      b.unlock(younger)
      await settle()
      t.equal(first.state, 'held')
      a.unlock(older)
      b.unlock(older)
      older.fini()
      younger.fini()
    })

    t.test(`${algorithm}: ABBA after ${how}, resolved`, async (t) => {
      const wwClass = new WwClass(algorithm)
      const [a, b] = pair(wwClass)
      const backOffs: string[] = []
      await Promise.all([
        ring(wwClass, a, b, how, () => backOffs.push('a')),
        ring(wwClass, b, a, how, () => backOffs.push('b')),
      ])
      t.same(backOffs, ['b'])
      t.notOk(a.locked || b.locked)
    })
  }

  t.test(`${algorithm}: cycles of 2 to 9`, async (t) => {
    for (let count = 2; count <= 9; count++) {
      const wwClass = new WwClass(algorithm)
      const locks = mutexes(wwClass, count)
      let backOffs = 0
      await Promise.all(
        locks.map((mine, at) =>
          ring(wwClass, mine, item(locks, (at + 1) % count), 'lock', () => backOffs++),
        ),
      )
      t.notOk(
        locks.some((mutex) => mutex.locked),
        `${count} in a ring`,
      )
      t.ok(backOffs > 0, 'the cycle was there, and was broken')
    }
  })

  t.test(`${algorithm}: stress`, async (t) => {
    for (const [count, tasks] of [
      [16, 4],
      [512, 6],
    ] as const) {
      const wwClass = new WwClass(algorithm)
      const locks = mutexes(wwClass, count)
      const inside = new Set<WwMutex>()
      let rounds = 0
      let intruders = 0
      const critical = async (list: readonly WwMutex[]) => {
        for (const mutex of list) if (inside.has(mutex)) intruders++
        for (const mutex of list) inside.add(mutex)
        await settle()
        for (const mutex of list) inside.delete(mutex)
        rounds++
      }
      const all = async (order: readonly WwMutex[], acquire: typeof inOrder) => {
        for (let round = 0; round < 5; round++) {
          const context = wwClass.acquire()
          await acquire(context, order)
          await critical(order)
          for (const mutex of order) mutex.unlock(context)
          context.fini()
        }
      }
      const one = async (mutex: WwMutex) => {
        for (let round = 0; round < 5; round++) {
          await mutex.lock()
          await critical([mutex])
          mutex.unlock()
        }
      }
      const running: Promise<void>[] = []
      for (let task = 0; task < tasks; task++) {
        running.push(all(rotated(locks, task * 5), inOrder))
        running.push(all(rotated(locks, task * 7 + 3).reverse(), reordering))
        running.push(all(rotated(locks, task * 3), async (context, list) => lockAll(context, list)))
        running.push(one(item(locks, task)))
      }
      await Promise.all(running)
      t.equal(rounds, tasks * 4 * 5, `${count} locks, ${tasks * 4} tasks`)
      t.equal(intruders, 0)
      t.notOk(locks.some((mutex) => mutex.locked))
    }
  })
}

async function take(how: 'lock' | 'tryLock', mutex: WwMutex, context: AcquireContext) {
  if (how === 'lock') await mutex.lock(context)
  else if (!mutex.tryLock(context)) throw new Error('tryLock() of a free lock')
}

/** Takes its own, lets the others take theirs, then wants the next one's. */
async function ring(
  wwClass: WwClass,
  mine: WwMutex,
  next: WwMutex,
  how: 'lock' | 'tryLock',
  onBackOff: () => void,
): Promise<void> {
  const context = wwClass.acquire()
  await take(how, mine, context)
  await settle()
  try {
    await next.lock(context)
  } catch (error) {
    if (!isDeadlock(error)) throw error
    onBackOff()
    mine.unlock(context)
    await next.lockSlow(context)
    await mine.lock(context)
  }
  mine.unlock(context)
  next.unlock(context)
  context.fini()
}

/** Goes through the list in its order; the contended one is taken first in the next try. */
async function inOrder(context: AcquireContext, list: readonly WwMutex[]): Promise<void> {
  let contended: WwMutex | null = null
  for (;;) {
    if (contended !== null) await contended.lockSlow(context)
    let failed: WwMutex | null = null
    for (const mutex of list) {
      if (mutex === contended) continue
      try {
        await mutex.lock(context)
      } catch (error) {
        if (!isDeadlock(error)) throw error
        failed = mutex
        break
      }
    }
    if (failed === null) return
    for (const mutex of list) if (mutex.holder === context) mutex.unlock(context)
    contended = failed
  }
}

/** Moves the contended one to the front of the list, for good. */
async function reordering(context: AcquireContext, given: readonly WwMutex[]): Promise<void> {
  const list = [...given]
  for (let at = 0; at < list.length; at++) {
    const mutex = item(list, at)
    try {
      await mutex.lock(context)
    } catch (error) {
      if (!isDeadlock(error)) throw error
      for (const held of list.slice(0, at)) held.unlock(context)
      await mutex.lockSlow(context)
      list.splice(at, 1)
      list.unshift(mutex)
      at = 0
    }
  }
}

function rotated(list: readonly WwMutex[], by: number): WwMutex[] {
  const at = by % list.length
  return [...list.slice(at), ...list.slice(0, at)]
}

/**
 * Tasks that each take several locks, in orders of their own. This module is
 * loaded by the model's loader: its promises are the scheduler's.
 */
import {
  type AcquireContext,
  isDeadlock,
  lockAll,
  type WwAlgorithm,
  WwClass,
  WwMutex,
} from '../../../lib/move-notify/reservation/ww-mutex.js'
import type { World } from '../scheduler.js'

export interface WwOptions {
  algorithm: WwAlgorithm
  /** For each task the locks it takes, in its order. */
  orders: number[][]
  /**
   * `lockAll`; the loop of ww-mutex-design.rst written out; or that with a
   * pause of any length after each lock.
   */
  dance: 'lockAll' | 'manual' | 'slow'
  /** A task that may be aborted at any moment. */
  abort?: number
  /** Take a plain lock on this mutex too, without a context. */
  plain?: number
}

class State {
  readonly world: World
  readonly mutexes: WwMutex[]
  /** Who is in the critical section of each lock, by our own account. */
  readonly inside: (number | null)[]
  readonly active = new Set<AcquireContext>()
  readonly wounded = new Set<AcquireContext>()

  constructor(world: World, options: WwOptions) {
    const count = Math.max(...options.orders.flat()) + 1
    const wwClass = new WwClass(options.algorithm)
    this.world = world
    this.mutexes = Array.from({ length: count }, () => new WwMutex(wwClass))
    this.inside = this.mutexes.map(() => null)
    this.wwClass = wwClass
  }

  readonly wwClass: WwClass

  mutex(index: number): WwMutex {
    return this.mutexes[index] ?? this.world.fail(`no mutex ${index}`)
  }

  enter(task: number, index: number): void {
    const other = this.inside[index]
    if (other !== null) this.world.fail(`${task} enters lock ${index} with ${other} inside`)
    this.inside[index] = task
  }

  leave(index: number): void {
    this.inside[index] = null
  }

  isOldest(context: AcquireContext): boolean {
    for (const other of this.active) if (other.stamp < context.stamp) return false
    return true
  }

  /** Wounds are judged when they are made: who made one may be gone later. */
  checkWounds(): void {
    for (const context of this.active) {
      if (!context.wounded) this.wounded.delete(context)
      else if (!this.wounded.has(context)) {
        if (this.isOldest(context)) this.world.fail('the oldest context is wounded')
        this.wounded.add(context)
      }
    }
  }
}

/** Every order of starting, waiting, releasing and one abort. */
export function tasks(world: World, options: WwOptions): void {
  const state = new State(world, options)
  for (const [task, order] of options.orders.entries()) {
    const controller = new AbortController()
    world.action(`start ${task}`, () => {
      world.expect(`task ${task}`, run(state, options, task, order, controller.signal))
    })
    if (options.abort === task) world.action(`abort ${task}`, () => controller.abort())
  }
  if (options.plain !== undefined) {
    const index = options.plain
    world.action('start plain', () => world.expect('plain', plain(state, index)))
  }
  world.invariant(() => state.checkWounds())
  world.describe(() => {
    const holders = state.mutexes.map(
      (mutex) => mutex.holder?.stamp ?? (mutex.locked ? 'plain' : '-'),
    )
    return `locks 0.. are held by contexts ${holders.join(', ')}`
  })
  world.atEnd(() => {
    for (const mutex of state.mutexes) if (mutex.locked) world.fail('a lock is still held')
  })
}

async function run(
  state: State,
  options: WwOptions,
  task: number,
  order: number[],
  signal: AbortSignal,
): Promise<void> {
  const context = state.wwClass.acquire()
  state.active.add(context)
  try {
    if (options.dance === 'lockAll') {
      await lockAll(
        context,
        order.map((index) => state.mutex(index)),
        { signal },
      )
    } else {
      await dance(state, options, task, context, order, signal)
    }
    for (const index of order) state.enter(task, index)
    await pause(state, `release ${task}`)
    for (const index of order) state.leave(index)
    for (const index of order) state.mutex(index).unlock(context)
  } catch (error) {
    if (options.abort !== task) state.world.fail(`task ${task} failed: ${String(error)}`)
  }
  if (context.held !== 0) state.world.fail(`task ${task} holds ${context.held} locks at its end`)
  context.fini()
  state.active.delete(context)
}

/** The loop written out, so that each back-off is seen. */
async function dance(
  state: State,
  options: WwOptions,
  task: number,
  context: AcquireContext,
  order: number[],
  signal: AbortSignal,
): Promise<void> {
  let contended = -1
  for (;;) {
    let at = contended
    // Who is the oldest when it asks stays so: nobody becomes older.
    let oldest = state.isOldest(context)
    try {
      if (contended >= 0) await state.mutex(contended).lockSlow(context, { signal })
      for (const index of order) {
        if (index === contended) continue
        at = index
        oldest = state.isOldest(context) && !context.wounded
        await state.mutex(index).lock(context, { signal })
        if (options.dance === 'slow') await pause(state, `think ${task}`)
      }
      return
    } catch (error) {
      if (isDeadlock(error) && oldest) state.world.fail('the oldest context backs off')
      for (const index of order) {
        if (state.mutex(index).holder === context) state.mutex(index).unlock(context)
      }
      if (!isDeadlock(error)) throw error
      contended = at
    }
  }
}

async function plain(state: State, index: number): Promise<void> {
  await state.mutex(index).lock()
  state.enter(-1, index)
  await pause(state, 'release plain')
  state.leave(index)
  state.mutex(index).unlock()
}

function pause(state: State, name: string): Promise<void> {
  return new Promise((resolve) => state.world.action(name, resolve))
}

/**
 * Owns what runs when. Microtasks run in the order they were queued; a user's
 * action may happen before any of them; a device's event, a timer or an
 * immediate only when none is left: the rules of the real event loop.
 */
import type { PromiseHost } from './promise.js'

/** Something that can happen once. */
export interface Step {
  readonly name: string
  readonly run: () => void
  readonly when?: (() => boolean) | undefined
}

/** What a scenario sees of the scheduler. */
export interface World {
  /** A call of the public API; it may come at any point from now on, while `when` holds. */
  action(name: string, run: () => void, when?: () => boolean): Step
  /** Something the device or the kernel does once, when no microtask is left. */
  event(name: string, run: () => void, when?: () => boolean): Step
  /** Takes back what has not happened. */
  cancel(step: Step): void
  /** Checked after every step; throws to fail. */
  invariant(check: () => void): void
  /** Must settle before the end; a rejection is handled by the scenario. */
  expect(name: string, promise: PromiseLike<unknown>): void
  /** Checked when nothing can happen any more. */
  atEnd(check: () => void): void
  /** Who waits for what: told when a deadlock is reported. */
  describe(tell: () => string): void
  /** A line of the trace. */
  log(line: string): void
  /** Fails the execution, from wherever it is called. */
  fail(message: string): never
}

export class ModelFailure extends Error {}

export interface Timer {
  readonly due: number
  readonly serial: number
  readonly run: () => void
}

export interface Limits {
  /** More steps than this are a livelock. */
  maxSteps: number
  /** Actions that may come while microtasks are left; Infinity: no bound. */
  preemptions: number
}

/** Chooses one of `count` possibilities; 0 is the next microtask where there is one. */
export type Chooser = (count: number, microtask: boolean) => number

export class Scheduler implements World, PromiseHost {
  readonly #limits: Limits
  #microtasks: (() => void)[] = []
  #head = 0
  readonly #actions: Step[] = []
  readonly #events: Step[] = []
  readonly #immediates: Step[] = []
  readonly #timers: Timer[] = []
  readonly #invariants: (() => void)[] = []
  readonly #ends: (() => void)[] = []
  readonly #descriptions: (() => string)[] = []
  readonly #pending = new Map<string, number>()
  readonly #unhandled = new Map<object, unknown>()
  #serial = 0
  #now = 0
  #failure: ModelFailure | null = null
  steps = 0
  preemptions = 0
  /** Lines of the trace, when it is kept. */
  readonly trace: string[] | null

  constructor(limits: Limits, keepTrace: boolean) {
    this.#limits = limits
    this.trace = keepTrace ? [] : null
  }

  get now(): number {
    return this.#now
  }

  setTimer(run: () => void, ms: number): Timer {
    const due = this.#now + Math.max(1, Number.isFinite(ms) ? ms : 1)
    const timer = { due, serial: ++this.#serial, run }
    this.#timers.push(timer)
    return timer
  }

  clearTimer(timer: Timer): void {
    remove(this.#timers, timer)
  }

  immediate(run: () => void): Step {
    const step = { name: 'immediate', run }
    this.#immediates.push(step)
    return step
  }

  clearImmediate(step: Step): void {
    remove(this.#immediates, step)
  }

  rejected(promise: object, reason: unknown): void {
    this.#unhandled.set(promise, reason)
  }

  handled(promise: object): void {
    this.#unhandled.delete(promise)
  }

  enqueue(job: () => void): void {
    this.#microtasks.push(job)
  }

  action(name: string, run: () => void, when?: () => boolean): Step {
    const step = { name, run, when }
    this.#actions.push(step)
    return step
  }

  event(name: string, run: () => void, when?: () => boolean): Step {
    const step = { name, run, when }
    this.#events.push(step)
    return step
  }

  cancel(step: Step): void {
    remove(this.#actions, step)
    remove(this.#events, step)
  }

  invariant(check: () => void): void {
    this.#invariants.push(check)
  }

  expect(name: string, promise: PromiseLike<unknown>): void {
    this.#pending.set(name, (this.#pending.get(name) ?? 0) + 1)
    const settled = () => {
      const left = (this.#pending.get(name) ?? 0) - 1
      if (left > 0) this.#pending.set(name, left)
      else this.#pending.delete(name)
    }
    promise.then(settled, settled)
  }

  atEnd(check: () => void): void {
    this.#ends.push(check)
  }

  describe(tell: () => string): void {
    this.#descriptions.push(tell)
  }

  log(line: string): void {
    this.trace?.push(`  ${line}`)
  }

  fail(message: string): never {
    const failure = new ModelFailure(message)
    this.#failure ??= failure
    throw failure
  }

  /** Runs to the end. Throws what went wrong. */
  run(choose: Chooser): void {
    for (;;) {
      this.#check()
      const step = this.#next(choose)
      if (step === null) break
      if (++this.steps > this.#limits.maxSteps) {
        throw new ModelFailure(`no end after ${this.#limits.maxSteps} steps: livelock`)
      }
      this.trace?.push(step.name)
      step.run()
    }
    if (this.#pending.size > 0) {
      const lines = [`deadlock: still pending: ${[...this.#pending.keys()].join(', ')}`]
      for (const tell of this.#descriptions) lines.push(tell())
      throw new ModelFailure(lines.join('\n'))
    }
    for (const check of this.#ends) check()
  }

  #check(): void {
    // Also what the code under test has caught: a failed model check is no error of its own.
    if (this.#failure !== null) throw this.#failure
    for (const check of this.#invariants) check()
    if (this.#unhandled.size === 0 || this.#head < this.#microtasks.length) return
    const [reason] = this.#unhandled.values()
    throw new ModelFailure(`a rejection that nobody handles: ${String(reason)}`, { cause: reason })
  }

  #next(choose: Chooser): Step | null {
    const microtask = this.#head < this.#microtasks.length
    const choices: Step[] = []
    if (!microtask || this.preemptions < this.#limits.preemptions) {
      for (const step of this.#actions) if (step.when?.() !== false) choices.push(step)
    }
    if (microtask) return this.#nextInTurn(choices, choose)
    for (const step of this.#events) if (step.when?.() !== false) choices.push(step)
    const immediate = this.#immediates[0]
    if (immediate !== undefined) choices.push(immediate)
    const timer = this.#firstTimer()
    if (timer !== null)
      choices.push({ name: `timer at ${timer.due}`, run: () => this.#fire(timer) })
    const chosen = choices[choices.length > 1 ? choose(choices.length, false) : 0]
    if (chosen === undefined) return null
    this.cancel(chosen)
    if (chosen === immediate) this.#immediates.shift()
    return chosen
  }

  /** Microtasks are left: the next of them, or an action before it. */
  #nextInTurn(actions: readonly Step[], choose: Chooser): Step {
    const choice = actions.length > 0 ? choose(actions.length + 1, true) : 0
    const action = choice > 0 ? actions[choice - 1] : undefined
    if (action !== undefined) {
      this.preemptions++
      this.cancel(action)
      return action
    }
    const job = this.#microtasks[this.#head++]
    if (this.#head === this.#microtasks.length) {
      this.#microtasks = []
      this.#head = 0
    }
    return { name: '.', run: job ?? (() => {}) }
  }

  #firstTimer(): Timer | null {
    let first: Timer | null = null
    for (const timer of this.#timers) {
      if (first === null || timer.due < first.due) first = timer
    }
    return first
  }

  #fire(timer: Timer): void {
    this.#timers.splice(this.#timers.indexOf(timer), 1)
    this.#now = Math.max(this.#now, timer.due)
    timer.run()
  }
}

function remove<T>(list: T[], item: T): void {
  const at = list.indexOf(item)
  if (at >= 0) list.splice(at, 1)
}

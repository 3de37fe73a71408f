/**
 * The globals that modules under test see instead of Node's own. They belong to
 * whichever scheduler is current, so that the modules are instantiated once and
 * run under thousands of schedulers.
 */
import { ModelAbortController, ModelSignal } from './abort.js'
import { controlledPromise } from './promise.js'
import type { Limits, Step, Timer } from './scheduler.js'
import { Scheduler } from './scheduler.js'

export class Realm {
  #current = new Scheduler({ maxSteps: 0, preemptions: 0 }, false)
  readonly globals: Record<string, unknown>

  constructor() {
    this.globals = {
      Promise: controlledPromise({
        enqueue: (job) => this.#current.enqueue(job),
        rejected: (promise, reason) => this.#current.rejected(promise, reason),
        handled: (promise) => this.#current.handled(promise),
      }),
      queueMicrotask: (job: () => void) => this.#current.enqueue(job),
      setTimeout: (run: (...args: unknown[]) => void, ms = 0, ...args: unknown[]) => {
        const timer = this.#current.setTimer(() => run(...args), ms)
        return Object.assign(timer, { ref: () => timer, unref: () => timer, hasRef: () => true })
      },
      clearTimeout: (timer?: Timer) => timer && this.#current.clearTimer(timer),
      setImmediate: (run: (...args: unknown[]) => void, ...args: unknown[]) =>
        this.#current.immediate(() => run(...args)),
      clearImmediate: (step?: Step) => step && this.#current.clearImmediate(step),
      performance: { now: () => this.#current.now },
      AbortController: ModelAbortController,
      AbortSignal: ModelSignal,
    }
  }

  /** A new scheduler, from now on the current one. */
  begin(limits: Limits, keepTrace: boolean): Scheduler {
    this.#current = new Scheduler(limits, keepTrace)
    return this.#current
  }
}

/**
 * A Promise whose reactions go to a queue of ours instead of V8's, so that a
 * scheduler decides when each one runs. As many turns as the language's own:
 * one per reaction, two more where a promise is resolved with a promise
 * (ECMA-262, NewPromiseReactionJob and NewPromiseResolveThenableJob).
 */
export interface PromiseHost {
  enqueue(job: () => void): void
  /** Rejected with nobody listening. */
  rejected(promise: object, reason: unknown): void
  /** Somebody listens now. */
  handled(promise: object): void
}

type Settle = (value: unknown) => void
type Handler = ((value: unknown) => unknown) | null | undefined

interface Reaction {
  readonly onFulfilled: Handler
  readonly onRejected: Handler
  readonly resolve: Settle
  readonly reject: Settle
}

const PENDING = 0
const FULFILLED = 1
const REJECTED = 2

/** Makes the class to inject as `Promise`. */
export function controlledPromise(host: PromiseHost) {
  class Controlled {
    #state = PENDING
    #value: unknown = undefined
    #reactions: Reaction[] = []
    #handled = false

    constructor(executor: (resolve: Settle, reject: Settle) => void) {
      let called = false
      const resolve: Settle = (value) => {
        if (called) return
        called = true
        this.#resolve(value)
      }
      const reject: Settle = (reason) => {
        if (called) return
        called = true
        this.#settle(REJECTED, reason)
      }
      try {
        executor(resolve, reject)
      } catch (error) {
        reject(error)
      }
    }

    then(onFulfilled?: Handler, onRejected?: Handler): Controlled {
      return new Controlled((resolve, reject) => {
        const reaction = { onFulfilled, onRejected, resolve, reject }
        if (this.#state === PENDING) this.#reactions.push(reaction)
        else this.#react(reaction)
        if (this.#state === REJECTED && !this.#handled) host.handled(this)
        this.#handled = true
      })
    }

    catch(onRejected?: Handler): Controlled {
      return this.then(undefined, onRejected)
    }

    finally(run?: () => unknown): Controlled {
      if (typeof run !== 'function') return this.then(run, run)
      return this.then(
        (value) => Controlled.resolve(run()).then(() => value),
        (reason) =>
          Controlled.resolve(run()).then(() => {
            throw reason
          }),
      )
    }

    #resolve(value: unknown): void {
      if (value === this) return this.#settle(REJECTED, new TypeError('promise of itself'))
      if ((typeof value !== 'object' && typeof value !== 'function') || value === null) {
        return this.#settle(FULFILLED, value)
      }
      let then: unknown
      try {
        then = Reflect.get(value, 'then')
      } catch (error) {
        return this.#settle(REJECTED, error)
      }
      if (typeof then !== 'function') return this.#settle(FULFILLED, value)
      const adopt = then
      host.enqueue(() => {
        let called = false
        const once = (settle: Settle): Settle => {
          return (result) => {
            if (called) return
            called = true
            settle(result)
          }
        }
        const reject = once((reason) => this.#settle(REJECTED, reason))
        try {
          adopt.call(
            value,
            once((result) => this.#resolve(result)),
            reject,
          )
        } catch (error) {
          reject(error)
        }
      })
    }

    #settle(state: number, value: unknown): void {
      this.#state = state
      this.#value = value
      if (state === REJECTED && !this.#handled) host.rejected(this, value)
      const reactions = this.#reactions
      this.#reactions = []
      for (const reaction of reactions) this.#react(reaction)
    }

    #react(reaction: Reaction): void {
      host.enqueue(() => {
        const fulfilled = this.#state === FULFILLED
        const handler = fulfilled ? reaction.onFulfilled : reaction.onRejected
        if (typeof handler !== 'function') {
          if (fulfilled) reaction.resolve(this.#value)
          else reaction.reject(this.#value)
          return
        }
        let result: unknown
        try {
          result = handler(this.#value)
        } catch (error) {
          return reaction.reject(error)
        }
        reaction.resolve(result)
      })
    }

    static resolve(value?: unknown): Controlled {
      return value instanceof Controlled ? value : new Controlled((resolve) => resolve(value))
    }

    static reject(reason?: unknown): Controlled {
      return new Controlled((_resolve, reject) => reject(reason))
    }

    static all(values: Iterable<unknown>): Controlled {
      return collect(values, (value) => value, null)
    }

    static allSettled(values: Iterable<unknown>): Controlled {
      return collect(
        values,
        (value) => ({ status: 'fulfilled', value }),
        (reason) => ({ status: 'rejected', reason }),
      )
    }

    static race(values: Iterable<unknown>): Controlled {
      return new Controlled((resolve, reject) => {
        for (const value of values) Controlled.resolve(value).then(resolve, reject)
      })
    }

    static any(values: Iterable<unknown>): Controlled {
      return new Controlled((resolve, reject) => {
        const errors: unknown[] = []
        let left = 1
        const one = () => {
          if (--left === 0) reject(new AggregateError(errors, 'all promises were rejected'))
        }
        let index = 0
        for (const value of values) {
          const at = index++
          left++
          Controlled.resolve(value).then(resolve, (error) => {
            errors[at] = error
            one()
          })
        }
        one()
      })
    }
  }

  function collect(
    values: Iterable<unknown>,
    onFulfilled: (value: unknown) => unknown,
    onRejected: ((reason: unknown) => unknown) | null,
  ): Controlled {
    return new Controlled((resolve, reject) => {
      const results: unknown[] = []
      let left = 1
      const put = (at: number, result: unknown) => {
        results[at] = result
        if (--left === 0) resolve(results)
      }
      let index = 0
      for (const value of values) {
        const at = index++
        left++
        Controlled.resolve(value).then(
          (result) => put(at, onFulfilled(result)),
          onRejected === null ? reject : (reason) => put(at, onRejected(reason)),
        )
      }
      if (--left === 0) resolve(results)
    })
  }

  return Controlled
}

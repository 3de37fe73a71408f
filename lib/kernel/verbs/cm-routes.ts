/** Which identifier an event is for. Holds none of them: the watch is a root of the garbage collector's. */
import type { NativeWatch } from '../../native.js'
import { nativeVerbs, type NativeCmChannel, type NativeCmEvent } from '../../native-verbs.js'
import { call } from '../call.js'
import { watchError } from './async-events.js'

type Route = (event: NativeCmEvent | Error) => void

/** Events that one turn of the loop takes at most. */
const PER_TURN = 16

export class CmRoutes {
  readonly #channel: NativeCmChannel
  readonly #routes = new Map<number, Route>()
  readonly #watch: NativeWatch
  #holds = 0

  constructor(channel: NativeCmChannel) {
    this.#channel = channel
    this.#watch = call(() =>
      nativeVerbs().verbsCmWatch(channel, (status) => {
        try {
          if (status < 0) throw watchError(status, 'rdma_get_cm_event')
          this.#take()
        } catch (error) {
          this.#fail(error as Error)
        }
      }),
    )
    this.#watch.hold(false)
  }

  #take(): void {
    for (let i = 0; i < PER_TURN && !this.#channel.closed; i++) {
      const event = call(() => nativeVerbs().verbsCmGetEvent(this.#channel))
      if (event === null) return
      const route = this.#routes.get(event.number)
      if (route !== undefined) route(event)
      // Its listener is closing.
      else if (event.request !== null) void nativeVerbs().verbsClose(event.request)
    }
  }

  /** An event is lost, and it is not known whose: nobody waits for his any longer. */
  #fail(error: Error): void {
    for (const route of [...this.#routes.values()]) route(error)
  }

  add(number: number, route: Route): void {
    this.#routes.set(number, route)
  }

  remove(number: number): void {
    this.#routes.delete(number)
  }

  /** Counts who waits: while somebody does, the process stays alive. */
  hold(change: 1 | -1): void {
    this.#holds += change
    this.#watch.hold(this.#holds > 0)
  }

  stop(): void {
    this.#watch.stop()
  }
}

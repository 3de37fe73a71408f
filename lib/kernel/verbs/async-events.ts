/** What happens to a device and its objects, told on the caller's event loop. */
import { checkBoolean, P2pdmaError } from '../../errors.js'
import type { NativeWatch } from '../../native.js'
import { nativeVerbs, type NativeDevice } from '../../native-verbs.js'
import { call } from '../call.js'
import { AsyncEventType, asyncEventName } from './constants.js'

export interface AsyncEvent {
  /** `AsyncEventType`. */
  type: number
  /** Its name. */
  name: string
  /** Whom it happened to. */
  of: 'device' | 'port' | 'queue-pair' | 'completion-queue' | 'shared-receive-queue'
  /** The port's or queue pair's number, or the queue's `id`; 0 of the device. */
  number: number
}

export interface AsyncSubscription extends Disposable {
  /** Whether it keeps the process alive; at first it does not. */
  hold(hold: boolean): void
  /** Idempotent. */
  close(): void
}

const kinds: readonly [AsyncEvent['of'], readonly number[]][] = [
  ['completion-queue', [AsyncEventType.CQ_ERR]],
  ['shared-receive-queue', [AsyncEventType.SRQ_ERR, AsyncEventType.SRQ_LIMIT_REACHED]],
  ['device', [AsyncEventType.DEVICE_FATAL, AsyncEventType.WQ_FATAL]],
  ['queue-pair', [1, 2, 3, 4, 5, 6, 7, AsyncEventType.QP_LAST_WQE_REACHED]],
]

function decode(value: number): AsyncEvent {
  const type = value % 256
  const of = kinds.find(([, types]) => types.includes(type))?.[0] ?? 'port'
  return { type, name: asyncEventName(type), of, number: Math.floor(value / 256) }
}

/** The subscriptions of one device; it is watched while there are any. */
export class AsyncEvents {
  readonly #device: NativeDevice
  readonly #held = new Map<(event: AsyncEvent) => void, boolean>()
  #watch: NativeWatch | null = null

  constructor(device: NativeDevice) {
    this.#device = device
  }

  subscribe(listener: (event: AsyncEvent) => void): AsyncSubscription {
    // A function of its own, so that one listener can be given twice.
    const entry = (event: AsyncEvent) => {
      listener(event)
    }
    this.#watch ??= call(() =>
      nativeVerbs().verbsWatchAsync(this.#device, (value) => {
        this.#tell(value)
      }),
    )
    this.#held.set(entry, false)
    this.#update()
    const close = () => {
      if (this.#held.delete(entry)) this.#update()
    }
    return {
      hold: (hold) => {
        checkBoolean('hold', hold)
        if (this.#held.has(entry)) this.#held.set(entry, hold)
        this.#update()
      },
      close,
      [Symbol.dispose]: close,
    }
  }

  #tell(value: number): void {
    // The descriptor failed: the device has gone.
    const event: AsyncEvent =
      value >= 0
        ? decode(value)
        : { type: AsyncEventType.DEVICE_FATAL, name: 'DEVICE_FATAL', of: 'device', number: 0 }
    if (value < 0) this.#watch = null
    for (const listener of [...this.#held.keys()]) listener(event)
  }

  #update(): void {
    if (this.#held.size === 0) {
      this.#watch?.stop()
      this.#watch = null
    } else {
      this.#watch?.hold([...this.#held.values()].includes(true))
    }
  }

  close(): void {
    this.#held.clear()
    this.#update()
  }
}

/** For the descriptor of a queue, or of librdmacm, that fails under its watch. */
export function watchError(status: number, syscall = 'ibv_get_cq_event'): P2pdmaError {
  return new P2pdmaError('The device no longer tells of events', {
    code: 'EIO',
    errno: status,
    syscall,
  })
}

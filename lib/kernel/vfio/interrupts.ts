/** A device's interrupts, each an eventfd that is read on the caller's event loop. */
import { brand } from '../../brand.js'
import {
  P2pdmaError,
  checkBoolean,
  checkInteger,
  rangeError,
  typeError,
  checkArray,
} from '../../errors.js'
import { native, type NativeFd, type NativeWatch } from '../../native.js'
import { call } from '../call.js'
import { Irq, IrqFlag, IrqSet } from './abi.js'

export type InterruptKind = 'intx' | 'msi' | 'msix'

const indexes = new Map<unknown, number>([
  ['intx', Irq.INTX],
  ['msi', Irq.MSI],
  ['msix', Irq.MSIX],
])

/** One vector. */
export interface Vector {
  eventfd: NativeFd
  watch: NativeWatch
}

export class Interrupts {
  static {
    brand(this, (value) => #address in value)
  }

  readonly #address: string
  readonly #device: () => NativeFd
  readonly #vectors: Vector[] = []
  #kind: InterruptKind | null = null
  /**
   * Stops listening; the device is not asked. Holds nothing of the device.
   * @internal
   */
  readonly abandon: () => void

  /** @internal */
  constructor(address: string, device: () => NativeFd) {
    this.#address = address
    this.#device = device
    const vectors = this.#vectors
    this.abandon = () => {
      drop(vectors.splice(0))
    }
  }

  /** Vectors that the device has of a kind; 0 where it has none. */
  count(kind: InterruptKind): number {
    const index = indexOf(kind)
    const { flags, count } = call(() => native.vfioInterruptInfo(this.#device(), index))
    return (flags & IrqFlag.EVENTFD) !== 0 ? count : 0
  }

  /** The kind that is switched on; null where none is. */
  get kind(): InterruptKind | null {
    return this.#kind
  }

  /**
   * Switches on one vector per handler, and only this kind; ERR_INVALID_STATE
   * where one is on, ERR_UNSUPPORTED where the device has not so many. Each
   * handler is called with the number of interrupts since. INTx is masked by
   * each interrupt: `unmask()` when the device has been seen to. The others are
   * writes of the device, which need `config.setMaster(true)`. Listening does not
   * keep the process alive: see `hold()`.
   */
  enable(kind: InterruptKind, handlers: readonly ((count: number) => void)[]): void {
    const index = indexOf(kind)
    checkHandlers(handlers)
    if (this.#kind !== null) {
      throw new P2pdmaError(`The interrupts of ${this.#address} are ${this.#kind} already`, {
        code: 'ERR_INVALID_STATE',
        argument: 'kind',
      })
    }
    const count = this.count(kind)
    if (handlers.length > count) {
      throw new P2pdmaError(`${this.#address} has ${count} vectors of ${kind}`, {
        code: 'ERR_UNSUPPORTED',
        argument: 'handlers',
      })
    }
    const vectors: Vector[] = []
    try {
      for (const handler of handlers) vectors.push(openVector(handler))
      const flags = IrqSet.DATA_EVENTFD | IrqSet.TRIGGER
      const fds = vectors.map(({ eventfd }) => eventfd)
      call(() => {
        native.vfioSetInterrupts(this.#device(), index, 0, fds.length, flags, fds)
      })
    } catch (error) {
      drop(vectors)
      throw error
    }
    this.#kind = kind
    this.#vectors.push(...vectors)
  }

  /**
   * Whether listening to this vector keeps the process alive; at first it does
   * not. ERR_OUT_OF_RANGE where no such vector is on.
   */
  hold(vector: number, hold: boolean): void {
    checkInteger('vector', vector)
    checkBoolean('hold', hold)
    const found = this.#vectors[vector]
    if (found === undefined) throw rangeError('vector', 'one that is on', vector)
    found.watch.hold(hold)
  }

  /** INTx: lets the next one through; ERR_INVALID_STATE where INTx is not on. */
  unmask(): void {
    const device = this.#device()
    if (this.#kind !== 'intx') {
      throw new P2pdmaError('Only INTx is masked', { code: 'ERR_INVALID_STATE' })
    }
    const flags = IrqSet.DATA_NONE | IrqSet.UNMASK
    call(() => {
      native.vfioSetInterrupts(device, Irq.INTX, 0, 1, flags, [])
    })
  }

  /** Switches them off; another kind can be switched on then. Idempotent. */
  close(): void {
    const kind = this.#kind
    if (kind === null) return
    this.#kind = null
    this.abandon()
    const device = this.#device()
    const flags = IrqSet.DATA_NONE | IrqSet.TRIGGER
    call(() => {
      native.vfioSetInterrupts(device, indexOf(kind), 0, 0, flags, [])
    })
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

function indexOf(kind: unknown): number {
  const index = indexes.get(kind)
  if (index === undefined) throw typeError('kind', "'intx', 'msi' or 'msix'", kind)
  return index
}

function checkHandlers(value: unknown): void {
  const handlers = checkArray('handlers', value, 'an array of functions')
  // The kernel's own limit: PCI_MSIX_FLAGS_QSIZE.
  if (handlers.length < 1 || handlers.length > 2048) {
    throw rangeError('handlers', '1 to 2048 functions', handlers.length)
  }
  for (const handler of handlers) {
    if (typeof handler !== 'function') throw typeError('handlers', 'an array of functions', handler)
  }
}

/** An eventfd with its handler; it does not keep the process alive. */
export function openVector(handler: (count: number) => void): Vector {
  const eventfd = call(() => native.createEventfd())
  try {
    const watch = call(() =>
      native.watchEventfd(eventfd, (count) => {
        if (count > 0) handler(count)
      }),
    )
    watch.hold(false)
    return { eventfd, watch }
  } catch (error) {
    eventfd.close()
    throw error
  }
}

export function drop(vectors: readonly Vector[]): void {
  for (const { eventfd, watch } of vectors) {
    watch.stop()
    eventfd.close()
  }
}

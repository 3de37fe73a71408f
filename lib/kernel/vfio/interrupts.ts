/** A device's interrupts, each an eventfd that is read on the caller's event loop. */
import { P2pdmaError, checkInteger } from '../../errors.js'
import { native, type NativeFd, type NativeWatch } from '../../native.js'
import { call } from '../call.js'
import { Irq, IrqFlag, IrqSet } from './abi.js'

export type InterruptKind = 'intx' | 'msi' | 'msix'

const indexes: Record<InterruptKind, number> = { intx: Irq.INTX, msi: Irq.MSI, msix: Irq.MSIX }

/** One vector. */
interface Vector {
  eventfd: NativeFd
  watch: NativeWatch
}

export class Interrupts {
  readonly #address: string
  readonly #device: () => NativeFd
  #kind: InterruptKind | null = null
  #vectors: Vector[] = []

  /** @internal */
  constructor(address: string, device: () => NativeFd) {
    this.#address = address
    this.#device = device
  }

  /** Vectors that the device has of a kind; 0 where it has none. */
  count(kind: InterruptKind): number {
    const { flags, count } = call(() => native.vfioInterruptInfo(this.#device(), indexes[kind]))
    return (flags & IrqFlag.EVENTFD) !== 0 ? count : 0
  }

  /** The kind that is switched on; null where none is. */
  get kind(): InterruptKind | null {
    return this.#kind
  }

  /**
   * Switches on one vector per handler, and only this kind. Each handler is
   * called with the number of interrupts since. INTx is masked by each
   * interrupt: `unmask()` when the device has been seen to.
   */
  enable(kind: InterruptKind, handlers: readonly ((count: number) => void)[]): void {
    checkInteger('handlers', handlers.length, 1, 4096)
    if (this.#kind !== null) {
      throw new P2pdmaError(`The interrupts of ${this.#address} are ${this.#kind} already`, {
        code: 'ERR_INVALID_STATE',
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
      for (const handler of handlers) {
        const eventfd = call(() => native.createEventfd())
        const watch = call(() => native.watchEventfd(eventfd, handler))
        watch.hold(false)
        vectors.push({ eventfd, watch })
      }
      const flags = IrqSet.DATA_EVENTFD | IrqSet.TRIGGER
      const fds = vectors.map(({ eventfd }) => eventfd)
      call(() => {
        native.vfioSetInterrupts(this.#device(), indexes[kind], 0, fds.length, flags, fds)
      })
    } catch (error) {
      drop(vectors)
      throw error
    }
    this.#kind = kind
    this.#vectors = vectors
  }

  /** Whether waiting for this vector keeps the process alive; at first it does not. */
  hold(vector: number, hold: boolean): void {
    this.#vectors[vector]?.watch.hold(hold)
  }

  /** INTx: lets the next one through. */
  unmask(): void {
    const flags = IrqSet.DATA_NONE | IrqSet.UNMASK
    call(() => {
      native.vfioSetInterrupts(this.#device(), Irq.INTX, 0, 1, flags, [])
    })
  }

  /** Switches them off. Idempotent. */
  close(): void {
    const kind = this.#kind
    if (kind === null) return
    this.#kind = null
    const vectors = this.#vectors
    this.#vectors = []
    try {
      const flags = IrqSet.DATA_NONE | IrqSet.TRIGGER
      call(() => {
        native.vfioSetInterrupts(this.#device(), indexes[kind], 0, 0, flags, [])
      })
    } finally {
      drop(vectors)
    }
  }
}

function drop(vectors: readonly Vector[]): void {
  for (const { eventfd, watch } of vectors) {
    watch.stop()
    eventfd.close()
  }
}

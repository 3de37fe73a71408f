import { brand } from '../brand.js'
import { P2pdmaError, checkInteger, typeError } from '../errors.js'
import { Fence, type WaitOptions } from './fence.js'
import { WwClass, WwMutex } from './ww-mutex.js'

/** What a fence stands for, in the order of enum dma_resv_usage (include/linux/dma-resv.h). */
export const Usage = { KERNEL: 0, WRITE: 1, READ: 2, BOOKKEEP: 3 } as const
export type Usage = (typeof Usage)[keyof typeof Usage]

/** How long work of others may take that a fence stands for, where nobody gives a time; ms. */
export const FENCE_TIMEOUT_MS = 60_000

/** The class of all reservations; the kernel's is Wait-Die too (drivers/dma-buf/dma-resv.c). */
export const reservationClass = new WwClass('wait-die')

/** A buffer's lock and its fences (dma_resv). */
export class Reservation extends WwMutex {
  static {
    brand(this, (value) => #fences in value)
  }

  /** Null until the first fence: most of 100,000 buffers have none. */
  #fences: { fence: Fence; usage: Usage }[] | null = null

  constructor() {
    super(reservationClass)
  }

  /** Adds a fence. The lock must be held, as dma_resv_add_fence asserts. */
  addFence(fence: Fence, usage: Usage): void {
    if (!(fence instanceof Fence)) throw typeError('fence', 'a Fence', fence)
    checkUsage(usage)
    if (!this.locked) {
      throw new P2pdmaError('a fence is added under the reservation lock', {
        code: 'ERR_NOT_LOCKED',
      })
    }
    const alive = this.#fences?.filter((each) => !each.fence.signaled) ?? []
    alive.push({ fence, usage })
    this.#fences = alive
  }

  /** Fences of this usage and all that it implies (KERNEL alone; READ: KERNEL, WRITE and READ). */
  fences(usage: Usage): Fence[] {
    checkUsage(usage)
    const found: Fence[] = []
    for (const each of this.#fences ?? []) if (each.usage <= usage) found.push(each.fence)
    return found
  }

  /** Whether a wait for this usage would end at once without an error. */
  isIdle(usage: Usage): boolean {
    checkUsage(usage)
    if (this.#fences === null) return true
    return this.#fences.every(
      ({ fence, usage: theirs }) => theirs > usage || (fence.signaled && fence.error === null),
    )
  }

  /** Waits for the fences of a usage; rejects with the first failure. */
  async wait(usage: Usage, options?: WaitOptions): Promise<void> {
    for (const fence of this.fences(usage)) await fence.wait(options)
  }

  /**
   * Waits until all work of a usage has ended, well or not; its failures are its owners'.
   * Rejects with ETIMEDOUT or ABORT_ERR.
   */
  async waitSettled(usage: Usage, options?: WaitOptions): Promise<void> {
    for (const fence of this.fences(usage)) {
      if (fence.signaled) continue
      await fence.wait(options).catch((error: unknown) => {
        if (!fence.signaled) throw error
      })
    }
  }

  /** Forgets fences that have been signalled, failed ones included. The lock must be held. */
  prune(): void {
    const alive = this.#fences?.filter((each) => !each.fence.signaled) ?? []
    this.#fences = alive.length === 0 ? null : alive
  }
}

function checkUsage(usage: number): void {
  checkInteger('usage', usage, Usage.KERNEL, Usage.BOOKKEEP)
}

import { brand, notOwn } from '../../brand.js'
import { P2pdmaError, checkInteger, typeError } from '../../errors.js'
import { boundedWait, checkWait, Fence, type FenceWaitOptions } from './fence.js'
import { WwClass, WwMutex } from './ww-mutex.js'

/** What a fence stands for, in the order of enum dma_resv_usage (include/linux/dma-resv.h). */
export const Usage = { KERNEL: 0, WRITE: 1, READ: 2, BOOKKEEP: 3 } as const
export type Usage = (typeof Usage)[keyof typeof Usage]

/** How long work of others may take that a fence stands for, where nobody gives a time; ms. */
export const FENCE_TIMEOUT_MS = 60_000

/** The class of all reservations; the kernel's is Wait-Die too (drivers/dma-buf/dma-resv.c). */
export const reservationClass = new WwClass('wait-die')

interface Entry {
  readonly fence: Fence
  usage: Usage
  /** Of a move: where it fails, only the mover can tell that the buffer is whole again. */
  readonly isMove: boolean
}

let isReservation: (value: unknown) => value is Reservation

/** A buffer's lock and its fences (dma_resv). */
export class Reservation extends WwMutex {
  static {
    isReservation = (value): value is Reservation =>
      typeof value === 'object' && value !== null && #fences in value
    brand(this, isReservation, { hot: ['assertHeld'] })
  }

  /** Null until the first fence: most of 100,000 buffers have none. */
  #fences: Entry[] | null = null

  constructor() {
    super(reservationClass)
  }

  /**
   * Throws ERR_NOT_LOCKED where nobody holds the lock under which `what` is done, as
   * dma_resv_assert_held() (include/linux/dma-resv.h) warns; whose it is it does not know.
   * @internal
   */
  assertHeld(what: string): void {
    if (!isReservation(this)) throw notOwn('Reservation', this)
    if (this.locked) return
    throw new P2pdmaError(`${what} under the reservation lock`, { code: 'ERR_NOT_LOCKED' })
  }

  /**
   * Adds a fence. The lock must be held, as dma_resv_add_fence asserts. One that is there
   * already stays one; of its two usages the stronger counts.
   */
  addFence(fence: Fence, usage: Usage): void {
    this.#add(fence, usage, false)
  }

  /** The fence of a move: it stays, failed, until `forget()`. @internal */
  addMoveFence(fence: Fence): void {
    this.#add(fence, Usage.KERNEL, true)
  }

  #add(fence: Fence, usage: Usage, isMove: boolean): void {
    if (!(fence instanceof Fence)) throw typeError('fence', 'a Fence', fence)
    checkUsage(usage)
    this.assertHeld('a fence is added')
    const alive = this.#fences?.filter(isAlive) ?? []
    const same = alive.find((each) => each.fence === fence)
    if (same === undefined) alive.push({ fence, usage, isMove })
    else if (usage < same.usage) same.usage = usage
    this.#fences = alive
  }

  /** Fences of this usage and all that it implies (KERNEL alone; READ: KERNEL, WRITE and READ). */
  fences(usage: Usage): Fence[] {
    return this.#of(usage).map(({ fence }) => fence)
  }

  #of(usage: Usage): Entry[] {
    checkUsage(usage)
    return this.#fences?.filter((each) => each.usage <= usage) ?? []
  }

  /** Whether a wait for this usage would end at once without an error. */
  isIdle(usage: Usage): boolean {
    checkUsage(usage)
    if (this.#fences === null) return true
    return this.#fences.every(
      ({ fence, usage: theirs }) => theirs > usage || (fence.signaled && fence.error === null),
    )
  }

  /**
   * Waits for the fences of a usage; rejects with the first failure. The time is that of the
   * whole wait, as dma_resv_wait_timeout()'s. A fence that has failed is signalled: who waits
   * hears of it, and who comes later does not.
   */
  async wait(usage: Usage, options: FenceWaitOptions = {}): Promise<void> {
    return this.#wait(usage, usage, options)
  }

  /**
   * Waits until all work of a usage has ended, well or not; its failures are its owners'.
   * Rejects with ETIMEDOUT or ABORT_ERR.
   */
  async waitSettled(usage: Usage, options: FenceWaitOptions = {}): Promise<void> {
    return this.#wait(usage, null, options)
  }

  /**
   * Both in one: the failures of KERNEL fences count, of other work of that usage only that it
   * has ended. For who comes next to the memory. @internal
   */
  async waitForOthers(usage: Usage, options: FenceWaitOptions = {}): Promise<void> {
    return this.#wait(usage, Usage.KERNEL, options)
  }

  async #wait(usage: Usage, failing: Usage | null, options: FenceWaitOptions): Promise<void> {
    const limits = checkWait(options)
    const entries = this.#of(usage)
    if (entries.length === 0) return
    if (entries.some(({ fence }) => !fence.signaled)) await boundedWait(allOf(entries), limits)
    if (failing === null) return
    const failed = entries.find((each) => each.usage <= failing && each.fence.error !== null)
    if (failed === undefined) return
    if (!failed.isMove) this.forget(failed.fence)
    throw failed.fence.error as Error
  }

  /** Forgets fences that have been signalled, failed ones included. The lock must be held. */
  prune(): void {
    this.assertHeld('fences are forgotten')
    const alive = this.#fences?.filter(isAlive) ?? []
    this.#fences = alive.length === 0 ? null : alive
  }

  /** Forgets one fence. @internal */
  forget(fence: Fence): void {
    this.#fences = this.#fences?.filter((each) => each.fence !== fence) ?? null
  }
}

async function allOf(entries: readonly Entry[]): Promise<void> {
  for (const { fence } of entries) if (!fence.signaled) await fence.done
}

function isAlive({ fence, isMove }: Entry): boolean {
  return !fence.signaled || (isMove && fence.error !== null)
}

function checkUsage(usage: number): void {
  checkInteger('usage', usage, Usage.KERNEL, Usage.BOOKKEEP)
}

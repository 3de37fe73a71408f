/** Makes room in a budget: its callers have taken turns, there is one at a time. */
import type { Exporter } from '../backing.js'
import { evict } from '../evict.js'
import { Budget, isNoSpace, noSpace } from './budget.js'
import type { HeldBacking } from './held-backing.js'
import { LruList } from './lru-list.js'
import type { Member } from './member.js'

export class Room {
  readonly budget: Budget<Member>
  /** Those that are within the budget. */
  readonly resident = new LruList<Member>()
  /** Callers whose turn is over and whose buffers are still to come. */
  arriving = 0
  evictions = 0
  evictedBytes = 0
  readonly #evictTo: Exporter
  readonly #onEvicted: (member: Member) => void
  #changed: (() => void)[] = []

  constructor(
    exporter: Exporter,
    bytes: number,
    granularity: number,
    evictTo: Exporter,
    onEvicted: (member: Member) => void,
  ) {
    this.budget = new Budget(exporter, bytes, granularity, (backing) => this.#onFreed(backing))
    this.#evictTo = evictTo
    this.#onEvicted = onEvicted
  }

  #onFreed(backing: HeldBacking<Member>): void {
    const member = backing.owner
    if (member !== null && member.home === backing) {
      member.home = null
      this.resident.remove(member.node)
    }
    this.wake()
  }

  /** The exporter may be exhausted before the budget is, or have its memory in pieces. */
  async obtain(size: number): Promise<HeldBacking<Member>> {
    const tried = new Set<Member>()
    for (;;) {
      try {
        return await this.budget.allocate(size)
      } catch (error) {
        if (!isNoSpace(error)) throw error
        const victims = this.#choose(size, tried) ?? this.#choose(1, tried)
        if (victims !== null) await this.#evict(victims, tried)
        else if (!(await this.#waited())) throw error
      }
    }
  }

  async make(bytes: number): Promise<void> {
    const tried = new Set<Member>()
    while (bytes > this.budget.left) {
      const victims = this.#choose(bytes - this.budget.left, tried)
      if (victims !== null) await this.#evict(victims, tried)
      else if (!(await this.#waited())) throw noSpace(bytes, this.budget.bytes)
    }
  }

  /**
   * The least recently used ones that hold `bytes` bytes, hinted ones only when
   * the others are not enough, as evict() does. Null where all are not enough.
   */
  #choose(bytes: number, tried: ReadonlySet<Member>): Member[] | null {
    const victims: Member[] = []
    let held = 0
    for (const hinted of [false, true]) {
      for (const each of this.resident) {
        if (held >= bytes) return victims
        if (each.buffer.isHinted !== hinted || tried.has(each) || !each.mayLeave) continue
        victims.push(each)
        held += each.home?.size ?? 0
      }
    }
    return held >= bytes ? victims : null
  }

  async #evict(victims: readonly Member[], tried: Set<Member>): Promise<void> {
    for (const each of victims) {
      each.leaving = true
      tried.add(each)
    }
    const done = await Promise.allSettled(victims.map((each) => this.#evictOne(each)))
    for (const each of victims) {
      each.leaving = false
      // It could not go; the next time others are tried first.
      if (each.home !== null) this.resident.touch(each.node)
    }
    for (const each of done) if (each.status === 'rejected') throw each.reason as Error
  }

  async #evictOne(member: Member): Promise<void> {
    const { buffer, home } = member
    if (home === null) return
    try {
      if (buffer.backing === home) await evict([buffer], this.#evictTo, 1)
      // A poisoned backing is held back: have it looked at and given back now.
      if (buffer.backing !== home && buffer.poison) await buffer.countStrayWrites()
    } catch (error) {
      // Pinned, revoked or in a bracket since: it stays.
      if (!buffer.isClosed && !member.isHeldBack) throw error
    }
    if (buffer.isClosed) {
      await buffer.close().catch(() => {})
    } else if (member.home === null) {
      this.evictions++
      this.evictedBytes += home.size
      this.#onEvicted(member)
    }
  }

  /** Waits for a change where there are calls whose buffers can be evicted once they have come. */
  async #waited(): Promise<boolean> {
    if (this.arriving === 0) return false
    await new Promise<void>((resolve) => this.#changed.push(resolve))
    return true
  }

  wake(): void {
    const waiting = this.#changed
    this.#changed = []
    for (const resolve of waiting) resolve()
  }
}

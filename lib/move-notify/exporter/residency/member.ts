/** A buffer of a resident set. */
import type { MovableBuffer } from '../movable-buffer.js'
import type { HeldBacking } from './held-backing.js'
import { LruNode } from './lru-list.js'

export class Member {
  readonly buffer: MovableBuffer
  readonly node = new LruNode<Member>(this)
  /** Its memory within the budget, until that has been given back. */
  home: HeldBacking<Member> | null = null
  /** Calls of use() under way that need it where it is. */
  users = 0
  arriving: Promise<void> | null = null
  leaving = false
  /** The detector's clock when it was last evicted. */
  evictedAt = -Infinity

  constructor(buffer: MovableBuffer) {
    this.buffer = buffer
  }

  get isResident(): boolean {
    const { buffer, home, leaving, arriving } = this
    return home !== null && buffer.backing === home && !leaving && arriving === null
  }

  /** Whether its owner keeps it where it is. */
  get isHeldBack(): boolean {
    const { isPinned, isRevoked, cpuBrackets } = this.buffer
    return isPinned || isRevoked || cpuBrackets?.isIdle === false
  }

  /** Whether it may be evicted now. A closed one is only waited for. */
  get mayLeave(): boolean {
    if (this.users > 0 || this.leaving) return false
    return this.buffer.isClosed || !this.isHeldBack
  }
}

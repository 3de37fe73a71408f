/**
 * Buffers that share a device's memory which is too small for all of them: the
 * least recently used ones are evicted to other memory, and brought back when
 * they are used again.
 */
import { brand } from '../../../brand.js'
import { P2pdmaError, checkInteger, checkOptions, closedError, typeError } from '../../../errors.js'
import { pageSize } from '../../../page-size.js'
import type { Exporter } from '../backing.js'
import { checkExporter } from '../exporting.js'
import { type BufferOptions, MovableBuffer } from '../movable-buffer.js'
import { trace } from '../../trace.js'
import type { ThrashChange } from '../../trace.js'
import { noSpace } from './budget.js'
import type { HeldBacking } from './held-backing.js'
import { Member } from './member.js'
import { Room } from './room.js'
import { ThrashDetector, type ThrashOptions } from './thrash-detector.js'

export interface ResidentSetOptions {
  /** Bytes of the exporter's memory that the set may hold. */
  budget: number
  /** Where evicted buffers go; its placement must be another. */
  evictTo: Exporter
  /** What the exporter rounds sizes up to, bytes. Default: the page size. */
  granularity?: number
  thrash?: ThrashOptions
}

/** Bytes and buffers; what counts up does so since the set was made. */
export interface ResidentSetStats {
  budget: number
  /** Of the budget, held by buffers, by what they have not given back yet, or by what is coming. */
  residentBytes: number
  residentBuffers: number
  /** Buffers of the set, the evicted ones included. */
  buffers: number
  uses: number
  evictions: number
  evictedBytes: number
  restores: number
  restoredBytes: number
  /** See `ThrashOptions`. */
  thrashRatio: number
  thrashing: boolean
}

export class ResidentSet {
  static {
    brand(this, (value) => #room in value, { promising: ['close'] })
  }

  readonly #room: Room
  readonly #thrash: ThrashDetector
  readonly #known = new WeakMap<MovableBuffer, Member>()
  readonly #members = new Set<Member>()
  #sweepAt = 64
  /** Whoever makes room, one after the other. */
  #turn: Promise<void> = Promise.resolve()
  #restores = 0
  #restoredBytes = 0
  #closing: Promise<void> | null = null

  constructor(exporter: Exporter, options: ResidentSetOptions) {
    checkExporter(exporter)
    const { budget, evictTo, granularity = pageSize, thrash } = checkOptions(options)
    checkInteger('budget', budget, 1)
    checkInteger('granularity', granularity, 1)
    if (typeof evictTo !== 'object' || evictTo === null) {
      throw typeError('evictTo', 'an Exporter', evictTo)
    }
    checkExporter(evictTo)
    if (evictTo.placement === exporter.placement) {
      throw new P2pdmaError(`evictTo is ${exporter.placement} as well`, {
        code: 'ERR_INVALID_ARG_VALUE',
        argument: 'evictTo',
      })
    }
    this.#thrash = new ThrashDetector(thrash)
    this.#room = new Room(exporter, budget, granularity, evictTo, (member) => {
      member.evictedAt = this.#thrash.uses
    })
  }

  get stats(): ResidentSetStats {
    return {
      budget: this.#room.budget.bytes,
      residentBytes: this.#room.budget.charged,
      residentBuffers: this.#room.resident.length,
      buffers: [...this.#members].filter((each) => !each.buffer.isClosed).length,
      uses: this.#thrash.uses,
      evictions: this.#room.evictions,
      evictedBytes: this.#room.evictedBytes,
      restores: this.#restores,
      restoredBytes: this.#restoredBytes,
      thrashRatio: this.#thrash.ratio,
      thrashing: this.#thrash.thrashing,
    }
  }

  /**
   * Makes a buffer within the budget; evicts others for it. ENOSPC where those
   * that may be evicted are not enough. Close it to give its bytes back.
   */
  async create(size: number, options: BufferOptions = {}): Promise<MovableBuffer> {
    checkInteger('size', size, 1)
    checkOptions(options)
    this.#checkOpen()
    const release = await this.#takeTurn()
    try {
      this.#checkOpen()
      await this.#room.make(this.#room.budget.estimate(size))
      const backing = await this.#room.obtain(size)
      const buffer = await this.#into(backing, (exporter) =>
        MovableBuffer.create(size, exporter, options),
      )
      this.#add(buffer, backing)
      return buffer
    } finally {
      release()
    }
  }

  /**
   * Marks buffers of this set as used, and brings back those that have been
   * evicted: when it resolves all of them are within the budget. Pin what must
   * stay there. Rejects with ENOSPC where they cannot all be, with EBUSY where
   * one is pinned elsewhere, and with what a move rejects with.
   */
  async use(...buffers: MovableBuffer[]): Promise<void> {
    this.#checkOpen()
    const wanted = this.#wanted(buffers)
    let restored: Set<Member> | null = null
    if (!wanted.every((each) => each.isResident)) restored = await this.#bringBack(wanted)
    for (const each of wanted) this.#used(each, restored?.has(each) === true)
  }

  /** Closes its buffers, the evicted ones too. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(): Promise<void> {
    const release = await this.#takeTurn()
    try {
      const done = await Promise.allSettled([...this.#members].map(({ buffer }) => buffer.close()))
      for (const each of done) if (each.status === 'rejected') throw each.reason as Error
    } finally {
      this.#members.clear()
      release()
    }
  }

  #checkOpen(): void {
    if (this.#closing !== null) throw closedError('the resident set')
  }

  #wanted(buffers: readonly unknown[]): Member[] {
    const wanted = new Set<Member>()
    for (const buffer of buffers) {
      if (!(buffer instanceof MovableBuffer)) throw typeError('buffers', 'MovableBuffers', buffer)
      buffer.checkUsable()
      const member = this.#known.get(buffer)
      if (member === undefined) {
        throw new P2pdmaError('The buffer is not of this resident set', {
          code: 'ERR_INVALID_ARG_VALUE',
          argument: 'buffers',
          hint: 'make it with create()',
        })
      }
      wanted.add(member)
    }
    return [...wanted]
  }

  #add(buffer: MovableBuffer, backing: HeldBacking<Member>): void {
    const member = new Member(buffer)
    member.home = backing
    backing.owner = member
    this.#known.set(buffer, member)
    if (this.#members.size >= this.#sweepAt) this.#sweep()
    this.#members.add(member)
    this.#room.resident.touch(member.node)
  }

  /** Forgets the closed ones. */
  #sweep(): void {
    for (const each of this.#members) if (each.buffer.isClosed) this.#members.delete(each)
    this.#sweepAt = Math.max(64, this.#members.size * 2)
  }

  #used(member: Member, restored: boolean): void {
    const { home, node } = member
    // Closed, or moved away by its owner, since it was there.
    if (home === null) return
    this.#room.resident.touch(node)
    const refaulted = restored && this.#thrash.isRefault(member.evictedAt)
    if (!this.#thrash.add(home.size, refaulted ? home.size : 0)) return
    if (!trace.thrash.hasSubscribers) return
    trace.thrash.publish({
      placement: this.#room.budget.exporter.placement,
      thrashing: this.#thrash.thrashing,
      ratio: this.#thrash.ratio,
      usedBytes: this.#thrash.usedBytes,
      refaultedBytes: this.#thrash.refaultedBytes,
      window: this.#thrash.window,
      at: performance.now(),
    } satisfies ThrashChange)
  }

  // --- bringing back ---

  /** Returns those that were brought back for this call. */
  async #bringBack(wanted: readonly Member[]): Promise<Set<Member>> {
    const release = await this.#takeTurn()
    // Only from here on: who waits for his turn must not keep others from making room.
    for (const each of wanted) each.users++
    try {
      const restored = new Set<Member>()
      let arrivals: Promise<void>[]
      try {
        this.#checkOpen()
        arrivals = await this.#startArrivals(wanted, restored)
        this.#room.arriving++
      } finally {
        release()
      }
      const done = await Promise.allSettled(arrivals)
      this.#room.arriving--
      for (const each of done) if (each.status === 'rejected') throw each.reason as Error
      return restored
    } finally {
      for (const each of wanted) each.users--
      this.#room.wake()
    }
  }

  async #startArrivals(wanted: readonly Member[], restored: Set<Member>): Promise<Promise<void>[]> {
    const missing = wanted.filter((each) => each.arriving === null && !each.isResident)
    const bytes = (list: readonly Member[]) =>
      list.reduce((sum, { buffer }) => sum + this.#room.budget.estimate(buffer.size), 0)
    if (bytes(wanted) > this.#room.budget.bytes)
      throw noSpace(bytes(wanted), this.#room.budget.bytes)
    await this.#room.make(bytes(missing))
    const fresh: HeldBacking<Member>[] = []
    try {
      for (const { buffer } of missing) fresh.push(await this.#room.obtain(buffer.size))
    } catch (error) {
      await Promise.allSettled(fresh.map((each) => each.free()))
      throw error
    }
    for (const [i, backing] of fresh.entries()) {
      const member = missing[i] as Member
      restored.add(member)
      member.arriving = this.#arrive(member, backing).finally(() => (member.arriving = null))
    }
    const arrivals = wanted.map((each) => each.arriving).filter((each) => each !== null)
    // Looked at by who waits for them; that may be a turn later.
    for (const each of arrivals) each.catch(() => {})
    return arrivals
  }

  async #arrive(member: Member, backing: HeldBacking<Member>): Promise<void> {
    backing.owner = member
    try {
      await this.#into(backing, (exporter) => member.buffer.move(exporter))
    } finally {
      // Also where the move rejects because the old memory could not be given back.
      if (member.buffer.backing === backing && !member.buffer.isClosed) {
        member.home = backing
        this.#room.resident.touch(member.node)
        this.#restores++
        this.#restoredBytes += backing.size
      }
    }
  }

  /** Has `use` put a buffer into memory that is there already; else gives it back. */
  async #into<T>(
    backing: HeldBacking<Member>,
    use: (exporter: Exporter) => Promise<T>,
  ): Promise<T> {
    const { placement, kind } = this.#room.budget.exporter
    let taken = false
    const allocate = () => {
      taken = true
      return Promise.resolve(backing)
    }
    try {
      return await use({ placement, kind, allocate })
    } finally {
      if (!taken) await backing.free()
    }
  }

  async #takeTurn(): Promise<() => void> {
    const before = this.#turn
    let release = () => {}
    this.#turn = new Promise((resolve) => (release = resolve))
    await before
    return release
  }
}

/** A channel over one ring of a device: what all rings have in common. */
import { P2pdmaError, checkInteger, closedError, typeError } from '../../errors.js'
import { Batch, Completions, Status } from '../../move-notify/importer/batch.js'
import type { EngineChannel, EngineChannelOptions } from '../../move-notify/importer/engine.js'
import type { RingQueue } from './driver.js'
import type { MappingTable } from './mapping-table.js'
import { RingSlots } from './ring-slots.js'

/** What the channel asks of its engine. */
export interface RingHost {
  readonly table: MappingTable
  /** Resets the device, at once as far as DMA goes; the rings are set up again later. */
  reset(reason: string): void
  /** Whether the device is being reset: its registers are left alone. */
  readonly isDown: boolean
  /** While true, news of this queue keeps the process alive. */
  hold(queue: string, hold: boolean): void
  forget(channel: RingChannel): void
}

/** A completion that the ring does not hold any more. */
interface Finished {
  cookie: number
  result: number
  status: number
}

export class RingChannel implements EngineChannel {
  readonly depth: number
  readonly queue: RingQueue
  readonly #host: RingHost
  readonly #options: EngineChannelOptions
  readonly #slots: RingSlots
  #finished: Finished[] = []
  /** The table's count of removals when the ring was last looked through. */
  #removals = 0
  #running = true
  #closed = false
  #armed = false
  /** The device has lost the ring: what is held has to be written again before it starts. */
  #isLost = false
  /** Called back when it is seen that the queue is quiet. */
  #stopping: (() => void)[] = []

  constructor(host: RingHost, queue: RingQueue, options: EngineChannelOptions) {
    this.depth = options.depth
    this.queue = queue
    this.#host = host
    this.#options = options
    const { name, op, limits } = queue
    const { onUse } = options
    this.#slots = new RingSlots({ queue: name, op, limits, onUse }, queue.ring, host.table)
  }

  get inFlight(): number {
    return this.#slots.pending + this.#finished.length
  }

  get closed(): boolean {
    return this.#closed
  }

  /**
   * While the device is being reset nothing is told: it is after the reset. QEMU
   * before version 8 takes an rx tail as "ready" even where the receiver is off
   * (and 4.6.5 of the 82574's datasheet wants it on first), so it is told when
   * the queue is on: a channel that is stopped accepts nothing.
   */
  post(batch: Batch, first: number, count: number): number {
    if (this.#closed) throw closedError('The channel')
    if (!this.#running && batch instanceof Batch) {
      checkInteger('first', first, 0, batch.capacity)
      checkInteger('count', count, 0, batch.capacity - first)
      return 0
    }
    const room = this.depth - this.inFlight
    return this.#slots.post(batch, first, count, room, !this.#host.isDown)
  }

  /** What the device had when it was reset counts as the new epoch's, or as unknown. */
  get stale(): number {
    return 0
  }

  reap(out: Completions): number {
    if (this.#closed) throw closedError('The channel')
    if (this.#finished.length > 0) return this.#reapFinished(out)
    if (this.#host.isDown) {
      if (!(out instanceof Completions)) throw typeError('out', 'Completions', out)
      return 0
    }
    return this.#reapRing(out)
  }

  #reapRing(out: Completions): number {
    const count = this.#slots.reap(out)
    if (this.#slots.wrong > 0) {
      for (let i = 0; i < count; i++) {
        if (out.status[i] === Status.OK) continue
        out.result[i] = this.queue.errorCode(out.result[i] ?? 0)
      }
    }
    return count
  }

  #reapFinished(out: Completions): number {
    if (!(out instanceof Completions)) throw typeError('out', 'Completions', out)
    const taken = this.#finished.splice(0, out.capacity)
    taken.forEach(({ cookie, result, status }, i) => {
      out.cookie[i] = cookie
      out.result[i] = result
      out.status[i] = status
      out.epoch[i] = this.#slots.epoch
    })
    return taken.length
  }

  arm(): void {
    if (this.#closed) throw closedError('The channel')
    if (this.#armed) return
    this.#armed = true
    this.#host.hold(this.queue.name, true)
    if (!this.#host.isDown) this.queue.arm()
    // What was finished before the interrupt was asked for brings none.
    if (this.#hasNews()) setImmediate(() => this.notify())
  }

  #hasNews(): boolean {
    if (this.#finished.length > 0) return true
    return !this.#host.isDown && this.#slots.done > 0
  }

  /** An interrupt, or something that was finished without one. */
  notify(): void {
    if (this.#closed || !this.#armed) return
    if (!this.#hasNews()) {
      // A vector that something else had raised, or what is there has been reaped.
      if (!this.#host.isDown) this.queue.arm()
      return
    }
    this.#armed = false
    this.#host.hold(this.queue.name, false)
    this.#options.onCompletion()
  }

  uses(id: number): boolean {
    return this.#slots.uses(id)
  }

  /** Mostly the device is quiet here at once. */
  stop(): void | Promise<void> {
    if (this.#closed) throw closedError('The channel')
    this.#running = false
    if (this.#isQuiet()) return
    return new Promise((resolve) => {
      this.#stopping.push(resolve)
      if (this.#stopping.length === 1) setImmediate(() => this.#pollQuiet())
    })
  }

  #isQuiet(): boolean {
    if (this.#closed || this.#host.isDown) return true
    const slots = this.#slots
    // What cannot be repeated drains; the device has reported all of it, and says so itself.
    if (!this.queue.repeatable && slots.done < slots.pending) return false
    return this.queue.stop(slots.tail)
  }

  #pollQuiet(): void {
    if (this.#stopping.length === 0) return
    if (!this.#isQuiet()) {
      setTimeout(() => this.#pollQuiet(), 1)
      return
    }
    const waiting = this.#stopping
    this.#stopping = []
    for (const resolve of waiting) resolve()
  }

  force(): number {
    if (this.#closed) throw closedError('The channel')
    this.#running = false
    this.#host.reset(`the queue ${this.queue.name} did not stop`)
    this.#slots.epoch++
    this.#pollQuiet()
    return this.#slots.epoch
  }

  /** Throws ERR_INVALID_STATE unless the channel is stopped. */
  restart(): void {
    if (this.#closed) throw closedError('The channel')
    if (this.#running) {
      throw new P2pdmaError('The channel is not stopped', { code: 'ERR_INVALID_STATE' })
    }
    this.#running = true
    if (this.#host.isDown) return
    this.#resume()
    if (this.#armed && this.#hasNews()) setImmediate(() => this.notify())
  }

  #resume(): void {
    if (this.#isLost || this.#namesGone()) {
      this.#harvest()
      const slots = this.#slots
      const before = slots.pending
      this.#dropGone()
      // A head that moves while the queue is on is not defined: only where it must, when it is off.
      if (!this.#isLost && slots.pending < before) this.#rewind()
    }
    if (!this.#isLost) return this.queue.start()
    this.#slots.refill()
    this.#isLost = false
    this.queue.start()
    if (this.#slots.pending > 0) this.queue.tell(this.#slots.tail)
  }

  /** Cheap where nothing is unmapped but what moves: this is part of every pause. */
  #namesGone(): boolean {
    const { table } = this.#host
    if (table.unmapped === 0 && table.removals === this.#removals) return false
    this.#removals = table.removals
    const slots = this.#slots
    const { pending } = slots
    for (let i = 0; i < pending; i++) {
      if (!table.isMapped(slots.rows.ids[slots.slot(i)] ?? 0)) return true
    }
    return false
  }

  /** Takes what the device has finished off the ring. */
  #harvest(): void {
    const { done } = this.#slots
    if (done === 0) return
    const out = new Completions(done)
    const count = this.#reapRing(out)
    for (let i = 0; i < count; i++) {
      const [cookie, result, status] = [out.cookie[i] ?? 0, out.result[i] ?? 0, out.status[i] ?? 0]
      this.#finished.push({ cookie, result, status })
    }
  }

  /**
   * The device is about to be reset, or has been: sees what it has finished
   * (that is in our memory) and what it had begun.
   */
  beforeReset(isSound: boolean): void {
    this.#harvest()
    const slots = this.#slots
    if (this.queue.repeatable || slots.pending === 0) return
    const begun = this.#begun(isSound)
    for (let i = 0; i < begun; i++) this.#finish(slots.slot(i), Status.OUTCOME_UNKNOWN)
    slots.drop(begun)
    setImmediate(() => this.notify())
  }

  #begun(isSound: boolean): number {
    if (this.#isLost) return 0
    // What a lost device had begun is anybody's guess.
    const { head, pending, entries } = this.#slots
    if (!isSound) return pending
    return Math.min((this.queue.next() - head) & (entries - 1), pending)
  }

  /**
   * The device has been reset, and its rings are empty. A channel that is
   * stopped gets its work back at its restart: what it names may be unmapped.
   */
  afterReset(): void {
    if (this.#closed) return
    this.#rewind()
    if (this.#running) this.#resume()
    if (this.#armed) {
      this.queue.arm()
      this.notify()
    }
  }

  #finish(slot: number, status: number): void {
    this.#finished.push({ cookie: this.#slots.rows.cookies[slot] ?? 0, result: 0, status })
  }

  /** Finishes what names an attachment that is gone. */
  #dropGone(): void {
    const { table } = this.#host
    const slots = this.#slots
    const { rows, pending } = slots
    let kept = 0
    for (let i = 0; i < pending; i++) {
      const slot = slots.slot(i)
      if (table.isMapped(rows.ids[slot] ?? 0)) rows.move(slot, slots.slot(kept++))
      else this.#finish(slot, Status.NOT_MAPPED)
    }
    slots.pending = kept
  }

  /** An empty ring, beginning at slot 0, for what is held; the queue is off. */
  #rewind(): void {
    this.#slots.rewind()
    this.queue.setUp()
    this.#isLost = true
  }

  close(): void {
    if (this.#closed) return
    this.#running = false
    const isQuiet = this.#isQuiet()
    this.#closed = true
    // The memory may go as soon as this has returned.
    if (!isQuiet) this.#host.reset('work was given up')
    this.#slots.close()
    this.queue.close()
    this.#finished = []
    this.#host.hold(this.queue.name, false)
    this.#host.forget(this)
    this.#pollQuiet()
    if (this.#options.onClosed !== undefined) queueMicrotask(this.#options.onClosed)
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

/** What is behind a channel over one ring of a device: what all rings have in common. */
import { Completions, Status } from '../../move-notify/importer/batch.js'
import type { Backend, QueueChannel } from '../queue/channel.js'
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
  forget(backend: RingBackend): void
}

/** A completion that the ring does not hold any more. */
interface Finished {
  cookie: number
  result: number
  status: number
}

export class RingBackend implements Backend {
  readonly channel: QueueChannel
  readonly queue: RingQueue
  /** What the device had when it was reset counts as the new epoch's, or as unknown. */
  readonly stale = 0
  readonly #host: RingHost
  readonly rows: RingSlots
  #finished: Finished[] = []
  /** The table's count of removals when the ring was last looked through. */
  #removals = 0
  /** The device has lost the ring: what is held has to be written again before it starts. */
  #isLost = false
  /** It is being looked whether the queue is quiet. */
  #isPolling = false

  constructor(host: RingHost, queue: RingQueue, channel: QueueChannel) {
    this.channel = channel
    this.queue = queue
    this.#host = host
    const { name, operations } = queue
    this.rows = new RingSlots({ queue: name, operations }, queue.ring, host.table)
  }

  get unmatched(): number {
    return this.rows.unmatched
  }

  /** What ended before an older one counts until that has ended, too: it keeps its place. */
  get inFlight(): number {
    return this.rows.pending + this.#finished.length
  }

  /**
   * While the device is being reset nothing is told: it is after the reset. QEMU
   * before version 8 takes an rx tail as "ready" even where the receiver is off
   * (and 4.6.5 of the 82574's datasheet wants it on first), so it is told when
   * the queue is on: a channel that is stopped accepts nothing.
   */
  post(first: number, count: number): number {
    const room = this.channel.depth - this.inFlight
    return this.rows.post(first, count, room, !this.#host.isDown)
  }

  reap(out: Completions): number {
    if (this.#finished.length > 0) return this.#reapFinished(out)
    return this.#host.isDown ? 0 : this.#reapRing(out)
  }

  #reapRing(out: Completions): number {
    const count = this.rows.reap()
    if (this.rows.wrong > 0) {
      for (let i = 0; i < count; i++) {
        if (out.status[i] === Status.OK) continue
        out.result[i] = this.queue.errorCode(out.result[i] ?? 0)
      }
    }
    return count
  }

  #reapFinished(out: Completions): number {
    const taken = this.#finished.splice(0, out.capacity)
    taken.forEach(({ cookie, result, status }, i) => {
      out.cookie[i] = cookie
      out.result[i] = result
      out.status[i] = status
      out.epoch[i] = this.rows.epoch
    })
    return taken.length
  }

  hasNews(): boolean {
    if (this.#finished.length > 0) return true
    return !this.#host.isDown && this.rows.done > 0
  }

  /** After what is finished without an interrupt, or a vector that something else had raised. */
  listen(): void {
    if (!this.#host.isDown) this.queue.arm()
  }

  hold(hold: boolean): void {
    this.#host.hold(this.queue.name, hold)
  }

  isUsed(id: number): boolean {
    return this.rows.isUsed(id)
  }

  /** Mostly the device is quiet here at once; else it says nothing, and is asked each ms. */
  stop(): boolean {
    if (this.#isQuiet()) return true
    if (!this.#isPolling) setImmediate(() => this.#poll())
    this.#isPolling = true
    return false
  }

  #poll(): void {
    this.channel.look()
    this.#isPolling = this.channel.state === 'stopping'
    if (this.#isPolling) setTimeout(() => this.#poll(), 1)
  }

  #isQuiet(): boolean {
    // What a device has lost it has not been given again.
    if (this.#host.isDown || this.#isLost) return true
    const slots = this.rows
    // The device has reported all of what drains, and says so itself.
    if (this.queue.drains && !slots.isIdle) return false
    return this.queue.stop(slots.tail)
  }

  force(next: number): number {
    this.#host.reset(`the queue ${this.queue.name} did not stop`)
    this.rows.epoch = next
    return next
  }

  restart(): void {
    if (!this.#host.isDown) this.#resume()
  }

  #resume(): void {
    if (this.#isLost || this.#namesGone()) {
      this.#harvest()
      const slots = this.rows
      const before = slots.pending
      this.#dropGone()
      // A head that moves while the queue is on is not defined: only where it must, when it is off.
      if (!this.#isLost && slots.pending < before) this.#rewind()
    }
    if (!this.#isLost) return this.queue.start()
    this.rows.refill()
    this.#isLost = false
    this.queue.start()
    if (this.rows.pending > 0) this.queue.tell(this.rows.tail)
  }

  /** Cheap where nothing is unmapped but what moves: this is part of every pause. */
  #namesGone(): boolean {
    const { table } = this.#host
    if (table.unmapped === 0 && table.removals === this.#removals) return false
    this.#removals = table.removals
    const slots = this.rows
    const { pending } = slots
    for (let i = 0; i < pending; i++) {
      if (!table.isMapped(slots.rows.ids[slots.slot(i)] ?? 0)) return true
    }
    return false
  }

  /** Takes what the device has finished off the ring. */
  #harvest(): void {
    const { done } = this.rows
    if (done === 0) return
    const out = new Completions(done)
    this.rows.columns.useCompletions(out)
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
    const slots = this.rows
    slots.tells = false
    this.#harvest()
    if (this.queue.repeatable || slots.pending === 0) return
    const begun = this.#begun(isSound)
    for (let i = 0; i < begun; i++) {
      const slot = slots.slot(i)
      if (!slots.rows.isReaped(slot)) this.#finish(slot, Status.OUTCOME_UNKNOWN)
    }
    slots.drop(begun)
    setImmediate(() => this.channel.notify())
  }

  #begun(isSound: boolean): number {
    if (this.#isLost) return 0
    // What a lost device had begun is anybody's guess.
    const { head, pending, entries } = this.rows
    const next = isSound ? this.queue.next?.() : undefined
    if (next === undefined) return pending
    return Math.min((next - head) & (entries - 1), pending)
  }

  /**
   * The device has been reset, and its rings are empty. A channel that is
   * stopped gets its work back at its restart: what it names may be unmapped.
   */
  afterReset(): void {
    this.#rewind()
    if (this.channel.state === 'running') this.#resume()
    this.channel.notify()
  }

  #finish(slot: number, status: number): void {
    this.#finished.push({ cookie: this.rows.rows.cookies[slot] ?? 0, result: 0, status })
  }

  /** Finishes what names an attachment that is gone; what has been reaped has no place any more. */
  #dropGone(): void {
    const { table } = this.#host
    const slots = this.rows
    const { rows, pending } = slots
    let kept = 0
    for (let i = 0; i < pending; i++) {
      const slot = slots.slot(i)
      if (rows.isReaped(slot)) continue
      if (table.isMapped(rows.ids[slot] ?? 0)) rows.move(slot, slots.slot(kept++))
      else this.#finish(slot, Status.NOT_MAPPED)
    }
    slots.pending = kept
  }

  /** An empty ring, beginning at slot 0, for what is held; the queue is off. */
  #rewind(): void {
    this.rows.rewind()
    this.rows.tells = true
    this.queue.setUp()
    this.#isLost = true
  }

  close(): void {
    // The memory may go as soon as this has returned.
    if (!this.#isQuiet()) this.#host.reset('work was given up')
    this.rows.close()
    this.queue.close()
    this.#finished = []
    this.#host.forget(this)
  }
}

/** A channel over one ring of a device: what all rings have in common. */
import { P2pdmaError, checkInteger, closedError, typeError } from '../../errors.js'
import { Batch, Completions, Op, Status } from '../../move-notify/batch.js'
import type { EngineChannel, EngineChannelOptions } from '../../move-notify/engine.js'
import type { RingQueue } from './driver.js'
import type { MappingTable } from './mapping-table.js'
import { RingRows, type RowsWritten, type RowTarget, writeRows } from './ring-rows.js'

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
  readonly #mask: number
  readonly #rows: RingRows
  readonly #target: RowTarget
  readonly #written: RowsWritten = { count: 0 }
  /** The oldest slot that has not been reaped, and how many from there the device has. */
  #head = 0
  #pending = 0
  #finished: Finished[] = []
  #epoch = 1
  /** The table's count of removals when the ring was last looked through. */
  #removals = 0
  #running = true
  #closed = false
  #armed = false
  /** The device has lost the ring: what is held has to be written again before it starts. */
  #isLost = false
  /** Called back when it is seen that the queue is quiet. */
  #stopping: (() => void)[] = []

  constructor(host: RingHost, queue: RingQueue, entries: number, options: EngineChannelOptions) {
    this.depth = options.depth
    this.queue = queue
    this.#host = host
    this.#options = options
    this.#mask = entries - 1
    const rows = new RingRows(entries)
    const isSend = queue.op === Op.SEND
    this.#rows = rows
    this.#target = { queue, rows, table: host.table, isSend, mask: entries - 1 }
  }

  get inFlight(): number {
    return this.#pending + this.#finished.length
  }

  get closed(): boolean {
    return this.#closed
  }

  post(batch: Batch, first: number, count: number): number {
    if (this.#closed) throw closedError('The channel')
    if (!(batch instanceof Batch)) throw typeError('batch', 'a Batch', batch)
    checkInteger('first', first, 0, batch.capacity)
    checkInteger('count', count, 0, batch.capacity - first)
    if (!this.#running) return 0
    const room = this.depth - this.#pending - this.#finished.length
    const rows = count < room ? count : room
    const written = this.#written
    written.count = 0
    try {
      const slot = (this.#head + this.#pending) & this.#mask
      writeRows(this.#target, batch, first, rows, slot, written)
    } finally {
      if (written.count > 0) {
        this.#pending += written.count
        if (!this.#host.isDown) this.queue.ring((this.#head + this.#pending) & this.#mask)
      }
    }
    return written.count
  }

  reap(out: Completions): number {
    if (this.#closed) throw closedError('The channel')
    if (!(out instanceof Completions)) throw typeError('out', 'Completions', out)
    let count = this.#finished.length > 0 ? this.#reapFinished(out) : 0
    if (this.#host.isDown) return count
    const mask = this.#mask
    const room = out.capacity - count
    const most = this.#pending < room ? this.#pending : room
    // Sends are done by batches: more may be than there is room for.
    const taken = Math.min(most, this.queue.done(this.#head, most))
    const kept = this.#rows.cookies
    const epoch = this.#epoch
    const { queue } = this
    const { cookie, result: results, status, epoch: epochs } = out
    let slot = this.#head
    for (const end = count + taken; count < end; count++) {
      const result = queue.result(slot)
      cookie[count] = kept[slot] ?? 0
      results[count] = result < 0 ? -result : result
      status[count] = result < 0 ? Status.DEVICE_ERROR : Status.OK
      epochs[count] = epoch
      slot = (slot + 1) & mask
    }
    this.#head = slot
    this.#pending -= taken
    return count
  }

  #reapFinished(out: Completions): number {
    const taken = this.#finished.splice(0, out.capacity)
    taken.forEach(({ cookie, result, status }, i) => {
      out.cookie[i] = cookie
      out.result[i] = result
      out.status[i] = status
      out.epoch[i] = this.#epoch
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
    return !this.#host.isDown && this.queue.done(this.#head, this.#pending) > 0
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
    for (let i = 0; i < this.#pending; i++) {
      if (this.#rows.ids[(this.#head + i) & this.#mask] === id) return true
    }
    return false
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
    return this.#closed || this.#host.isDown || this.queue.stop()
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
    this.#epoch++
    this.#pollQuiet()
    return this.#epoch
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
      const before = this.#pending
      this.#dropGone()
      // A head that moves while the queue is on is not defined: only where it must, when it is off.
      if (!this.#isLost && this.#pending < before) this.#rewind()
      if (this.#isLost) this.#refill()
    }
    this.queue.start()
  }

  /** Cheap where nothing is unmapped but what moves: this is part of every pause. */
  #namesGone(): boolean {
    const { table } = this.#host
    if (table.unmapped === 0 && table.removals === this.#removals) return false
    this.#removals = table.removals
    for (let i = 0; i < this.#pending; i++) {
      if (!table.isMapped(this.#rows.ids[(this.#head + i) & this.#mask] ?? 0)) return true
    }
    return false
  }

  /** Takes what the device has finished off the ring. */
  #harvest(): void {
    for (let done = this.queue.done(this.#head, this.#pending); done > 0; done--) {
      const result = this.queue.result(this.#head)
      const status = result < 0 ? Status.DEVICE_ERROR : Status.OK
      this.#finish(this.#head, status, Math.abs(result))
      this.#advance()
    }
  }

  /**
   * The device is about to be reset, or has been: sees what it has finished
   * (that is in our memory) and what it had begun.
   */
  beforeReset(isSound: boolean): void {
    this.#harvest()
    if (this.queue.repeatable || this.#pending === 0) return
    for (let i = this.#begun(isSound); i > 0; i--) {
      this.#finish(this.#head, Status.OUTCOME_UNKNOWN, 0)
      this.#advance()
    }
    setImmediate(() => this.notify())
  }

  #begun(isSound: boolean): number {
    if (this.#isLost) return 0
    // What a lost device had begun is anybody's guess.
    if (!isSound) return this.#pending
    return Math.min((this.queue.next() - this.#head) & this.#mask, this.#pending)
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

  #advance(): void {
    this.#head = (this.#head + 1) & this.#mask
    this.#pending--
  }

  #finish(slot: number, status: number, result: number): void {
    this.#finished.push({ cookie: this.#rows.cookies[slot] ?? 0, result, status })
  }

  /** Finishes what names an attachment that is gone. */
  #dropGone(): void {
    const { table } = this.#host
    const before = this.#pending
    let kept = 0
    for (let i = 0; i < before; i++) {
      const slot = (this.#head + i) & this.#mask
      if (table.isMapped(this.#rows.ids[slot] ?? 0))
        this.#rows.move(slot, (this.#head + kept++) & this.#mask)
      else this.#finish(slot, Status.NOT_MAPPED, 0)
    }
    this.#pending = kept
  }

  /** An empty ring, beginning at slot 0, for what is held; the queue is off. */
  #rewind(): void {
    this.#rows.rewind(this.#head, this.#pending)
    this.#head = 0
    this.queue.setUp()
    this.#isLost = true
  }

  /** Writes what is held into the ring, resolved as of now. */
  #refill(): void {
    const { table } = this.#host
    const { ids, offsets, lengths } = this.#rows
    for (let slot = 0; slot < this.#pending; slot++) {
      const base = table.iovas[table.find(ids[slot] ?? 0)] ?? 0
      this.queue.write(slot, base + (offsets[slot] ?? 0), lengths[slot] ?? 0)
    }
    this.#isLost = false
    if (this.#pending > 0) this.queue.ring(this.#pending)
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#running = false
    // The memory may go as soon as this has returned.
    if (!this.#host.isDown && !this.queue.stop()) this.#host.reset('work was given up')
    this.queue.close()
    this.#pending = 0
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

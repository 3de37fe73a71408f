/** A channel over one connected queue pair: rows in, work requests out, and back. */
import { P2pdmaError, checkInteger, closedError, typeError } from '../../errors.js'
import {
  SendBatch,
  SendFlag,
  SendOp,
  ReceiveBatch,
  WcFlag,
  WcStatus,
  WorkCompletions,
} from '../../kernel/verbs/index.js'
import { Batch, Completions, Op, Status } from '../../move-notify/batch.js'
import type { EngineChannel, EngineChannelOptions } from '../../move-notify/engine.js'
import { type Queue, VOID } from './queue.js'
import { Reach, type Region, type Regions } from './regions.js'
import { checkRow } from './row-check.js'
import { Rows, Stage } from './rows.js'

/** What the channel asks of its engine. */
export interface ChannelHost {
  readonly regions: Regions
  /** Bytes. */
  readonly maxMessage: number
  /** While true, completions of this channel keep the process alive. */
  hold(channel: object, hold: boolean): void
  forget(channel: VerbsChannel): void
}

/** Kinds of work request, in the lowest bits of a request's id. */
const Kind = { SEND: 0, RECEIVE: 1, VOID: 2 } as const
const POSITIONS = 2 ** 30
const LIVES = 2 ** 20

/** Receives that the peer's answer to a pause has not used up by then go with a reset, ms. */
const FLUSH_MS = 200

/** Rows handed over in one native call at most. */
const PIECE = 256

export class VerbsChannel implements EngineChannel {
  readonly depth: number
  readonly stale = 0
  readonly #host: ChannelHost
  readonly #queue: Queue
  readonly #options: EngineChannelOptions
  readonly #sends: Rows
  readonly #receives: Rows
  readonly #sendBatch: SendBatch
  readonly #receiveBatch: ReceiveBatch
  readonly #polled: WorkCompletions
  /** Of this life: positions of the messages handed over that are not done; a void is -1. */
  #messages: { index: number; position: number }[] = []
  #voids = 0
  #epoch = 1
  #running = true
  #closed = false
  #armed = false
  #isPolling = false
  /** Looked at after every completion; those that have come true go. */
  #waiting: { isTrue: () => boolean; resolve: () => void }[] = []

  constructor(host: ChannelHost, queue: Queue, options: EngineChannelOptions) {
    const { depth } = options
    this.depth = depth
    this.#host = host
    this.#queue = queue
    this.#options = options
    this.#sends = new Rows(depth)
    this.#receives = new Rows(depth)
    const piece = Math.min(depth, PIECE)
    this.#sendBatch = new SendBatch(piece)
    this.#receiveBatch = new ReceiveBatch(piece)
    this.#polled = new WorkCompletions(64)
    queue.channel = this
  }

  get inFlight(): number {
    return this.#sends.size + this.#receives.size
  }

  get closed(): boolean {
    return this.#closed
  }

  // --- rows in ---

  post(batch: Batch, first: number, count: number): number {
    if (this.#closed) throw closedError('The channel')
    if (!(batch instanceof Batch)) throw typeError('batch', 'a Batch', batch)
    checkInteger('first', first, 0, batch.capacity)
    checkInteger('count', count, 0, batch.capacity - first)
    if (this.#queue.error !== null) throw this.#queue.error
    if (!this.#running) return 0
    const { regions, maxMessage } = this.#host
    const limits = { regions, maxMessage, queue: this.#queue }
    const room = Math.min(count, this.depth - this.inFlight)
    let accepted = 0
    try {
      while (accepted < room && checkRow(limits, batch, first + accepted, accepted)) {
        const row = first + accepted++
        ;(batch.op[row] === Op.RECEIVE ? this.#receives : this.#sends).push(batch, row)
      }
    } finally {
      if (accepted > 0) this.pump()
    }
    return accepted
  }

  /** Hands over what may be: called whenever something has changed that it waited for. */
  pump(): void {
    if (this.#closed || !this.#running || !this.#queue.isReady) return
    this.#handReceives()
    if (!this.#queue.isPausedByPeer) this.#handSends()
  }

  #handReceives(): void {
    const rows = this.#receives
    const batch = this.#receiveBatch
    let handed = 0
    while (rows.next < rows.tail) {
      let count = 0
      const first = rows.next
      while (count < batch.capacity && first + count < rows.tail) {
        const slot = rows.slot(first + count)
        const region = this.#host.regions.get(rows.target[slot] ?? 0)
        if (region === undefined || region.reach === Reach.NONE) break
        batch.wrId[count] = this.#requestId(Kind.RECEIVE, first + count)
        batch.address[count] = region.iova + (rows.targetOffset[slot] ?? 0)
        batch.length[count] = rows.length[slot] ?? 0
        batch.lkey[count] = region.key
        count++
      }
      if (count === 0) {
        rows.finish(rows.next++, Status.NOT_MAPPED, 0)
        this.#newsLater()
        continue
      }
      const accepted = this.#post(() => this.#queue.parts.qp.postReceive(batch, 0, count))
      for (let i = 0; i < accepted; i++) rows.markHanded(rows.next++)
      handed += accepted
      if (accepted < count) break
    }
    if (handed === 0) return
    this.#queue.posted += handed
    this.#queue.tellCredit()
  }

  #handSends(): void {
    const rows = this.#sends
    const batch = this.#sendBatch
    while (rows.next < rows.tail) {
      let count = 0
      const first = rows.next
      let messages = 0
      while (count < batch.capacity && first + count < rows.tail) {
        const slot = rows.slot(first + count)
        if (rows.stage[slot] !== Stage.HELD) break
        const isMessage = rows.op[slot] === Op.SEND
        // A drain must not wait for the peer's receives.
        if (isMessage && this.#queue.sent + messages >= this.#queue.credit) break
        if (!this.#fillSend(count, slot, first + count)) break
        if (isMessage) messages++
        count++
      }
      if (count === 0) {
        const slot = rows.slot(first)
        if (rows.stage[slot] !== Stage.HELD) rows.next++
        else if (this.#isGone(slot)) {
          rows.finish(rows.next++, Status.NOT_MAPPED, 0)
          this.#newsLater()
        } else return
        continue
      }
      const accepted = this.#post(() => this.#queue.parts.qp.post(batch, 0, count))
      for (let i = 0; i < accepted; i++) {
        const position = rows.next++
        if (rows.op[rows.slot(position)] === Op.SEND) {
          this.#messages.push({ index: this.#queue.sent++, position })
        }
        rows.markHanded(position)
      }
      if (accepted < count) return
    }
  }

  #isGone(slot: number): boolean {
    const rows = this.#sends
    const op = rows.op[slot]
    const gone = (id: number | undefined) =>
      (this.#host.regions.get(id ?? 0)?.reach ?? Reach.NONE) === Reach.NONE
    return (
      ((op === Op.COPY || op === Op.SEND) && gone(rows.source[slot])) ||
      (op !== Op.SEND && gone(rows.target[slot]))
    )
  }

  #fillSend(at: number, slot: number, position: number): boolean {
    if (this.#isGone(slot)) return false
    const rows = this.#sends
    const batch = this.#sendBatch
    const { regions } = this.#host
    const op = rows.op[slot]
    const source = regions.get(rows.source[slot] ?? 0)
    const target = regions.get(rows.target[slot] ?? 0)
    const from = (rows.sourceOffset[slot] ?? 0) + (source?.iova ?? 0)
    const to = (rows.targetOffset[slot] ?? 0) + (target?.iova ?? 0)
    batch.wrId[at] = this.#requestId(Kind.SEND, position)
    batch.flags[at] = SendFlag.SIGNALED
    batch.length[at] = rows.length[slot] ?? 0
    batch.immediate[at] = 0
    if (op === Op.FETCH_ADD) {
      const { scratch } = this.#queue.parts
      batch.opcode[at] = SendOp.ATOMIC_FETCH_AND_ADD
      batch.address[at] = scratch.iova + slot * 8
      batch.lkey[at] = scratch.lkey
      batch.compareAdd[at] = rows.operand[slot] ?? 0
      this.#remote(at, to, target)
    } else if (op === Op.COPY && source?.queue !== null) {
      batch.opcode[at] = SendOp.RDMA_READ
      this.#local(at, to, target)
      this.#remote(at, from, source)
    } else {
      batch.opcode[at] = op === Op.SEND ? SendOp.SEND : SendOp.RDMA_WRITE
      this.#local(at, from, source)
      if (op === Op.COPY) this.#remote(at, to, target)
    }
    return true
  }

  #local(at: number, address: number, region: Region | undefined): void {
    this.#sendBatch.address[at] = address
    this.#sendBatch.lkey[at] = region?.key ?? 0
  }

  #remote(at: number, address: number, region: Region | undefined): void {
    this.#sendBatch.remoteAddress[at] = address
    this.#sendBatch.rkey[at] = region?.key ?? 0
  }

  #requestId(kind: number, position: number): number {
    return ((this.#queue.life % LIVES) * POSITIONS + (position % POSITIONS)) * 4 + kind
  }

  /** A queue pair that refuses is in ERR, or about to be. */
  #post(call: () => number): number {
    try {
      return call()
    } catch {
      this.#queue.break()
      return 0
    }
  }

  // --- completions out ---

  /** Takes what the queue pair has completed. */
  #poll(): number {
    const { cq } = this.#queue.parts
    // An error found on the way has others look for more: the columns are this one's.
    if (cq.closed || this.#isPolling) return 0
    const polled = this.#polled
    this.#isPolling = true
    try {
      for (let total = 0; ;) {
        const count = cq.poll(polled)
        for (let row = 0; row < count; row++) this.#complete(row)
        total += count
        if (count < polled.capacity) return total
      }
    } finally {
      this.#isPolling = false
    }
  }

  #complete(row: number): void {
    const polled = this.#polled
    const id = polled.wrId[row] ?? 0
    const kind = id % 4
    const life = Math.floor(id / (4 * POSITIONS))
    if (life !== this.#queue.life % LIVES) return
    const status = polled.status[row] ?? WcStatus.GENERAL_ERR
    const isGood = status === WcStatus.SUCCESS
    if (kind === Kind.VOID) {
      this.#voids--
      if (!isGood) this.#queue.break()
      return
    }
    const rows = kind === Kind.RECEIVE ? this.#receives : this.#sends
    const position = this.#positionOf(rows, Math.floor(id / 4) % POSITIONS)
    if (!isGood) return this.#failed(rows, position, status, kind)
    if (kind === Kind.SEND) this.#sent(position)
    else this.#arrived(row, position)
  }

  /** Positions in ids are cut off above. */
  #positionOf(rows: Rows, low: number): number {
    const base = rows.head - (rows.head % POSITIONS)
    return base + low < rows.head ? base + low + POSITIONS : base + low
  }

  #sent(position: number): void {
    const rows = this.#sends
    const slot = rows.slot(position)
    const op = rows.op[slot]
    if (op === Op.SEND) this.#forgetMessage(position)
    const value = op === Op.FETCH_ADD ? Number(this.#queue.parts.values[slot] ?? 0n) : 0
    rows.finish(position, Status.OK, op === Op.FETCH_ADD ? value : (rows.length[slot] ?? 0))
  }

  #forgetMessage(position: number): void {
    // A reliable connection completes them in their order.
    if (this.#messages[0]?.position === position) this.#messages.shift()
    else this.#messages = this.#messages.filter((each) => each.position !== position)
  }

  #arrived(row: number, position: number): void {
    const polled = this.#polled
    const hasImmediate = ((polled.flags[row] ?? 0) & WcFlag.WITH_IMM) !== 0
    this.#queue.received++
    if (hasImmediate && polled.immediate[row] === VOID) this.#receives.takeBack(position)
    else this.#receives.finish(position, Status.OK, polled.byteLength[row] ?? 0)
  }

  /** The first error breaks the queue pair; the others, flushed, are settled with the peer. */
  #failed(rows: Rows, position: number, status: number, kind: number): void {
    const slot = rows.slot(position)
    // Where either end has been forced, what is on its way meets memory that is
    // gone before the device has flushed it: it is done again, by its new key.
    const isOurs =
      this.#queue.isReady &&
      !this.#queue.isPausedByPeer &&
      status !== WcStatus.WR_FLUSH_ERR &&
      status !== WcStatus.RETRY_EXC_ERR &&
      status !== WcStatus.RNR_RETRY_EXC_ERR
    if (isOurs) {
      if (kind === Kind.SEND && rows.op[slot] === Op.SEND) this.#forgetMessage(position)
      const isDead = status === WcStatus.REM_ACCESS_ERR || status === WcStatus.LOC_PROT_ERR
      rows.finish(position, isDead ? Status.FAULT : Status.DEVICE_ERROR, status)
    } else {
      // Not to be waited for any more; what is known of it comes with the reset.
      this.#flushed++
    }
    this.#queue.break()
  }

  /** Requests that have been flushed since the queue pair broke. */
  #flushed = 0

  /** Something was finished without a completion of the device's. */
  #newsLater(): void {
    setImmediate(() => this.#tell())
  }

  /** A completion has come, or may have: `CompletionQueue`'s event. */
  onEvent(): void {
    if (this.#closed) return
    this.#look()
  }

  #look(): void {
    this.#poll()
    const waiting = this.#waiting
    if (waiting.length > 0) {
      this.#waiting = waiting.filter((each) => !each.isTrue())
      for (const each of waiting) if (!this.#waiting.includes(each)) each.resolve()
    }
    this.#tell()
    if (this.#waiting.length > 0 || this.#armed) this.#listen()
    else this.#host.hold(this, false)
  }

  #tell(): void {
    if (!this.#armed || !this.#hasNews()) return
    this.#armed = false
    if (this.#waiting.length === 0) this.#host.hold(this, false)
    this.#options.onCompletion()
  }

  #hasNews(): boolean {
    return isDone(this.#sends) || isDone(this.#receives)
  }

  /** Asks for an event; what has come before it is looked at now. */
  #listen(): void {
    const { cq } = this.#queue.parts
    if (this.#closed || cq.closed) return
    this.#host.hold(this, true)
    cq.arm()
    if (this.#poll() > 0 || (this.#armed && this.#hasNews())) setImmediate(() => this.onEvent())
  }

  reap(out: Completions): number {
    if (this.#closed) throw closedError('The channel')
    if (!(out instanceof Completions)) throw typeError('out', 'Completions', out)
    this.#poll()
    const count = this.#take(this.#sends, out, 0)
    return this.#take(this.#receives, out, count)
  }

  #take(rows: Rows, out: Completions, from: number): number {
    let count = from
    while (count < out.capacity && isDone(rows)) {
      const slot = rows.slot(rows.head++)
      out.cookie[count] = rows.cookie[slot] ?? 0
      out.result[count] = rows.result[slot] ?? 0
      out.status[count] = rows.status[slot] ?? 0
      out.epoch[count] = this.#epoch
      count++
    }
    if (rows.next < rows.head) rows.next = rows.head
    return count
  }

  arm(): void {
    if (this.#closed) throw closedError('The channel')
    if (this.#armed) return
    this.#armed = true
    this.#listen()
  }

  uses(id: number): boolean {
    return this.#sends.names(id, true, true) || this.#receives.names(id, false, true)
  }

  // --- stop and restart ---

  #wait(isTrue: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push({ isTrue, resolve })
      this.#look()
    })
  }

  /**
   * What we send drains; what arrives is stopped by the peer, who is told: SQD
   * stops only the first (uapi: a remote write lands in SQD).
   */
  stop(): void | Promise<void> {
    if (this.#closed) throw closedError('The channel')
    this.#running = false
    this.#poll()
    const queue = this.#queue
    if (this.#isStill && !queue.isReachable) return
    return this.#stopBoth()
  }

  get #isStill(): boolean {
    return this.#sends.handed === 0 && this.#receives.handed === 0 && this.#voids === 0
  }

  async #stopBoth(): Promise<void> {
    const queue = this.#queue
    const told = queue.isReachable ? queue.pause() : undefined
    await this.#wait(() => this.#sends.handed === 0)
    if (told === undefined) return
    await told
    // The peer's empty messages have come before its answer, or there are none: it has no channel.
    const patience = setTimeout(() => queue.break(), FLUSH_MS)
    await this.#wait(() => this.#isStill)
    clearTimeout(patience)
  }

  /** The peer wants us to keep still, with its receives used up: what we sent drains. @internal */
  async drainFor(posted: number): Promise<void> {
    if (this.#closed) return
    await this.#wait(() => this.#sends.handed === 0 || !this.#queue.isReady)
    if (!this.#queue.isReady || this.#closed) return
    if (!this.#sendVoids(posted - this.#queue.sent)) return
    await this.#wait(() => this.#voids === 0 || !this.#queue.isReady)
  }

  #sendVoids(wanted: number): boolean {
    const batch = this.#sendBatch
    let left = wanted
    while (left > 0) {
      const count = Math.min(left, batch.capacity)
      for (let i = 0; i < count; i++) {
        batch.wrId[i] = this.#requestId(Kind.VOID, i)
        batch.opcode[i] = SendOp.SEND_WITH_IMM
        batch.flags[i] = SendFlag.SIGNALED
        batch.length[i] = 0
        batch.address[i] = this.#queue.parts.scratch.iova
        batch.lkey[i] = this.#queue.parts.scratch.lkey
        batch.immediate[i] = VOID
      }
      const accepted = this.#post(() => this.#queue.parts.qp.post(batch, 0, count))
      this.#voids += accepted
      this.#queue.sent += accepted
      left -= accepted
      if (accepted < count) return false
    }
    return true
  }

  force(): number {
    if (this.#closed) throw closedError('The channel')
    this.#running = false
    this.#epoch++
    this.#host.regions.isUnquiet = true
    this.#queue.break()
    return this.#epoch
  }

  /** Throws ERR_INVALID_STATE unless the channel is stopped. */
  restart(): void {
    if (this.#closed) throw closedError('The channel')
    if (this.#running) {
      throw new P2pdmaError('The channel is not stopped', { code: 'ERR_INVALID_STATE' })
    }
    this.#running = true
    this.#queue.resume()
    this.pump()
    if (this.#armed) this.#listen()
  }

  // --- errors ---

  /** Until everything that the broken queue pair had has been flushed. @internal */
  async drainErrors(): Promise<void> {
    let isOver = false
    const deadline = setTimeout(() => {
      isOver = true
      this.#look()
    }, 1000)
    const outstanding = () => this.#sends.handed + this.#receives.handed + this.#voids
    await this.#wait(() => outstanding() <= this.#flushed || isOver)
    clearTimeout(deadline)
  }

  /** The peer has received so many messages of this life; what it has not is ours again. @internal */
  settle(received: number): void {
    let delivered = -1
    for (const { index, position } of this.#messages) {
      if (index >= received) continue
      const slot = this.#sends.slot(position)
      this.#sends.finish(position, Status.OK, this.#sends.length[slot] ?? 0)
      delivered = position
    }
    this.#messages = []
    this.#voids = 0
    this.#flushed = 0
    const { head, tail } = this.#sends
    for (let position = head; position < tail; position++) {
      const slot = this.#sends.slot(position)
      if (this.#sends.stage[slot] !== Stage.HANDED) continue
      // Nobody counts atomics where they are done.
      if (this.#sends.op[slot] === Op.FETCH_ADD) {
        this.#sends.finish(position, Status.OUTCOME_UNKNOWN, 0)
      } else if (position < delivered && this.#isWrite(slot)) {
        // Done, in order: who was told of it by the message may have changed the memory since.
        this.#sends.finish(position, Status.OK, this.#sends.length[slot] ?? 0)
      } else this.#sends.takeBack(position)
    }
    for (let position = this.#receives.head; position < this.#receives.tail; position++) {
      this.#receives.takeBack(position)
    }
    this.#look()
  }

  #isWrite(slot: number): boolean {
    const { op, source } = this.#sends
    return op[slot] === Op.COPY && this.#host.regions.get(source[slot] ?? 0)?.queue == null
  }

  /** There is no peer any more. @internal */
  lost(): void {
    const end = (rows: Rows) => {
      for (let position = rows.head; position < rows.tail; position++) {
        const slot = rows.slot(position)
        const stage = rows.stage[slot]
        if (stage === Stage.DONE) continue
        const op = rows.op[slot]
        const isUnknown = stage === Stage.HANDED && (op === Op.SEND || op === Op.FETCH_ADD)
        const unbegun = op === Op.COPY || op === Op.FETCH_ADD ? Status.NOT_MAPPED : Status.CANCELLED
        rows.finish(position, isUnknown ? Status.OUTCOME_UNKNOWN : unbegun, 0)
      }
      rows.next = rows.tail
    }
    end(this.#sends)
    end(this.#receives)
    this.#voids = 0
    this.#look()
  }

  close(): void {
    if (this.#closed) return
    this.#running = false
    this.#closed = true
    this.#armed = false
    this.#host.hold(this, false)
    this.#host.forget(this)
    this.#queue.channel = null
    void this.#queue.close().catch(() => {})
    const waiting = this.#waiting
    this.#waiting = []
    for (const { resolve } of waiting) resolve()
    if (this.#options.onClosed !== undefined) queueMicrotask(this.#options.onClosed)
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

function isDone(rows: Rows): boolean {
  return rows.head < rows.tail && rows.stage[rows.slot(rows.head)] === Stage.DONE
}

/** A channel over one connected queue pair: rows in, work requests out, and back. */
import { WorkKind } from '../../abi.js'
import { P2pdmaError, checkInteger, closedError, typeError } from '../../errors.js'
import { WcStatus, wcStatusName } from '../../kernel/verbs/index.js'
import { Batch, type Completions, Status } from '../../move-notify/importer/batch.js'
import { withDeadline } from '../../move-notify/reservation/deadline.js'
import type { EngineChannel, EngineChannelOptions } from '../../move-notify/importer/engine.js'
import type { LifeOutcome } from './progress.js'
import type { Queue } from './queue.js'
import type { RegionTable } from './region-table.js'
import { abandon, settle } from './settle.js'
import { Stall } from './stall.js'
import { WorkQueues } from './work-queues.js'

/** What the channel asks of its engine. */
export interface ChannelHost {
  readonly table: RegionTable
  /** Bytes. */
  readonly maxMessage: number
  /** From now on a deregistration may have to wait for the device. */
  onForced(): void
  /** While true, completions of this channel keep the process alive. */
  hold(channel: object, hold: boolean): void
  /** An event of another channel's queue has been taken. */
  tell(queue: number): void
  /** That the device has been given, over all queue pairs. */
  bytesUnderWay(): number
}

/** Receives that the peer's answer to a pause has not used up by then go with a reset, ms. */
const FLUSH_MS = 200

/**
 * A peer's device refuses. That of a peer that was killed does, too: its regions go before
 * its queue pairs and its connections do (drivers/infiniband/core/rdma_core.c,
 * uverbs_destroy_ufile_hw()).
 */
const REFUSALS: ReadonlySet<number> = new Set([
  WcStatus.REM_ACCESS_ERR,
  WcStatus.REM_OP_ERR,
  WcStatus.REM_INV_REQ_ERR,
])

/**
 * How often one who waits for messages only looks for errors, ms: soft-RoCE does not
 * wake him for them, as a NIC does (drivers/infiniband/sw/rxe: rxe_cq_post() with 0).
 */
const LOOK_MS = 100

/** What has been flushed by then is all that is waited for, ms. */
const ERRORS_MS = 1000

export class VerbsChannel implements EngineChannel {
  readonly depth: number
  readonly stale = 0
  readonly #host: ChannelHost
  readonly #queue: Queue
  readonly #options: EngineChannelOptions
  readonly #work: WorkQueues
  readonly #stall: Stall
  /** Requests that have been flushed since the queue pair broke. */
  #flushed = 0
  /** What the peer's device refused: for cause, if the peer is there to answer the reset. */
  #refused: { position: number; status: number } | null = null
  /** Rows that had ended when this life of the queue pair began. */
  #ended = 0
  /** Something that was sent in this life, beside rows, has failed. */
  #voidFailed = false
  #running = true
  #closed = false
  #armed = false
  /** What was sent and is done is not told. */
  #arrivalsOnly = false
  #errorLook: NodeJS.Timeout | null = null
  #isHeld = false
  /** Looked at after every completion; those that have come true go. */
  #waiting: { isTrue: () => boolean; resolve: () => void }[] = []

  constructor(host: ChannelHost, queue: Queue, options: EngineChannelOptions) {
    const { depth } = options
    this.depth = depth
    this.#host = host
    this.#queue = queue
    this.#options = options
    const { parts, counts } = queue
    this.#work = new WorkQueues(parts, counts, host.table, host.maxMessage, depth, {
      onUse: options.onUse,
      onCredit: () => queue.tellCredit(),
      onRefused: () => queue.break('a request refused'),
      // Nobody is told within a call of his own.
      onGone: () => void setImmediate(() => this.#tell()),
      onBad: (kind, position, status) => this.#failed(kind, position, status),
    })
    this.#stall = new Stall(queue.progress.limits.stallTimeoutMs, {
      look: () => this.#lookForStall(),
      bytesUnderWay: () => host.bytesUnderWay(),
      onStall: (ms) => queue.break(`nothing completed in ${ms} ms`),
    })
    queue.channel = this
  }

  get inFlight(): number {
    return this.#work.size
  }

  get unmatched(): number {
    return this.#queue.counts.unmatched
  }

  get closed(): boolean {
    return this.#closed
  }

  get endError(): Error | null {
    return this.#queue.error
  }

  // --- rows in ---

  post(batch: Batch, first: number, count: number): number {
    if (this.#closed) throw closedError('The channel')
    if (this.#running && this.#queue.error === null) {
      const accepted = this.#work.post(batch, first, count)
      this.#stall.watch()
      return accepted
    }
    if (!(batch instanceof Batch)) throw typeError('batch', 'a Batch', batch)
    checkInteger('first', first, 0, batch.capacity)
    checkInteger('count', count, 0, batch.capacity - first)
    if (this.#queue.error !== null) throw this.#queue.error
    return 0
  }

  /** Hands over what may be: called whenever something has changed that it waited for. */
  pump(): void {
    if (!this.#closed && this.#running) this.#work.hand()
  }

  // --- completions out ---

  /** Takes what the queue pair has completed. */
  #poll(): number {
    return this.#closed ? 0 : this.#work.poll()
  }

  /** The first error breaks the queue pair; the others, flushed, are settled with the peer. */
  #failed(kind: number, position: number, status: number): void {
    const queue = this.#queue
    // Where either end has been forced, what is on its way meets memory that is
    // gone before the device has flushed it: it is done again, by its new key.
    const isOurs =
      queue.counts.isReady &&
      !queue.counts.isPausedByPeer &&
      status !== WcStatus.WR_FLUSH_ERR &&
      status !== WcStatus.RETRY_EXC_ERR &&
      status !== WcStatus.RNR_RETRY_EXC_ERR
    // Soft-RoCE flushes at once what it cannot send, without another reason before it.
    if (status !== WcStatus.WR_FLUSH_ERR || queue.isReady) {
      queue.progress.note(wcStatusName(status))
    }
    if (kind === WorkKind.VOID) {
      this.#voidFailed ||= status !== WcStatus.WR_FLUSH_ERR
      return queue.break()
    }
    // Those that are not finished here are not waited for any more; what is known of
    // them comes with the reset.
    if (!isOurs) this.#flushed++
    else if (kind === WorkKind.SEND && REFUSALS.has(status)) {
      this.#flushed++
      this.#refused = { position, status }
    } else this.#finishBad(kind, position, status)
    queue.break()
  }

  #hold(hold: boolean): void {
    if (hold === this.#isHeld) return
    this.#isHeld = hold
    this.#host.hold(this, hold)
  }

  #finishBad(kind: number, position: number, status: number): void {
    const { sends, receives } = this.#work
    const isDead = status === WcStatus.REM_ACCESS_ERR || status === WcStatus.LOC_PROT_ERR
    const rows = kind === WorkKind.RECEIVE ? receives : sends
    rows.finish(position, isDead ? Status.FAULT : Status.DEVICE_ERROR, status)
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
    else this.#hold(false)
  }

  #tell(): void {
    if (!this.#armed || !this.#hasNews()) return
    this.#armed = false
    if (this.#waiting.length === 0) this.#hold(false)
    this.#options.onCompletion()
  }

  #hasNews(arrivalsOnly = this.#arrivalsOnly): boolean {
    const { sends, receives } = this.#work
    return receives.isOldestDone || (!arrivalsOnly && sends.isOldestDone)
  }

  /** Asks for an event; what has come before it is looked at now. */
  #listen(): void {
    if (this.#closed) return
    this.#hold(true)
    const isForAll = this.#waiting.length > 0 || !this.#arrivalsOnly
    const isMet = this.#work.listen(!isForAll) > 0 && isForAll
    if (isMet || (this.#armed && this.#hasNews())) setImmediate(() => this.onEvent())
    // It goes on until nobody waits so any more: one for each wait would cost more than the wait.
    if (!isForAll) this.#errorLook ??= setTimeout(() => this.#lookForErrors(), LOOK_MS).unref()
  }

  #lookForErrors(): void {
    this.#errorLook = null
    if (!this.#closed && this.#armed && this.#arrivalsOnly) this.#look()
  }

  reap(out: Completions): number {
    if (this.#closed) throw closedError('The channel')
    return this.#work.reap(out)
  }

  arm(arrivalsOnly = false): void {
    if (this.#closed) throw closedError('The channel')
    const only = this.#isOnly(arrivalsOnly)
    if (this.#armed && (only || !this.#arrivalsOnly)) return
    this.#armed = true
    this.#arrivalsOnly = only
    this.#listen()
  }

  wait(microseconds: number, arrivalsOnly: boolean): boolean {
    if (this.#closed) throw closedError('The channel')
    const only = this.#isOnly(arrivalsOnly)
    if (!this.#hasNews(only)) {
      // Whoever waits for all is told of all.
      const isForAll = !only || this.#waiting.length > 0 || (this.#armed && !this.#arrivalsOnly)
      let queue = 0
      do {
        queue = this.#work.wait(!isForAll, microseconds)
      } while (queue < 0 && !this.#closed && !this.#hasNews(only))
      if (queue > 0 && queue !== this.#queue.parts.cq.id) this.#host.tell(queue)
      if (this.#waiting.length > 0) setImmediate(() => this.onEvent())
    }
    // Before the caller takes it away: who waits on the event loop was here first.
    this.#tell()
    return !this.#closed && this.#hasNews(only)
  }

  /** Where nothing can arrive it is the sends that are waited for. */
  #isOnly(arrivalsOnly: boolean): boolean {
    return arrivalsOnly && this.#work.receives.size > 0
  }

  uses(id: number): boolean {
    return this.#work.sends.names(id) || this.#work.receives.names(id)
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
    return this.#outstanding === 0
  }

  async #stopBoth(): Promise<void> {
    const queue = this.#queue
    const told = queue.isReachable ? queue.pause() : undefined
    await this.#wait(() => this.#work.sends.handed === 0)
    if (told === undefined) return
    await told
    // The peer's empty messages have come before its answer, or there are none: it has no channel.
    const still = this.#wait(() => this.#isStill)
    await withDeadline(still, FLUSH_MS, late).catch(() => {
      this.#look()
      if (!this.#isStill) queue.break()
    })
    await still
  }

  /** What the queue pair has. */
  get #outstanding(): number {
    const { sends, receives } = this.#work
    return sends.handed + receives.handed + this.#queue.counts.voids
  }

  /** The peer wants us to keep still, with its receives used up: what we sent drains. @internal */
  async drainFor(posted: number): Promise<void> {
    if (this.#closed) return
    const { counts } = this.#queue
    await this.#wait(() => this.#work.sends.handed === 0 || !counts.isReady)
    if (!counts.isReady || this.#closed) return
    const missing = posted - counts.sent
    if (missing > 0 && !this.#work.sendVoids(missing)) return
    await this.#wait(() => counts.voids === 0 || !counts.isReady)
  }

  /** Until the queue pair has nothing of ours that names one of these. @internal */
  async drainOf(ids: readonly number[]): Promise<void> {
    this.pump()
    const { counts } = this.#queue
    const isOver = () => this.#closed || !counts.isReady
    await this.#wait(() => isOver() || !ids.some((id) => this.#work.sends.hasHanded(id)))
  }

  force(): number {
    if (this.#closed) throw closedError('The channel')
    this.#running = false
    this.#work.epoch++
    this.#host.onForced()
    this.#queue.break()
    return this.#work.epoch
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

  /**
   * The peer's device has refused a request: until ours has heard which. An atomic that is cut
   * off before is one of which nobody knows. @internal
   */
  hearRefusal(): Promise<void> {
    const { counts } = this.#queue
    return this.#waitForErrors(() => this.#work.sends.handed === 0 || !counts.isReady)
  }

  /** Until everything that the broken queue pair had has been flushed. @internal */
  drainErrors(): Promise<void> {
    return this.#waitForErrors(() => this.#outstanding <= this.#flushed)
  }

  async #waitForErrors(isTrue: () => boolean): Promise<void> {
    let isOver = false
    const come = this.#wait(() => isTrue() || isOver)
    await withDeadline(come, ERRORS_MS, late).catch(() => {
      isOver = true
      this.#look()
    })
  }

  /** Sent, and not completed. @internal */
  get bytesUnderWay(): number {
    return this.#work.sends.bytesHanded
  }

  #lookForStall(): { isUsed: boolean; isBusy: boolean; ended: number } {
    if (this.#closed) return { isUsed: false, isBusy: false, ended: 0 }
    const { sends, receives } = this.#work
    if (sends.handed > 0) this.#look()
    const isUsed = sends.size > 0
    const isBusy = sends.handed > 0 && this.#queue.isReady
    return { isUsed, isBusy, ended: sends.ended + receives.ended }
  }

  /** What this life of the queue pair has come to; asked before it is settled. @internal */
  get outcome(): LifeOutcome {
    const { sends, receives } = this.#work
    if (sends.ended + receives.ended > this.#ended) return 'progress'
    return sends.handed > 0 || this.#voidFailed ? 'fruitless' : 'idle'
  }

  /** The peer has received so many messages of this life; what it has not is ours again. @internal */
  settle(received: number): void {
    if (this.#refused !== null) {
      this.#finishBad(WorkKind.SEND, this.#refused.position, this.#refused.status)
    }
    settle(this.#work, received, this.#host.table)
    const { sends, receives } = this.#work
    this.#ended = sends.ended + receives.ended
    this.#forgetErrors()
  }

  /** There is no peer any more. @internal */
  lost(): void {
    abandon(this.#work)
    this.#forgetErrors()
  }

  #forgetErrors(): void {
    this.#queue.counts.forgetVoids()
    this.#flushed = 0
    this.#voidFailed = false
    this.#refused = null
    this.#look()
  }

  close(): void {
    if (this.#closed) return
    this.#running = false
    this.#closed = true
    this.#armed = false
    if (this.#errorLook !== null) clearTimeout(this.#errorLook)
    this.#stall.close()
    this.#hold(false)
    this.#work.close()
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

/** Only that it is: who waited goes on in another way. */
function late(): P2pdmaError {
  return new P2pdmaError('It takes too long', { code: 'ETIMEDOUT' })
}

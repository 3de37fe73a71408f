/** What is behind a channel over one connected queue pair: rows in, work requests out, and back. */
import { WorkKind } from '../../abi.js'
import { P2pdmaError } from '../../errors.js'
import { WcStatus, wcStatusName } from '../../kernel/verbs/index.js'
import { Status } from '../../move-notify/importer/batch.js'
import { withDeadline } from '../../move-notify/reservation/deadline.js'
import type { Backend, QueueChannel } from '../queue/channel.js'
import type { LifeOutcome } from './progress.js'
import type { Queue } from './queue.js'
import type { RegionTable } from './region-table.js'
import { abandon, settle } from './settle.js'
import { Stall } from './stall.js'
import { WorkQueues } from './work-queues.js'

/** What it asks of its engine. */
export interface VerbsHost {
  readonly table: RegionTable
  /** Bytes. */
  readonly maxMessage: number
  /** From now on a deregistration may have to wait for the device. */
  onForced(): void
  /** While true, completions of this queue pair keep the process alive. */
  hold(who: object, hold: boolean): void
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

export class VerbsBackend implements Backend {
  readonly stale = 0
  readonly #channel: QueueChannel
  readonly #host: VerbsHost
  readonly #queue: Queue
  readonly rows: WorkQueues
  readonly #stall: Stall
  /** Requests that have been flushed since the queue pair broke. */
  #flushed = 0
  /** What the peer's device refused: for cause, if the peer is there to answer the reset. */
  #refused: { position: number; status: number } | null = null
  /** Rows that had ended when this life of the queue pair began. */
  #ended = 0
  /** Something that was sent in this life, beside rows, has failed. */
  #voidFailed = false
  /** The stop that is going on, or has come to its end. */
  #stopping: { isOver: boolean } | null = null
  #errorLook: NodeJS.Timeout | null = null
  #isHeld = false
  /** Looked at after every completion; those that have come true go. */
  #waiting: { isTrue: () => boolean; resolve: () => void }[] = []

  constructor(host: VerbsHost, queue: Queue, channel: QueueChannel) {
    this.#channel = channel
    this.#host = host
    this.#queue = queue
    const { parts, counts } = queue
    this.rows = new WorkQueues(parts, counts, host.table, host.maxMessage, channel.depth, {
      onCredit: () => queue.tellCredit(),
      onRefused: () => queue.break('a request refused'),
      // Nobody is told within a call of his own.
      onGone: () => void setImmediate(() => channel.notify()),
      onBad: (kind, position, status) => this.#failed(kind, position, status),
    })
    this.#stall = new Stall(queue.progress.limits.stallTimeoutMs, {
      look: () => this.#lookForStall(),
      bytesUnderWay: () => host.bytesUnderWay(),
      onStall: (ms) => queue.break(`nothing completed in ${ms} ms`),
    })
    queue.backend = this
  }

  get inFlight(): number {
    return this.rows.size
  }

  get unmatched(): number {
    return this.#queue.counts.unmatched
  }

  get endError(): Error | null {
    return this.#queue.error
  }

  // --- rows in ---

  post(first: number, count: number): number {
    const accepted = this.rows.post(first, count)
    this.#stall.watch()
    return accepted
  }

  /** Hands over what may be: called whenever something has changed that it waited for. */
  pump(): void {
    if (this.#channel.state === 'running') this.rows.hand()
  }

  // --- completions out ---

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

  #finishBad(kind: number, position: number, status: number): void {
    const { sends, receives } = this.rows
    const isDead = status === WcStatus.REM_ACCESS_ERR || status === WcStatus.LOC_PROT_ERR
    const rows = kind === WorkKind.RECEIVE ? receives : sends
    this.rows.finish(rows, position, isDead ? Status.FAULT : Status.DEVICE_ERROR, status)
  }

  /** A completion has come, or may have: `CompletionQueue`'s event. */
  onEvent(): void {
    if (this.#channel.closed) return
    this.#look()
  }

  #look(): void {
    if (!this.#channel.closed) this.rows.poll()
    this.#channel.notify()
    // After it: who was told may have taken the last completion, of which no event comes any more.
    const waiting = this.#waiting
    if (waiting.length > 0) {
      this.#waiting = waiting.filter((each) => !each.isTrue())
      for (const each of waiting) if (!this.#waiting.includes(each)) each.resolve()
    }
    // Where somebody waits for completions it listens already.
    if (this.#waiting.length > 0 && this.#channel.awaited === 'nothing') this.listen(false)
    this.hold(this.#channel.awaited !== 'nothing')
  }

  /** Who waits here holds it, too. */
  hold(hold: boolean): void {
    const isHeld = hold || this.#waiting.length > 0
    if (isHeld === this.#isHeld) return
    this.#isHeld = isHeld
    this.#host.hold(this, isHeld)
  }

  get canArrive(): boolean {
    return this.rows.receives.size > 0
  }

  hasNews(arrivalsOnly: boolean): boolean {
    const { sends, receives } = this.rows
    return receives.isOldestDone || (!arrivalsOnly && sends.isOldestDone)
  }

  /** Who waits here is told of all. */
  listen(arrivalsOnly: boolean): void {
    if (this.#channel.closed) return
    const only = arrivalsOnly && this.#waiting.length === 0
    const polled = this.rows.listen(only)
    if (polled > 0 && this.#waiting.length > 0) setImmediate(() => this.onEvent())
    // It goes on until nobody waits so any more: one for each wait would cost more than the wait.
    if (only) this.#errorLook ??= setTimeout(() => this.#lookForErrors(), LOOK_MS).unref()
  }

  #lookForErrors(): void {
    this.#errorLook = null
    if (this.#channel.awaited === 'arrivals') this.#look()
  }

  reap(): number {
    return this.rows.reap()
  }

  wait(microseconds: number, arrivalsOnly: boolean): void {
    const channel = this.#channel
    // Whoever waits for all is told of all.
    const only = arrivalsOnly && this.#waiting.length === 0 && channel.awaited !== 'all'
    let queue = 0
    do {
      queue = this.rows.wait(only, microseconds)
    } while (queue < 0 && !channel.closed && !this.hasNews(arrivalsOnly))
    if (queue > 0 && queue !== this.#queue.parts.cq.id) this.#host.tell(queue)
    if (this.#waiting.length > 0) setImmediate(() => this.onEvent())
  }

  isUsed(id: number): boolean {
    return this.rows.sends.names(id) || this.rows.receives.names(id)
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
  stop(): boolean {
    if (this.#stopping !== null) return this.#stopping.isOver
    this.rows.poll()
    const queue = this.#queue
    const told = queue.isReachable ? queue.pause() : undefined
    if (told === undefined && this.#outstanding === 0) return true
    const stopping = { isOver: false }
    this.#stopping = stopping
    void this.#drain(told).then(() => {
      stopping.isOver = true
      this.#channel.look()
    })
    return false
  }

  async #drain(told: Promise<void> | undefined): Promise<void> {
    await this.#wait(() => this.rows.sends.handed === 0)
    if (told === undefined) return
    await told
    // The peer's empty messages have come before its answer, or there are none: it has no channel.
    const still = this.#wait(() => this.#outstanding === 0)
    await withDeadline(still, FLUSH_MS, late).catch(() => {
      this.#look()
      if (this.#outstanding > 0) this.#queue.break()
    })
    await still
  }

  /** What the queue pair has. */
  get #outstanding(): number {
    const { sends, receives } = this.rows
    return sends.handed + receives.handed + this.#queue.counts.voids
  }

  /** The peer wants us to keep still, with its receives used up: what we sent drains. @internal */
  async drainFor(posted: number): Promise<void> {
    if (this.#channel.closed) return
    const { counts } = this.#queue
    await this.#wait(() => this.rows.sends.handed === 0 || !counts.isReady)
    if (!counts.isReady || this.#channel.closed) return
    const missing = posted - counts.sent
    if (missing > 0 && !this.rows.sendVoids(missing)) return
    await this.#wait(() => counts.voids === 0 || !counts.isReady)
  }

  /** Until the queue pair has nothing of ours that names one of these. @internal */
  async drainOf(ids: readonly number[]): Promise<void> {
    this.pump()
    const { counts } = this.#queue
    const isOver = () => this.#channel.closed || !counts.isReady
    await this.#wait(() => isOver() || !ids.some((id) => this.rows.sends.hasHanded(id)))
  }

  force(next: number): number {
    this.rows.epoch = next
    this.#host.onForced()
    this.#queue.break()
    return next
  }

  restart(): void {
    this.#stopping = null
    this.#queue.resume()
    this.pump()
  }

  // --- errors ---

  /**
   * The peer's device has refused a request: until ours has heard which. An atomic that is cut
   * off before is one of which nobody knows. @internal
   */
  hearRefusal(): Promise<void> {
    const { counts } = this.#queue
    return this.#waitForErrors(() => this.rows.sends.handed === 0 || !counts.isReady)
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
    return this.rows.sends.bytesHanded
  }

  #lookForStall(): { isUsed: boolean; isBusy: boolean; ended: number } {
    if (this.#channel.closed) return { isUsed: false, isBusy: false, ended: 0 }
    const { sends, receives } = this.rows
    if (sends.handed > 0) this.#look()
    const isUsed = sends.size > 0
    const isBusy = sends.handed > 0 && this.#queue.isReady
    return { isUsed, isBusy, ended: sends.ended + receives.ended }
  }

  /** What this life of the queue pair has come to; asked before it is settled. @internal */
  get outcome(): LifeOutcome {
    const { sends, receives } = this.rows
    if (sends.ended + receives.ended > this.#ended) return 'progress'
    return sends.handed > 0 || this.#voidFailed ? 'fruitless' : 'idle'
  }

  /** The peer has received so many messages of this life; what it has not is ours again. @internal */
  settle(received: number): void {
    if (this.#refused !== null) {
      this.#finishBad(WorkKind.SEND, this.#refused.position, this.#refused.status)
    }
    settle(this.rows, received, this.#host.table)
    const { sends, receives } = this.rows
    this.#ended = sends.ended + receives.ended
    this.#forgetErrors()
  }

  /** There is no peer any more. @internal */
  lost(): void {
    abandon(this.rows)
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
    if (this.#errorLook !== null) clearTimeout(this.#errorLook)
    this.#stall.close()
    this.rows.close()
    this.#queue.backend = null
    void this.#queue.close().catch(() => {})
    const waiting = this.#waiting
    this.#waiting = []
    this.hold(false)
    for (const { resolve } of waiting) resolve()
  }
}

/** Only that it is: who waited goes on in another way. */
function late(): P2pdmaError {
  return new P2pdmaError('It takes too long', { code: 'ETIMEDOUT' })
}

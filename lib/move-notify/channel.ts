import { P2pdmaError, checkInteger, closedError } from '../errors.js'
import type { Attachment } from './attachment.js'
import { Op } from './batch.js'
import type { Batch, Completions } from './batch.js'
import { type ChannelEvent, type ChannelState, nextState } from './channel-states.js'
import { sleep, withDeadline, withSignal } from './deadline.js'
import type { EngineChannel } from './engine.js'
import type { Importer } from './importer.js'
import { Operation } from './operation.js'
import type { Completion, OperationOptions } from './operation.js'
import { OperationQueue } from './operation-queue.js'
import { type RestoreLimits, lockAndRestore } from './restore.js'
import { trace } from './trace.js'
import type { ChannelTransition } from './trace.js'
import { reservationClass } from './reservation.js'

export interface ChannelOptions {
  /** Operations in flight at most; a power of two. Default 256. */
  depth?: number
  /** Operations that may wait in the promise form. Default 65,536. */
  queueLimit?: number
}

/** What a channel needs of its importer's options. */
export interface ChannelLimits extends RestoreLimits {
  stopTimeoutMs: number
  minRunMs: number
  lockAll: boolean
  starvationLimit: number
}

/**
 * What can be stopped by itself: a queue pair, a ring. Runs, and is stopped and
 * restarted around the moves of the buffers it uses; see channel-states.ts.
 *
 * Two forms of work: a promise per operation (`copy`, `fill`, `fetchAdd`), or
 * batches in columns (`post`, `reap`), which the caller reaps. A channel is
 * used in one form.
 */
export class Channel {
  readonly importer: Importer
  readonly index: number
  readonly #device: EngineChannel
  readonly #limits: ChannelLimits
  readonly #queue: OperationQueue
  #batchForm = false
  #state: ChannelState = 'running'
  #epoch = 1
  /** The attachments it stopped for that have no new mapping yet: its invalid list. */
  readonly #blockers = new Set<Attachment>()
  /** The epoch of step 3.3: counts invalidations. */
  #invalidations = 0
  #quiet: Promise<void> = Promise.resolve()
  #stopAsked = false
  #working = false
  #runningSince = -Infinity
  #closedSince = 0
  #changed: (() => void)[] = []
  #stops = 0
  #forcedStops = 0
  #batchStale = 0

  /** @internal */
  constructor(importer: Importer, index: number, options: ChannelOptions, limits: ChannelLimits) {
    const depth = checkInteger('depth', options.depth ?? 256, 1, 1 << 16)
    const queueLimit = checkInteger('queueLimit', options.queueLimit ?? 65_536, 1)
    this.importer = importer
    this.index = index
    this.#limits = limits
    this.#device = importer.engine.openChannel({ depth, onCompletion: () => this.#onCompletion() })
    this.#queue = new OperationQueue(this, this.#device, queueLimit)
  }

  get state(): ChannelState {
    return this.#state
  }

  /** Whether the gate is open. */
  get isRunning(): boolean {
    return this.#state === 'running'
  }

  /** Starts at 1; a forced stop begins the next. */
  get epoch(): number {
    return this.#epoch
  }

  get depth(): number {
    return this.#device.depth
  }

  /** Counters since the channel was opened. */
  get stats(): ChannelStats {
    return {
      stops: this.#stops,
      forcedStops: this.#forcedStops,
      parked: this.#queue.parked,
      waiting: this.#queue.waiting,
      inFlight: this.#device.inFlight,
      staleCompletions: this.#queue.stale + this.#batchStale,
      unmatchedCompletions: this.#queue.unmatched,
    }
  }

  // --- the promise form ---

  /** Copies `length` bytes. Resolves when they are there; waits out moves of either buffer. */
  copy(
    source: Attachment,
    sourceOffset: number,
    target: Attachment,
    targetOffset: number,
    length: number,
    options: OperationOptions = {},
  ): Promise<Completion> {
    this.importer.checkRange('source', source, sourceOffset, length)
    this.importer.checkRange('target', target, targetOffset, length)
    return this.#submit(
      new Operation(Op.COPY, source, sourceOffset, target, targetOffset, length, 0),
      options,
    )
  }

  /** Fills `length` bytes with `byte`. */
  fill(
    target: Attachment,
    targetOffset: number,
    length: number,
    byte: number,
    options: OperationOptions = {},
  ): Promise<Completion> {
    this.importer.checkRange('target', target, targetOffset, length)
    checkInteger('byte', byte, 0, 255)
    return this.#submit(
      new Operation(Op.FILL, null, 0, target, targetOffset, length, byte),
      options,
    )
  }

  /**
   * Adds to the 64-bit word at `targetOffset` (a multiple of 8). Not
   * repeatable: a forced stop may reject it with ERR_OUTCOME_UNKNOWN.
   */
  fetchAdd(
    target: Attachment,
    targetOffset: number,
    value: number,
    options: OperationOptions = {},
  ): Promise<Completion> {
    this.importer.checkRange('target', target, targetOffset, 8)
    if (targetOffset % 8 !== 0) {
      throw new P2pdmaError('targetOffset must be a multiple of 8', {
        code: 'ERR_OUT_OF_RANGE',
        argument: 'targetOffset',
      })
    }
    checkInteger('value', value)
    return this.#submit(
      new Operation(Op.FETCH_ADD, null, 0, target, targetOffset, 8, value),
      options,
    )
  }

  #submit(operation: Operation, options: OperationOptions): Promise<Completion> {
    this.#checkForm(false)
    const signal = options.signal
    if (signal?.aborted === true) {
      operation.watch(signal, () => {})
      return withSignal(operation.promise, signal)
    }
    const dead = this.#deadError()
    if (dead !== null) operation.fail(dead)
    else this.#queue.submit(operation, signal)
    return operation.promise
  }

  #onCompletion(): void {
    if (this.#batchForm) this.#wake()
    else {
      this.#queue.reap()
      this.#queue.pump()
    }
  }

  // --- the batch form ---

  /**
   * Posts rows `first` to `first + count - 1`, in one native call. Returns how
   * many were accepted: fewer, or none, while the gate is closed, the ring is
   * full or the next row's mapping is gone for the moment; `ready()` waits for
   * a better time. Throws when row `first` can never be posted.
   */
  post(batch: Batch, first: number, count: number): number {
    if (!this.#batchForm) this.#checkForm(true)
    if (this.#state !== 'running') {
      const dead = this.#deadError()
      if (dead !== null) throw dead
      return 0
    }
    const accepted = this.#device.post(batch, first, count)
    if (accepted === 0 && count > 0) this.#checkRow(batch, first)
    return accepted
  }

  /** Takes completions, oldest first; returns how many. */
  reap(out: Completions): number {
    if (!this.#batchForm) this.#checkForm(true)
    const count = this.#device.reap(out)
    const epoch = this.#epoch
    for (let i = 0; i < count; i++) {
      if (out.epoch[i] !== epoch) return this.#dropStale(out, i, count)
    }
    return count
  }

  #dropStale(out: Completions, from: number, count: number): number {
    let kept = from
    for (let i = from; i < count; i++) {
      if (out.epoch[i] !== this.#epoch) continue
      out.cookie[kept] = out.cookie[i] ?? 0
      out.result[kept] = out.result[i] ?? 0
      out.status[kept] = out.status[i] ?? 0
      out.epoch[kept] = this.#epoch
      kept++
    }
    this.#batchStale += count - kept
    return kept
  }

  /** Resolves when a completion can be reaped (or the channel is closed). */
  async completions(options: OperationOptions = {}): Promise<void> {
    this.#checkForm(true)
    if (this.#deadError() !== null || this.#device.inFlight === 0) return
    const change = this.#nextChange()
    this.#device.arm()
    await withSignal(change, options.signal)
  }

  /** Resolves when `post(batch, row, ...)` can accept the row or says why it never will. */
  async ready(batch: Batch, row: number, options: OperationOptions = {}): Promise<void> {
    this.#checkForm(true)
    checkInteger('row', row, 0, batch.capacity - 1)
    while (!this.#isReady(batch, row)) {
      const change = this.#nextChange()
      if (this.#device.inFlight > 0) this.#device.arm()
      await withSignal(change, options.signal)
    }
  }

  #isReady(batch: Batch, row: number): boolean {
    if (this.#deadError() !== null) return true
    if (this.#state !== 'running' || this.#device.inFlight >= this.#device.depth) return false
    return this.#rowAttachments(batch, row).every(
      (each) => each === undefined || each.state !== 'invalid',
    )
  }

  #rowAttachments(batch: Batch, row: number): (Attachment | undefined)[] {
    const op = batch.op[row]
    const named: (Attachment | undefined)[] = []
    if (op !== Op.NOP) named.push(this.importer.attachmentById(batch.target[row] ?? 0))
    if (op === Op.COPY) named.push(this.importer.attachmentById(batch.source[row] ?? 0))
    return named
  }

  /** Throws when a row that was not accepted names something that is gone. */
  #checkRow(batch: Batch, row: number): void {
    for (const attachment of this.#rowAttachments(batch, row)) {
      if (attachment === undefined) throw closedError(`an attachment named in row ${row}`)
      if (attachment.error !== null) throw attachment.error
    }
  }

  #checkForm(batch: boolean): void {
    if (batch && !this.#batchForm) {
      if (this.#queue.posted + this.#queue.waiting > 0) throw formError()
      this.#batchForm = true
    } else if (!batch && this.#batchForm) throw formError()
  }

  // --- stop and restart ---

  /** Whether work in flight names the attachment. @internal */
  uses(attachment: Attachment): boolean {
    return this.#device.uses(attachment.id)
  }

  /**
   * Steps 1.1 and 1.2: this mapping must go. Resolves when the device is quiet.
   * Called under the mover's reservation; waits for nothing but the device,
   * its deadline, and the rest of this channel's minimum quantum.
   * @internal
   */
  stopFor(attachment: Attachment): Promise<void> {
    this.#blockers.add(attachment)
    this.#invalidations++
    if (this.#state === 'running') {
      if (!this.#stopAsked) {
        this.#stopAsked = true
        this.#quiet = this.#stop()
        this.#quiet.catch(() => {})
      }
    } else if (this.#state === 'restoring') {
      this.#transition('invalidate')
    }
    this.#startWorker()
    return this.#quiet
  }

  /** The attachment has a new mapping, or never will: nothing to wait for. @internal */
  unblock(attachment: Attachment): void {
    this.#blockers.delete(attachment)
  }

  async #stop(): Promise<void> {
    const rest = this.#runningSince + this.#limits.minRunMs - performance.now()
    if (rest > 0) await sleep(rest)
    this.#stopAsked = false
    if (this.#state !== 'running') return
    this.#closedSince = performance.now()
    this.#stops++
    this.#transition('invalidate')
    const forced = await this.#drain()
    if (this.#isDead()) return
    // Step 1.2: what has completed is seen before the mapping goes.
    if (!this.#batchForm) this.#queue.reap()
    this.#transition(forced ? 'forced' : 'drained')
  }

  /** Waits until the device is quiet; past the deadline, forces it. Returns whether it had to. */
  async #drain(): Promise<boolean> {
    const { stopTimeoutMs } = this.#limits
    try {
      const late = () => new P2pdmaError('the drain timed out', { code: 'ETIMEDOUT' })
      await withDeadline(this.#device.stop(), stopTimeoutMs, late)
      return false
    } catch {
      if (this.#isDead()) return false
    }
    try {
      this.#epoch = this.#device.force()
      this.#forcedStops++
      return true
    } catch (cause) {
      const error = new P2pdmaError(
        `the device could not be stopped within ${stopTimeoutMs} ms, nor forced`,
        { code: 'ETIMEDOUT', hint: 'reset the device; its memory is quarantined', cause },
      )
      this.importer.fail(error)
      throw error
    }
  }

  /** Step 1.4: launches the worker, once, however many moves arrive. */
  #startWorker(): void {
    if (this.#working) return
    this.#working = true
    this.#restore().catch((error: unknown) => this.importer.fail(error as Error))
  }

  /** Step 3. */
  async #restore(): Promise<void> {
    // The stamp is kept across attempts: the oldest cannot be starved of locks.
    const context = reservationClass.acquire()
    for (let attempt = 0; ; attempt++) {
      await this.#quiet.catch(() => {})
      if (this.#isDead()) break
      this.#transition('restore')
      const seen = this.#invalidations
      // Step 3.1 deviates from the mail: it locks what moved, not all that is in
      // use. A stream of moves that keeps cancelling the attempt is met with the
      // mail's letter: nobody can invalidate what is locked.
      const inUse = this.#limits.lockAll || attempt >= this.#limits.starvationLimit
      const attachments = inUse ? await this.#allInUse() : [...this.#blockers]
      const unlock = await lockAndRestore(context, attachments, this.#limits)
      // Step 3.3: checked and opened in one turn.
      const open =
        this.#state === 'restoring' && this.#blockers.size === 0 && this.#invalidations === seen
      if (open) {
        this.#working = false
        this.#open()
      }
      unlock()
      if (open || this.#isDead()) break
    }
    context.fini()
    if (this.#isDead()) this.#abandon()
  }

  #allInUse(): Promise<Attachment[]> {
    return this.#limits.lockAll
      ? this.importer.attachmentList(() => true)
      : this.importer.attachmentList((each) => this.#blockers.has(each) || this.uses(each))
  }

  #open(): void {
    this.#device.restart()
    this.#runningSince = performance.now()
    this.#transition('restart')
    if (!this.#batchForm) this.#queue.pump()
  }

  /** What it stopped for is somebody else's to remap. */
  #abandon(): void {
    this.#working = false
    const blockers = [...this.#blockers]
    this.#blockers.clear()
    for (const attachment of blockers) attachment.abandonedBy(this)
  }

  #transition(event: ChannelEvent): void {
    const from = this.#state
    const to = nextState(from, event)
    this.#state = to
    if (trace.channel.hasSubscribers) {
      const at = performance.now()
      const message: ChannelTransition = {
        importer: this.importer.name,
        channel: this.index,
        event,
        from,
        to,
        at,
      }
      if (event === 'restart') message.pauseMs = at - this.#closedSince
      trace.channel.publish(message)
    }
    this.#wake()
  }

  /** An attachment's state has changed. @internal */
  attachmentChanged(attachment: Attachment): void {
    if (attachment.error !== null) this.#queue.rejectNaming(attachment, attachment.error)
    if (this.#state === 'running' && !this.#batchForm) this.#queue.pump()
    this.#wake()
  }

  #nextChange(): Promise<void> {
    return new Promise((resolve) => this.#changed.push(resolve))
  }

  #wake(): void {
    if (this.#changed.length === 0) return
    const waiting = this.#changed
    this.#changed = []
    for (const resolve of waiting) resolve()
  }

  // --- the end ---

  #isDead(): boolean {
    return this.#state === 'failed' || this.#state === 'closed'
  }

  #deadError(): Error | null {
    if (this.#state === 'closed') return closedError('the channel')
    return this.#state === 'failed' ? this.importer.error : null
  }

  /** The importer has failed. @internal */
  fail(error: Error): void {
    if (this.#isDead()) return
    this.#transition('fail')
    this.#queue.rejectAll(error, outcomeUnknown(error))
    this.#device.close()
  }

  /**
   * Gives up all work: what waits is rejected with ERR_CLOSED, what is in
   * flight with ERR_OUTCOME_UNKNOWN. Idempotent.
   */
  close(): Promise<void> {
    if (this.#state !== 'closed') {
      this.#transition('close')
      if (!this.#batchForm) this.#queue.reap()
      this.#device.close()
      const closed = closedError('the channel')
      this.#queue.rejectAll(closed, outcomeUnknown(closed))
      this.importer.forgetChannel(this)
      if (!this.#working) this.#abandon()
    }
    return Promise.resolve()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

export interface ChannelStats {
  /** Stops so far, forced ones included. */
  stops: number
  /** Stops whose drain passed its deadline. */
  forcedStops: number
  /** Operations that had to wait for a gate or a mapping. */
  parked: number
  /** Operations that wait now. */
  waiting: number
  /** Operations accepted by the device and not yet reaped. */
  inFlight: number
  /** Completions of an earlier epoch, dropped. */
  staleCompletions: number
  /** Completions for which nothing was outstanding. */
  unmatchedCompletions: number
}

function outcomeUnknown(cause: Error): P2pdmaError {
  return new P2pdmaError(`the operation was in flight when ${cause.message}`, {
    code: 'ERR_OUTCOME_UNKNOWN',
    cause,
  })
}

function formError(): P2pdmaError {
  return new P2pdmaError('a channel takes promises or batches, not both', {
    code: 'ERR_INVALID_STATE',
    hint: 'open a second channel with importer.channel()',
  })
}

import { brand, notOwn } from '../../brand.js'
import {
  P2pdmaError,
  isDeviceLost,
  abortError,
  checkInteger,
  checkOptions,
  checkSignal,
  closedError,
  typeError,
} from '../../errors.js'
import { Attachment } from './attachment.js'
import { BatchForm } from './batch-form.js'
import { Batch, Completions, Op } from './batch.js'
import type { ChannelState } from './channel-states.js'
import type { EngineChannel } from './engine.js'
import type { Importer } from './importer.js'
import { Operation } from './operation.js'
import type {
  Completion,
  CompletionsOptions,
  CompletionsSyncOptions,
  OperationOptions,
} from './operation.js'
import { OperationQueue } from './operation-queue.js'
import type { AnyAttachment } from './remote-attachment.js'
import type { ImporterLimits } from './limits.js'
import { StopAndRestart } from './restart.js'

export interface ChannelOptions {
  /** Operations in flight at most; a power of two. Default 256. */
  depth?: number
  /** Operations that may wait in the promise form. Default 65,536. */
  queueLimit?: number
  /**
   * Which of the device's queues: `tx` sends, `rx` receives. Default: the
   * engine's choice; an engine with one kind of queue refuses any (ERR_UNSUPPORTED).
   */
  queue?: string | undefined
}

/**
 * What can be stopped by itself: a queue pair, a ring. Runs, and is stopped and
 * restarted around the moves of the buffers it uses.
 *
 * Two forms of work: a promise per operation (`copy`, `fill`, `fetchAdd`,
 * `send`, `receive`), or batches in columns (`post`, `reap`), which the caller
 * reaps. A channel is used in one form. What a device's queue does not do is
 * rejected with ERR_UNSUPPORTED; what it reports as failed, with ERR_DEVICE.
 */
export class Channel {
  static {
    brand(this, Channel.is, {
      hot: ['state', 'isRunning', 'epoch', 'post', 'reap', 'uses', 'deadError'],
      promising: ['copy', 'fill', 'fetchAdd', 'send', 'receive', 'completions', 'ready', 'close'],
    })
  }

  /** As `instanceof`, for the path of each operation. @internal */
  static is(this: void, value: unknown): value is Channel {
    return typeof value === 'object' && value !== null && #device in value
  }

  readonly importer: Importer
  readonly index: number
  /** The device's queue that it was opened on; undefined: the engine's choice. */
  readonly queue: string | undefined
  readonly #device: EngineChannel
  /** Stops and restarts it. @internal */
  readonly machine: StopAndRestart
  readonly #queue: OperationQueue
  /** Null while it is used in the promise form. */
  #batch: BatchForm | null = null
  #isOrphan = false
  #changed: (() => void)[] = []
  /** What its peer holds keys to, and how many. */
  #granted: Map<Attachment, number> | null = null

  /** @internal */
  constructor(importer: Importer, index: number, options: ChannelOptions, limits: ImporterLimits) {
    checkOptions(options)
    const depth = checkInteger('depth', options.depth ?? 256, 1, 1 << 16)
    const queueLimit = checkInteger('queueLimit', options.queueLimit ?? 65_536, 1)
    const { queue } = options
    if (queue !== undefined && typeof queue !== 'string')
      throw typeError('queue', 'a string', queue)
    this.importer = importer
    this.index = index
    this.queue = queue
    this.#device = importer.engine.openChannel({
      depth,
      ...(queue !== undefined && { queue }),
      onCompletion: () => this.#onCompletion(),
      onUse: (id) => this.importer.addUser(id, this),
      onClosed: () => {
        // A failed channel closes its device itself, and stays failed.
        if (this.machine.isDead) return
        // The engine was closed under us: what it held will not come back.
        this.#isOrphan = true
        void this.close()
      },
    })
    this.machine = new StopAndRestart(this, this.#device, limits, {
      quiet: () => {
        if (this.#batch === null) this.#queue.reap()
      },
      opened: () => {
        if (this.#batch === null) this.#queue.pump()
      },
      changed: () => this.#wake(),
    })
    this.#queue = new OperationQueue(this, this.#device, queueLimit)
  }

  get state(): ChannelState {
    if (!Channel.is(this)) throw notOwn('Channel', this)
    return this.machine.state
  }

  /** Whether the gate is open. */
  get isRunning(): boolean {
    if (!Channel.is(this)) throw notOwn('Channel', this)
    return this.machine.isOpen
  }

  /** Starts at 1; a forced stop begins the next. */
  get epoch(): number {
    if (!Channel.is(this)) throw notOwn('Channel', this)
    return this.machine.epoch
  }

  get depth(): number {
    return this.#device.depth
  }

  /** Counters since the channel was opened. */
  get stats(): ChannelStats {
    return {
      stops: this.machine.stops,
      forcedStops: this.machine.forcedStops,
      parked: this.#queue.parked,
      waiting: this.#queue.waiting,
      inFlight: this.#device.inFlight,
      staleCompletions: this.#queue.stale + (this.#batch?.stale ?? 0),
      unmatchedCompletions: this.#queue.unmatched + (this.#device.unmatched ?? 0),
    }
  }

  // --- the promise form ---

  /**
   * Copies `length` bytes; into or out of a peer's buffer (a write or read by
   * the device) with one side a RemoteAttachment. Resolves when they are there;
   * waits out moves of either buffer. The ranges must not overlap: within one attachment that is
   * refused, through two attachments of one buffer the result is undefined.
   */
  copy(
    source: AnyAttachment,
    sourceOffset: number,
    target: AnyAttachment,
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
    target: AnyAttachment,
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
   * repeatable: a forced stop may reject it with ERR_OUTCOME_UNKNOWN. The value
   * before it is exact up to 2^53.
   */
  fetchAdd(
    target: AnyAttachment,
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

  /**
   * Sends `length` bytes as one frame or message. Resolves when the device has
   * read them and takes them back no more. Not repeatable: a forced stop may
   * reject it with ERR_OUTCOME_UNKNOWN.
   */
  send(
    source: Attachment,
    offset: number,
    length: number,
    options: OperationOptions = {},
  ): Promise<Completion> {
    this.importer.checkAttachment('source', source)
    this.importer.checkRange('source', source, offset, length, 'offset')
    return this.#submit(new Operation(Op.SEND, source, offset, null, 0, length, 0), options)
  }

  /**
   * Makes room for one frame or message: the next one to arrive goes there.
   * Resolves with its `bytes`, perhaps never: a move does not wait for it. A
   * close of the attachment or the channel rejects it with ERR_CLOSED; what
   * arrived in that instant may have been written and is dropped.
   */
  receive(
    target: Attachment,
    offset: number,
    length: number,
    options: OperationOptions = {},
  ): Promise<Completion> {
    this.importer.checkAttachment('target', target)
    this.importer.checkRange('target', target, offset, length, 'offset')
    return this.#submit(new Operation(Op.RECEIVE, null, 0, target, offset, length, 0), options)
  }

  #submit(operation: Operation, options: OperationOptions): Promise<Completion> {
    if (this.#batch !== null) throw formError()
    const { signal } = checkOptions(options)
    checkSignal(signal)
    const dead = this.deadError
    if (dead !== null) operation.fail(dead)
    else if (signal?.aborted === true) operation.fail(abortError(signal))
    else this.#queue.submit(operation, signal)
    return operation.promise
  }

  #onCompletion(): void {
    if (this.#batch !== null) return this.#wake()
    this.#queue.reap()
    this.#queue.pump()
  }

  // --- the batch form ---

  /**
   * Posts rows `first` to `first + count - 1`, in one native call. Returns how
   * many were accepted: fewer, or none, while the gate is closed, the ring is
   * full or the next row's mapping is gone for the moment; `ready()` waits for
   * a better time. Throws when row `first` can never be posted.
   */
  post(batch: Batch, first: number, count: number): number {
    if (!Channel.is(this)) throw notOwn('Channel', this)
    return (this.#batch ?? this.#batchFormFor('batch', batch, Batch)).post(batch, first, count)
  }

  /** Takes completions, oldest first; returns how many. */
  reap(out: Completions): number {
    if (!Channel.is(this)) throw notOwn('Channel', this)
    return (this.#batch ?? this.#batchFormFor('out', out, Completions)).reap(out)
  }

  /** Resolves when a completion may be there to reap; now and then too early. */
  completions(options: CompletionsOptions = {}): Promise<void> {
    return (this.#batch ?? this.#batchForm()).completions(options)
  }

  /**
   * As `completions()`, but within this call, and for so many microseconds at most
   * (up to 10,000): returns whether there may be something to reap. Nothing else runs in
   * this thread meanwhile, moves and peers included, so that between many of
   * these the event loop wants a turn. For an answer that comes sooner than one
   * turn of it takes. ERR_UNSUPPORTED where the engine has none (verbs has).
   */
  completionsSync(microseconds: number, options: CompletionsSyncOptions = {}): boolean {
    return (this.#batch ?? this.#batchForm()).completionsSync(microseconds, options)
  }

  /**
   * Resolves when `post(batch, row, ...)` can accept the row or says why it never will.
   * With a full ring: also when there is something to reap, which makes room.
   */
  ready(batch: Batch, row: number, options: OperationOptions = {}): Promise<void> {
    return (this.#batch ?? this.#batchFormFor('batch', batch, Batch)).ready(batch, row, options)
  }

  /** A wrong argument does not decide the form. */
  #batchFormFor(argument: string, value: unknown, type: typeof Batch | typeof Completions) {
    if (!(value instanceof type)) throw typeError(argument, type.name, value)
    return this.#batchForm()
  }

  #batchForm(): BatchForm {
    if (this.#queue.posted + this.#queue.waiting > 0) throw formError()
    this.#batch = new BatchForm(this.importer, this.#device, this)
    return this.#batch
  }

  // --- stop and restart ---

  /**
   * Says that this channel's peer holds a key to the attachment, and may use
   * it at any time: its moves then stop this channel, work in flight or none.
   */
  grant(attachment: Attachment): Disposable {
    this.importer.checkAttachment('attachment', attachment)
    this.#granted ??= new Map()
    const granted = this.#granted
    this.importer.addUser(attachment.id, this)
    granted.set(attachment, (granted.get(attachment) ?? 0) + 1)
    let held = true
    const revoke = () => {
      const left = (granted.get(attachment) ?? 1) - 1
      if (held && left === 0) granted.delete(attachment)
      else if (held) granted.set(attachment, left)
      held = false
    }
    return { [Symbol.dispose]: revoke }
  }

  /** Whether work in flight names the attachment, or the peer holds a key to it. @internal */
  uses(attachment: Attachment): boolean {
    if (!Channel.is(this)) throw notOwn('Channel', this)
    return this.#device.uses(attachment.id) || this.#granted?.has(attachment) === true
  }

  /** Whether work waits that names it. @internal */
  waitsFor(attachment: AnyAttachment): boolean {
    return this.#queue.waitsFor(attachment) || this.#batch?.waitsFor(attachment) === true
  }

  /** From now on, or still, work waits that names it. @internal */
  onWait(attachment: AnyAttachment): void {
    this.importer.addUser(attachment.id, this)
  }

  /** An attachment's state has changed. @internal */
  attachmentChanged(attachment: AnyAttachment): void {
    if (attachment.error !== null) {
      if (attachment instanceof Attachment) this.#granted?.delete(attachment)
      this.#queue.rejectNaming(attachment, attachment.error)
    }
    if (this.#batch === null && this.isRunning && this.#queue.waiting > 0) this.#queue.pump()
    this.#wake()
  }

  /** @internal */
  nextChange(): Promise<void> {
    return new Promise((resolve) => this.#changed.push(resolve))
  }

  #wake(): void {
    if (this.#changed.length === 0) return
    const waiting = this.#changed
    this.#changed = []
    for (const resolve of waiting) resolve()
  }

  // --- the end ---

  /** Why it will never run again, or null. */
  get deadError(): Error | null {
    if (!Channel.is(this)) throw notOwn('Channel', this)
    if (this.state === 'closed') return closedError('the channel')
    return this.state === 'failed' ? this.importer.error : null
  }

  /** The importer has failed. @internal */
  fail(error: Error): void {
    if (!this.machine.fail()) return
    // Of a lost device there is one thing to say, whatever it had.
    this.#queue.rejectAll(error, () => (isDeviceLost(error) ? error : outcomeUnknown(error)))
    this.#device.close()
  }

  /**
   * Gives up all work: what waits, and receives, are rejected with ERR_CLOSED,
   * other work in flight with ERR_OUTCOME_UNKNOWN. Idempotent.
   */
  close(): Promise<void> {
    if (this.state !== 'closed') {
      if (this.#batch === null && !this.#isOrphan && !this.machine.isDead) this.#queue.reap()
      this.#device.close()
      const closed = closedError('the channel')
      const unknown = outcomeUnknown(closed)
      this.#queue.rejectAll(closed, ({ op }) => (op === Op.RECEIVE ? closed : unknown))
      this.importer.forgetChannel(this)
      this.machine.close()
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

import { P2pdmaError, isGivenUp } from '../../errors.js'
import { AbortWatch } from './abort-watch.js'
import { WaitedFor } from './awaited.js'
import { Batch, Completions, Op, Status } from './batch.js'
import type { EngineChannel } from './engine.js'
import type { Named, Operation } from './operation.js'

/** Rows handed over in one native call at most. */
const BATCH_ROWS = 64

/** What the queue needs to know of its channel. */
export interface Gate {
  readonly isRunning: boolean
  readonly epoch: number
  /** Work waits that names this one: its next change is one of the channel's. */
  onWait(attachment: Named): void
}

/**
 * The promise form: operations in order, posted while the gate is open. The
 * first one that must wait holds back those behind it, on this channel alone.
 */
export class OperationQueue {
  readonly #gate: Gate
  readonly #device: EngineChannel
  readonly #limit: number
  readonly #batch: Batch
  readonly #completions: Completions
  #waiting: Operation[] = []
  /** Index of the first one in `#waiting`: taking from the front costs nothing. */
  #first = 0
  #posted = new Map<number, Operation>()
  readonly #signals = new AbortWatch<Operation>((operation) => this.#onAbort(operation))
  readonly #awaited = new WaitedFor()
  #nextCookie = 1
  /** Aborted ones that are still among `#waiting`. */
  #aborted = 0
  #parked = 0
  #stale = 0
  #unmatched = 0

  constructor(gate: Gate, device: EngineChannel, limit: number) {
    this.#gate = gate
    this.#device = device
    this.#limit = limit
    const rows = Math.min(BATCH_ROWS, device.depth)
    this.#batch = new Batch(rows)
    this.#completions = new Completions(rows)
  }

  /** Operations that wait to be posted. */
  get waiting(): number {
    return this.#waiting.length - this.#first - this.#aborted
  }

  /** Operations posted whose completion has not been seen. */
  get posted(): number {
    return this.#posted.size
  }

  /** Operations that had to wait for a gate or a mapping, so far. */
  get parked(): number {
    return this.#parked
  }

  /** Completions of an earlier epoch: a device came to life after it had been forced. */
  get stale(): number {
    return this.#stale
  }

  /** Completions of this epoch for which no operation was outstanding. */
  get unmatched(): number {
    return this.#unmatched
  }

  submit(operation: Operation, signal: AbortSignal | undefined): void {
    const hopeless = operation.hopeless
    if (hopeless !== null) return operation.fail(hopeless)
    if (this.waiting >= this.#limit) {
      return operation.fail(
        new P2pdmaError(`${this.#limit} operations wait on this channel already`, {
          code: 'ERR_QUEUE_FULL',
          hint: 'await some of them, or raise queueLimit',
        }),
      )
    }
    this.#waiting.push(operation)
    if (signal !== undefined) operation.watch(signal, this.#signals)
    this.pump()
    if (!operation.isPosted && !operation.isSettled) this.#await(operation)
  }

  /** Whether an operation that waits names it. */
  waitsFor(attachment: Named): boolean {
    return this.#awaited.has(attachment)
  }

  #await(operation: Operation): void {
    operation.isAwaiting = true
    const { source, target } = operation
    if (source !== null && this.#awaited.add(source)) this.#gate.onWait(source)
    if (target !== null && this.#awaited.add(target)) this.#gate.onWait(target)
  }

  /** It waits no more: it has been posted, or has been taken out. */
  #leave(operation: Operation): void {
    if (!operation.isAwaiting) return
    operation.isAwaiting = false
    const { source, target } = operation
    if (source !== null) this.#awaited.drop(source)
    if (target !== null) this.#awaited.drop(target)
  }

  /** One signal may abort all that waits: they are taken out together, a microtask later. */
  #onAbort(operation: Operation): void {
    if (operation.isPosted) return
    if (++this.#aborted === 1) queueMicrotask(() => this.pump())
  }

  /** Posts what can be posted; each row is resolved by the device as it is posted. */
  pump(): void {
    if (this.#aborted > 0) this.#remove((each) => each.isSettled)
    while (this.#gate.isRunning) {
      const rows = this.#fill()
      if (rows === 0) break
      if (this.#post(rows) < rows) break
    }
    this.#countParked()
    if (this.#device.inFlight > 0) this.#device.arm()
  }

  #fill(): number {
    const batch = this.#batch
    const room = Math.min(batch.capacity, this.#device.depth - this.#device.inFlight)
    let rows = 0
    while (rows < room) {
      const operation = this.#waiting[this.#first + rows]
      if (operation === undefined || !operation.isMapped) break
      batch.op[rows] = operation.op
      batch.source[rows] = operation.source?.id ?? 0
      batch.sourceOffset[rows] = operation.sourceOffset
      batch.target[rows] = operation.target?.id ?? 0
      batch.targetOffset[rows] = operation.targetOffset
      batch.length[rows] = operation.length
      batch.operand[rows] = operation.operand
      batch.cookie[rows] = this.#nextCookie + rows
      rows++
    }
    return rows
  }

  #post(rows: number): number {
    let accepted = 0
    try {
      accepted = this.#device.post(this.#batch, 0, rows)
      this.#take(accepted)
    } catch (error) {
      // The engine refused one row: those before it are posted, and it alone fails.
      accepted = (error as { accepted?: number }).accepted ?? 0
      this.#take(accepted)
      const refused = this.#waiting[this.#first]
      this.#first++
      if (refused !== undefined) this.#leave(refused)
      refused?.fail(error as Error)
      return rows
    }
    return accepted
  }

  #take(count: number): void {
    for (let i = 0; i < count; i++) {
      const operation = this.#waiting[this.#first++]
      if (operation !== undefined) {
        operation.isPosted = true
        this.#leave(operation)
        this.#posted.set(this.#nextCookie, operation)
      }
      this.#nextCookie++
    }
    if (this.#first > 1024 || this.#first === this.#waiting.length) {
      this.#waiting = this.#waiting.slice(this.#first)
      this.#first = 0
    }
  }

  /** Those behind the first are held back by it; they count when they come first. */
  #countParked(): void {
    const head = this.#waiting[this.#first]
    if (head === undefined) return
    if (this.#gate.isRunning) {
      if (!head.isMapped) this.#park(head)
      return
    }
    for (let i = this.#waiting.length - 1; i >= this.#first; i--) {
      const operation = this.#waiting[i]
      if (operation === undefined || operation.parked) break
      this.#park(operation)
    }
  }

  #park(operation: Operation): void {
    if (operation.parked) return
    operation.parked = true
    this.#parked++
  }

  /** Takes all completions that are there. */
  reap(): void {
    const out = this.#completions
    for (;;) {
      const count = this.#device.reap(out)
      for (let i = 0; i < count; i++) this.#settle(i)
      if (count < out.capacity) return
    }
  }

  /** A completion counts only for the epoch it was posted in: see Channel's forced path. */
  #settle(row: number): void {
    const out = this.#completions
    if (out.epoch[row] !== this.#gate.epoch) {
      this.#stale++
      return
    }
    const cookie = out.cookie[row] ?? 0
    const operation = this.#posted.get(cookie)
    if (operation === undefined) {
      this.#unmatched++
      return
    }
    this.#posted.delete(cookie)
    const status = out.status[row] ?? Status.FAULT
    const result = out.result[row] ?? 0
    if (status !== Status.OK) {
      return operation.fail(this.#completionError(status, operation, result))
    }
    if (operation.op === Op.FETCH_ADD) operation.complete({ bytes: 8, previous: result })
    else operation.complete({ bytes: result })
  }

  #completionError(status: number, operation: Operation, result: number): Error {
    const ended = this.#device.endError ?? null
    const isCutOff =
      status === Status.CANCELLED ||
      ((status === Status.OUTCOME_UNKNOWN || status === Status.NOT_MAPPED) && isGivenUp(ended))
    if (isCutOff && ended !== null) return ended
    return completionError(status, operation, result)
  }

  /** Rejects what waits and names an attachment that is gone. */
  rejectNaming(attachment: Named, error: Error): void {
    for (const operation of this.#remove((each) => each.names(attachment))) operation.fail(error)
  }

  /** Rejects everything, posted work included: the channel is closed or has failed. */
  rejectAll(waitingError: Error, postedError: (operation: Operation) => Error): void {
    for (const operation of this.#remove(() => true)) operation.fail(waitingError)
    for (const operation of this.#posted.values()) operation.fail(postedError(operation))
    this.#posted.clear()
  }

  #remove(which: (operation: Operation) => boolean): Operation[] {
    const removed: Operation[] = []
    const kept: Operation[] = []
    this.#aborted = 0
    for (let i = this.#first; i < this.#waiting.length; i++) {
      const operation = this.#waiting[i]
      if (operation === undefined) continue
      if (operation.isSettled || which(operation)) {
        this.#leave(operation)
        removed.push(operation)
      } else kept.push(operation)
    }
    if (removed.length > 0) {
      this.#waiting = kept
      this.#first = 0
    }
    return removed
  }
}

function completionError(status: number, operation: Operation, result: number): P2pdmaError {
  const unmapped = status === Status.NOT_MAPPED ? operation.whyUnmapped : null
  if (unmapped !== null) return unmapped
  if (status === Status.OUTCOME_UNKNOWN) {
    return new P2pdmaError('a forced stop cut the operation off, and it cannot be repeated', {
      code: 'ERR_OUTCOME_UNKNOWN',
      hint: 'it may have been done once or not at all: read the target to know',
    })
  }
  if (status === Status.CANCELLED) {
    return new P2pdmaError('the channel was closed before the operation began', {
      code: 'ERR_CLOSED',
    })
  }
  if (status === Status.DEVICE_ERROR) {
    return new P2pdmaError(`the device reports an error of its own: 0x${result.toString(16)}`, {
      code: 'ERR_DEVICE',
      hint: 'the number is explained where the engine is; part of the work may have been done',
    })
  }
  return new P2pdmaError('the device used a mapping that was gone', {
    code: 'EFAULT',
    hint: 'the operation stopped there: part of it may have been done',
  })
}

import {
  P2pdmaError,
  checkBoolean,
  checkInteger,
  checkOptions,
  checkSignal,
  closedError,
  typeError,
} from '../../errors.js'
import { Batch, type Completions, namesSource, namesTarget } from './batch.js'
import { WaitedFor } from './awaited.js'
import { withSignal } from '../reservation/deadline.js'
import type { EngineChannel } from './engine.js'
import type {
  CompletionsOptions,
  CompletionsSyncOptions,
  Named,
  OperationOptions,
} from './operation.js'

/** Longest wait within a call, us: the event loop stands still meanwhile. */
const LONGEST_SYNC_US = 10_000

/** What the batch form needs to know of its channel. */
export interface BatchGate {
  readonly isRunning: boolean
  readonly epoch: number
  /** Why it will never run again, or null. */
  readonly deadError: Error | null
  /** Resolves at the next change of state, mapping or completion. */
  nextChange(): Promise<void>
  /** Work waits that names this one: its next change is one of the channel's. */
  onWait(attachment: Named): void
}

/** And of its importer: what the ids in a row mean. */
export interface Names {
  readonly engine: { readonly name: string }
  attachmentNamed(id: number): Named | undefined
}

/** The batch form: columns in, columns out, one native call each. */
export class BatchForm {
  readonly #importer: Names
  readonly #device: EngineChannel
  readonly #gate: BatchGate
  readonly #awaited = new WaitedFor()
  #stale = 0

  constructor(importer: Names, device: EngineChannel, gate: BatchGate) {
    this.#importer = importer
    this.#device = device
    this.#gate = gate
  }

  /** Completions of an earlier epoch, dropped. */
  get stale(): number {
    return this.#stale
  }

  /**
   * Posts rows `first` to `first + count - 1`, in one native call. Returns how
   * many were accepted: fewer, or none, while the gate is closed, the ring is
   * full or the next row's mapping is gone for the moment; `ready()` waits for
   * a better time. Throws when row `first` can never be posted.
   */
  post(batch: Batch, first: number, count: number): number {
    if (!this.#gate.isRunning) {
      const dead = this.#gate.deadError
      if (dead !== null) throw dead
      return 0
    }
    const accepted = this.#device.post(batch, first, count)
    if (accepted === 0 && count > 0) this.#checkRow(batch, first)
    return accepted
  }

  /** Takes completions, oldest first; returns how many. Of a dead channel: throws why it is. */
  reap(out: Completions): number {
    let count: number
    try {
      count = this.#device.reap(out)
    } catch (error) {
      throw this.#gate.deadError ?? error
    }
    return this.#device.stale === 0 ? count : this.#dropStale(out, count)
  }

  #dropStale(out: Completions, count: number): number {
    let kept = 0
    for (let i = 0; i < count; i++) {
      if (out.epoch[i] !== this.#gate.epoch) continue
      out.cookie[kept] = out.cookie[i] ?? 0
      out.result[kept] = out.result[i] ?? 0
      out.status[kept] = out.status[i] ?? 0
      out.epoch[kept] = this.#gate.epoch
      kept++
    }
    this.#stale += count - kept
    return kept
  }

  /**
   * Resolves when a completion can be reaped (or the channel is closed). Of who waits
   * for one message after the other it is most of the cost: no promise around the promise.
   */
  completions(options: CompletionsOptions = {}): Promise<void> {
    try {
      const { signal, arrivalsOnly = false } = checkOptions(options)
      checkSignal(signal)
      checkBoolean('arrivalsOnly', arrivalsOnly)
      if (this.#gate.deadError !== null || this.#device.inFlight === 0) return Promise.resolve()
      const change = this.#gate.nextChange()
      this.#device.arm(arrivalsOnly)
      return withSignal(change, signal)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /** As `Channel.completionsSync`. */
  completionsSync(microseconds: number, options: CompletionsSyncOptions = {}): boolean {
    checkInteger('microseconds', microseconds, 0, LONGEST_SYNC_US)
    const { arrivalsOnly = false } = checkOptions(options)
    checkBoolean('arrivalsOnly', arrivalsOnly)
    if (this.#device.wait === undefined) {
      throw new P2pdmaError(`The engine ${this.#importer.engine.name} has no wait within a call`, {
        code: 'ERR_UNSUPPORTED',
        hint: 'await channel.completions(), or reap() again',
      })
    }
    if (this.#gate.deadError !== null || this.#device.inFlight === 0) return true
    return this.#device.wait(microseconds, arrivalsOnly)
  }

  /**
   * Resolves when `post(batch, row, ...)` can accept the row or says why it never will.
   * With a full ring: also when there is something to reap, which makes room.
   */
  async ready(batch: Batch, row: number, options: OperationOptions = {}): Promise<void> {
    if (!(batch instanceof Batch)) throw typeError('batch', 'a Batch', batch)
    checkInteger('row', row, 0, batch.capacity - 1)
    checkSignal(checkOptions(options).signal)
    while (!this.#isReady(batch, row)) {
      const change = this.#gate.nextChange()
      const isFull = this.#gate.isRunning && this.#device.inFlight >= this.#device.depth
      if (this.#device.inFlight > 0) this.#device.arm()
      const named = this.#rowAttachments(batch, row)
      for (const each of named) {
        if (each !== undefined && this.#awaited.add(each)) this.#gate.onWait(each)
      }
      try {
        await withSignal(change, options.signal)
      } finally {
        for (const each of named) if (each !== undefined) this.#awaited.drop(each)
      }
      // Who waits here may be the one who reaps.
      if (isFull) return
    }
  }

  /** Whether somebody waits in `ready()` with a row that names it. */
  waitsFor(attachment: Named): boolean {
    return this.#awaited.has(attachment)
  }

  #isReady(batch: Batch, row: number): boolean {
    if (this.#gate.deadError !== null) return true
    if (!this.#gate.isRunning || this.#device.inFlight >= this.#device.depth) return false
    return this.#rowAttachments(batch, row).every(
      (each) => each === undefined || each.state !== 'invalid',
    )
  }

  #rowAttachments(batch: Batch, row: number): (Named | undefined)[] {
    const op = batch.op[row] ?? 0
    const named: (Named | undefined)[] = []
    if (namesTarget(op)) named.push(this.#importer.attachmentNamed(batch.target[row] ?? 0))
    if (namesSource(op)) named.push(this.#importer.attachmentNamed(batch.source[row] ?? 0))
    return named
  }

  /** Throws when a row that was not accepted names something that is gone. */
  #checkRow(batch: Batch, row: number): void {
    for (const attachment of this.#rowAttachments(batch, row)) {
      if (attachment === undefined) throw closedError(`an attachment named in row ${row}`)
      if (attachment.error !== null) throw attachment.error
    }
  }
}

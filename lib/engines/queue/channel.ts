/**
 * A channel over a queue of a device: what the channels of all engines have in common. It checks
 * what it is given, knows what state it is in, and tells who waits: of what comes into use, of
 * completions, and of a device that is quiet. What only one kind of queue has is its backend's.
 */
import { P2pdmaError, checkInteger, closedError } from '../../errors.js'
import type { Batch, Completions } from '../../move-notify/importer/batch.js'
import type { EngineChannel, EngineChannelOptions } from '../../move-notify/importer/engine.js'
import type { Transitions } from '../../move-notify/importer/state-table.js'
import type { ColumnsInUse } from './native-columns.js'
import { type RowRules, rowError } from './row-error.js'
import type { Uses } from './uses.js'

export type QueueState = 'running' | 'stopping' | 'stopped' | 'closed'
export type QueueEvent = 'stop' | 'quiet' | 'restart' | 'close'

/** A stop goes on until the device is quiet, by itself or by force. */
const transitions: Transitions<QueueState, QueueEvent> = {
  running: { stop: 'stopping', close: 'closed' },
  stopping: { stop: 'stopping', quiet: 'stopped', close: 'closed' },
  stopped: { stop: 'stopped', quiet: 'stopped', restart: 'running', close: 'closed' },
  closed: {},
}

/** What `arm()` has asked for, and nobody has been told of yet. */
export type ArmedFor = 'nothing' | 'arrivals' | 'all'

/** The rows of a queue, where native code takes them. */
export interface BackendRows {
  readonly columns: ColumnsInUse
  /** For the errors of rows that are refused. */
  readonly rules: RowRules
  /** Which attachments they name; the channel tells of those that come into use. */
  readonly uses: Uses
  /** What was wrong with the row behind those that `post()` accepted last, of `RowDefect`. */
  readonly defect: number
}

/**
 * What an engine adds to the channel. It is called by its channel alone: with arguments that
 * are checked, and not after `close()`. As in `EngineChannel`, unless it says otherwise.
 */
export interface Backend {
  readonly rows: BackendRows
  readonly inFlight: number
  readonly stale: number
  readonly unmatched?: number
  readonly endError?: Error | null
  /** Posts rows of the batch that is in use; returns how many were accepted. The channel runs. */
  post(first: number, count: number, batch: Batch): number
  /** Fills the completions that are in use, which `out` is. */
  reap(out: Completions): number
  /** Whether something can be reaped, or has arrived. */
  hasNews(arrivalsOnly: boolean): boolean
  /** Has the device say so next time: `channel.notify()`. */
  listen(arrivalsOnly: boolean): void
  /** Whether anything can arrive; left out: nothing ever can, and all is told of. */
  readonly canArrive?: boolean
  /** While true, what the device says keeps the process alive. Left out: native code sees to it. */
  hold?(hold: boolean): void
  /** Waits within this call until there is news, or the time is over. */
  wait?(microseconds: number, arrivalsOnly: boolean): void
  isUsed(id: number): boolean
  /**
   * Begins to stop, or goes on with it. True: the device is quiet; else `channel.look()`
   * is called when it may be, and asks again.
   */
  stop(): boolean
  /** Returns the epoch that begins: `next`, unless the device counts its own. */
  force(next: number): number
  restart(): void
  close(): void
}

export class QueueChannel implements EngineChannel {
  readonly depth: number
  /** Where the device can. */
  readonly wait?: (microseconds: number, arrivalsOnly: boolean) => boolean
  readonly #backend: Backend
  readonly #options: EngineChannelOptions
  readonly #rows: BackendRows
  #state: QueueState = 'running'
  #awaited: ArmedFor = 'nothing'
  #epoch = 1
  /** Who waits for the stop that is going on. */
  #stopped: (() => void)[] = []

  /** `open`: makes the backend of the channel, which it tells of what comes. @internal */
  constructor(options: EngineChannelOptions, open: (channel: QueueChannel) => Backend) {
    this.depth = options.depth
    this.#options = options
    this.#backend = open(this)
    this.#rows = this.#backend.rows
    if (this.#backend.wait !== undefined) this.wait = (...args) => this.#wait(...args)
  }

  get state(): QueueState {
    return this.#state
  }

  get closed(): boolean {
    return this.#state === 'closed'
  }

  get inFlight(): number {
    return this.closed ? 0 : this.#backend.inFlight
  }

  get stale(): number {
    return this.#backend.stale
  }

  get unmatched(): number {
    return this.#backend.unmatched ?? 0
  }

  get endError(): Error | null {
    return this.#backend.endError ?? null
  }

  // --- rows in, completions out ---

  post(batch: Batch, first: number, count: number): number {
    if (this.#state === 'closed') throw closedError('The channel')
    const rows = this.#rows
    rows.columns.useBatch(batch)
    if (!isWhole(first) || !isWhole(count) || first + count > batch.capacity) {
      checkInteger('first', first, 0, batch.capacity)
      checkInteger('count', count, 0, batch.capacity - first)
    }
    const backend = this.#backend
    if (backend.endError != null) throw backend.endError
    if (this.#state !== 'running') return 0
    const accepted = backend.post(first, count, batch)
    if (rows.uses.hasUntold) rows.uses.tell(this.#options.onUse)
    const { defect } = rows
    if (defect !== 0) throw rowError(rows.rules, batch, defect, first, accepted)
    return accepted
  }

  reap(out: Completions): number {
    if (this.#state === 'closed') throw closedError('The channel')
    this.#rows.columns.useCompletions(out)
    return this.#backend.reap(out)
  }

  uses(id: number): boolean {
    return !this.closed && this.#backend.isUsed(id)
  }

  // --- telling ---

  arm(arrivalsOnly = false): void {
    if (this.#state === 'closed') throw closedError('The channel')
    const awaited = this.#isOnly(arrivalsOnly) ? 'arrivals' : 'all'
    if (this.#awaited === 'all' || this.#awaited === awaited) return
    this.#awaited = awaited
    this.#backend.hold?.(true)
    this.#listen()
  }

  /** Where nothing can arrive it is the rest that is waited for. */
  #isOnly(arrivalsOnly: boolean): boolean {
    return arrivalsOnly && this.#backend.canArrive === true
  }

  /** What has come before the device was asked to say so is told of without it. */
  #listen(): void {
    this.#backend.listen(this.#awaited === 'arrivals')
    if (this.#hasNews) setImmediate(() => this.notify())
  }

  get #hasNews(): boolean {
    return this.#awaited !== 'nothing' && this.#backend.hasNews(this.#awaited === 'arrivals')
  }

  /** @internal */
  get awaited(): ArmedFor {
    return this.#awaited
  }

  /** Something has come, or may have. @internal */
  notify(): void {
    if (this.#hasNews) this.#tell()
    else if (this.#awaited !== 'nothing') this.#listen()
  }

  #tell(): void {
    this.#awaited = 'nothing'
    this.#backend.hold?.(false)
    this.#options.onCompletion()
  }

  #wait(microseconds: number, arrivalsOnly: boolean): boolean {
    if (this.#state === 'closed') throw closedError('The channel')
    const backend = this.#backend
    const only = this.#isOnly(arrivalsOnly)
    if (!backend.hasNews(only)) backend.wait?.(microseconds, only)
    // Before the caller takes it away: who waits on the event loop was here first.
    if (this.#hasNews) this.#tell()
    return !this.closed && backend.hasNews(only)
  }

  // --- stop and restart ---

  /** Throws ERR_CLOSED, and ERR_INVALID_STATE for what cannot be done with it now. */
  #follow(event: QueueEvent): void {
    const next = transitions[this.#state][event]
    if (next === undefined) {
      if (this.closed) throw closedError('The channel')
      throw new P2pdmaError('The channel is not stopped', { code: 'ERR_INVALID_STATE' })
    }
    this.#state = next
  }

  stop(): void | Promise<void> {
    this.#follow('stop')
    this.look()
    if (this.#state === 'stopped') return
    return new Promise((resolve) => this.#stopped.push(resolve))
  }

  /** The device may be quiet now. @internal */
  look(): void {
    if (this.#state === 'stopping' && this.#backend.stop()) this.#quiet()
  }

  #quiet(): void {
    this.#follow('quiet')
    this.#answer()
  }

  #answer(): void {
    const stopped = this.#stopped
    this.#stopped = []
    for (const resolve of stopped) resolve()
  }

  force(): number {
    this.#follow('stop')
    // It has 32 bits, and is never 0.
    this.#epoch = this.#backend.force((this.#epoch % 0xffff_ffff) + 1)
    this.#quiet()
    return this.#epoch
  }

  /** Throws ERR_INVALID_STATE unless the channel is stopped. */
  restart(): void {
    this.#follow('restart')
    this.#backend.restart()
    if (this.#awaited !== 'nothing') this.#listen()
  }

  close(): void {
    if (this.closed) return
    this.#follow('close')
    this.#awaited = 'nothing'
    this.#backend.hold?.(false)
    this.#backend.close()
    this.#rows.columns.forget()
    this.#answer()
    if (this.#options.onClosed !== undefined) queueMicrotask(this.#options.onClosed)
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

/** Of 32 bits. */
function isWhole(value: unknown): value is number {
  return typeof value === 'number' && value >>> 0 === value
}

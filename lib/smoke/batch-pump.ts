/** The batch form for who has one operation after the other: rows in, and a call when each ends. */
import { Batch, Completions, Status } from '../move-notify/importer/batch.js'
import type { Channel } from '../move-notify/importer/channel.js'
import type { AnyAttachment } from '../move-notify/importer/remote-attachment.js'
import { P2pdmaError } from '../errors.js'
import type { Tally } from './tally.js'

export interface Row {
  /** `Op`. */
  op: number
  source?: AnyAttachment
  sourceOffset?: number
  target?: AnyAttachment
  targetOffset?: number
  length: number
  /** With null and the completion's result, or with why it failed. */
  ended: (error: Error | null, result: number) => void
}

const ROWS = 64

export class BatchPump {
  readonly #channel: Channel
  readonly #tally: Tally
  readonly #batch = new Batch(ROWS)
  readonly #completions = new Completions(ROWS)
  readonly #waiting: Row[] = []
  /** By cookie: what has a row, or has been posted. */
  readonly #outstanding = new Map<number, Row>()
  /** Rows `first` to `last - 1` of the batch are still to be posted. */
  #first = 0
  #last = 0
  /** Rows before this one have been counted as parked. */
  #parked = 0
  /** Operations accepted whose completion has not been seen. */
  #posted = 0
  #accepted = 0
  #cookie = 0
  #posting = false
  #reaping = false

  constructor(channel: Channel, tally: Tally) {
    this.#channel = channel
    this.#tally = tally
  }

  /** Rows that the device has accepted so far. */
  get accepted(): number {
    return this.#accepted
  }

  submit(rows: readonly Row[]): void {
    this.#waiting.push(...rows)
    this.#start()
  }

  /** Both loops end by themselves, in the turn in which there is nothing left to do. */
  #start(): void {
    if (!this.#posting) void this.#post()
    if (!this.#reaping && this.#posted > 0) void this.#reap()
  }

  async #post(): Promise<void> {
    this.#posting = true
    try {
      while (this.#fill()) {
        if (this.#postRows()) continue
        this.#countParked()
        await this.#channel.ready(this.#batch, this.#first)
      }
    } catch (error) {
      this.#giveUp(error as Error)
    } finally {
      this.#posting = false
    }
  }

  /** False when rows are left that must wait. */
  #postRows(): boolean {
    try {
      this.#took(this.#channel.post(this.#batch, this.#first, this.#last - this.#first))
      return this.#first === this.#last
    } catch (error) {
      this.#took((error as { accepted?: number }).accepted ?? 0)
      this.#refused(error as Error)
      return true
    }
  }

  /** While the ring has room it is a gate or a mapping that rows wait for. */
  #countParked(): void {
    if (this.#channel.stats.inFlight >= this.#channel.depth) return
    const end = this.#channel.isRunning ? this.#first + 1 : this.#last
    this.#tally.counts.operationsParked += Math.max(0, end - Math.max(this.#first, this.#parked))
    this.#parked = Math.max(this.#parked, end)
  }

  /** Whether there is anything to post. */
  #fill(): boolean {
    if (this.#first < this.#last) return true
    this.#first = 0
    this.#last = 0
    this.#parked = 0
    const batch = this.#batch
    while (this.#last < batch.capacity) {
      const next = this.#waiting.shift()
      if (next === undefined) break
      const row = this.#last++
      batch.op[row] = next.op
      batch.source[row] = next.source?.id ?? 0
      batch.sourceOffset[row] = next.sourceOffset ?? 0
      batch.target[row] = next.target?.id ?? 0
      batch.targetOffset[row] = next.targetOffset ?? 0
      batch.length[row] = next.length
      batch.cookie[row] = ++this.#cookie
      this.#outstanding.set(this.#cookie, next)
    }
    return this.#last > 0
  }

  #took(accepted: number): void {
    this.#first += accepted
    this.#posted += accepted
    this.#accepted += accepted
    if (accepted > 0) this.#start()
  }

  /** The first row that is left will never be accepted. */
  #refused(error: Error): void {
    const cookie = this.#batch.cookie[this.#first] ?? 0
    this.#first++
    this.#settle(cookie, error, 0)
  }

  async #reap(): Promise<void> {
    this.#reaping = true
    try {
      while (this.#posted > 0) {
        const isOver = this.#channel.stats.inFlight === 0
        // Not right after posting: what a quick device has done by then was in flight for a turn.
        await this.#channel.completions()
        if (!this.#reapOnce() && isOver) throw new Error('a completion never came')
      }
    } catch (error) {
      this.#giveUp(error as Error)
    } finally {
      this.#reaping = false
    }
  }

  #reapOnce(): boolean {
    const out = this.#completions
    const count = this.#channel.reap(out)
    for (let i = 0; i < count; i++) {
      const error = statusError(out.status[i] ?? Status.FAULT)
      if (this.#settle(out.cookie[i] ?? 0, error, out.result[i] ?? 0)) this.#posted--
      // A second completion of the same operation.
      else this.#tally.counts.doubled++
    }
    return count > 0
  }

  /** Nothing more will complete: the channel is closed, or the device has lost track. */
  #giveUp(error: Error): void {
    this.#first = 0
    this.#last = 0
    this.#posted = 0
    for (const cookie of [...this.#outstanding.keys()]) this.#settle(cookie, error, 0)
    for (const row of this.#waiting.splice(0)) row.ended(error, 0)
  }

  /** False where nothing is outstanding under this cookie. */
  #settle(cookie: number, error: Error | null, result: number): boolean {
    const row = this.#outstanding.get(cookie)
    if (row === undefined) return false
    this.#outstanding.delete(cookie)
    row.ended(error, result)
    return true
  }
}

function statusError(status: number): P2pdmaError | null {
  if (status === Status.OK) return null
  const code = status === Status.OUTCOME_UNKNOWN ? 'ERR_OUTCOME_UNKNOWN' : 'ERR_SMOKE_FAILED'
  return new P2pdmaError(`completed with status ${status}`, { code })
}

/** The two forms of work behind one face: copies in, and when all are done, how many failed. */
import type { Attachment } from '../move-notify/attachment.js'
import { Batch, Completions, Op, Status } from '../move-notify/batch.js'
import type { Channel } from '../move-notify/channel.js'
import type { Tally } from './tally.js'

export interface Copy {
  from: Attachment
  fromOffset: number
  to: Attachment
  toOffset: number
  length: number
}

export type Form = 'promise' | 'batch'

export interface Lane {
  readonly channel: Channel
  /** Resolves when every copy has ended, with how many failed; the errors are in the tally. */
  copy(copies: readonly Copy[]): Promise<number>
  /** Adds what the channel has counted to the tally. Call it once, when all is quiet. */
  count(): void
}

export function openLane(form: Form, channel: Channel, tally: Tally): Lane {
  return form === 'promise' ? new PromiseLane(channel, tally) : new BatchLane(channel, tally)
}

class PromiseLane implements Lane {
  readonly channel: Channel
  readonly #tally: Tally

  constructor(channel: Channel, tally: Tally) {
    this.channel = channel
    this.#tally = tally
  }

  async copy(copies: readonly Copy[]): Promise<number> {
    const done = await Promise.allSettled(
      copies.map(({ from, fromOffset, to, toOffset, length }) =>
        this.channel.copy(from, fromOffset, to, toOffset, length),
      ),
    )
    let failed = 0
    for (const each of done) {
      if (each.status === 'fulfilled') continue
      failed++
      this.#tally.failed('failedOperations', each.reason)
    }
    return failed
  }

  count(): void {
    countChannel(this.channel, this.#tally)
    this.#tally.counts.operationsParked += this.channel.stats.parked
  }
}

/** What `copy()` waits for. */
interface Group {
  left: number
  failed: number
  resolve: (failed: number) => void
}

/** Work that has no row in the batch yet. */
interface Waiting {
  copy: Copy
  group: Group
}

const ROWS = 64

class BatchLane implements Lane {
  readonly channel: Channel
  readonly #tally: Tally
  readonly #batch = new Batch(ROWS)
  readonly #completions = new Completions(ROWS)
  readonly #waiting: Waiting[] = []
  /** By cookie: what has a row, or has been posted. */
  readonly #outstanding = new Map<number, Group>()
  /** Rows `first` to `last - 1` of the batch are still to be posted. */
  #first = 0
  #last = 0
  /** Rows before this one have been counted as parked. */
  #parked = 0
  /** Operations accepted whose completion has not been seen. */
  #posted = 0
  #cookie = 0
  #posting = false
  #reaping = false

  constructor(channel: Channel, tally: Tally) {
    this.channel = channel
    this.#tally = tally
  }

  copy(copies: readonly Copy[]): Promise<number> {
    return new Promise((resolve) => {
      const group: Group = { left: copies.length, failed: 0, resolve }
      for (const copy of copies) this.#waiting.push({ copy, group })
      this.#start()
    })
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
        await this.channel.ready(this.#batch, this.#first)
      }
    } catch (error) {
      this.#giveUp(error)
    } finally {
      this.#posting = false
    }
  }

  /** False when rows are left that must wait. */
  #postRows(): boolean {
    try {
      this.#took(this.channel.post(this.#batch, this.#first, this.#last - this.#first))
      return this.#first === this.#last
    } catch (error) {
      this.#took((error as { accepted?: number }).accepted ?? 0)
      this.#refused(error)
      return true
    }
  }

  /** While the ring has room it is a gate or a mapping that rows wait for. */
  #countParked(): void {
    if (this.channel.stats.inFlight >= this.channel.depth) return
    const end = this.channel.isRunning ? this.#first + 1 : this.#last
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
      batch.op[row] = Op.COPY
      batch.source[row] = next.copy.from.id
      batch.sourceOffset[row] = next.copy.fromOffset
      batch.target[row] = next.copy.to.id
      batch.targetOffset[row] = next.copy.toOffset
      batch.length[row] = next.copy.length
      batch.cookie[row] = ++this.#cookie
      this.#outstanding.set(this.#cookie, next.group)
    }
    return this.#last > 0
  }

  #took(accepted: number): void {
    this.#first += accepted
    this.#posted += accepted
    if (accepted > 0) this.#start()
  }

  /** The first row that is left will never be accepted. */
  #refused(error: unknown): void {
    const cookie = this.#batch.cookie[this.#first] ?? 0
    this.#first++
    this.#settle(cookie, error)
  }

  async #reap(): Promise<void> {
    this.#reaping = true
    try {
      while (this.#posted > 0) {
        if (this.#reapOnce()) continue
        if (this.channel.stats.inFlight === 0) throw new Error('a completion never came')
        await this.channel.completions()
      }
    } catch (error) {
      this.#giveUp(error)
    } finally {
      this.#reaping = false
    }
  }

  #reapOnce(): boolean {
    const out = this.#completions
    const count = this.channel.reap(out)
    for (let i = 0; i < count; i++) {
      const status = out.status[i] ?? Status.FAULT
      const error = status === Status.OK ? null : new Error(`completed with status ${status}`)
      if (this.#settle(out.cookie[i] ?? 0, error)) this.#posted--
      // A second completion of the same operation.
      else this.#tally.counts.doubled++
    }
    return count > 0
  }

  /** Nothing more will complete: the channel is closed, or the device has lost track. */
  #giveUp(error: unknown): void {
    this.#first = 0
    this.#last = 0
    this.#posted = 0
    for (const cookie of [...this.#outstanding.keys()]) this.#settle(cookie, error)
    for (const { group } of this.#waiting.splice(0)) this.#end(group, error)
  }

  /** False where nothing is outstanding under this cookie. */
  #settle(cookie: number, error: unknown): boolean {
    const group = this.#outstanding.get(cookie)
    if (group === undefined) return false
    this.#outstanding.delete(cookie)
    this.#end(group, error)
    return true
  }

  #end(group: Group, error: unknown): void {
    if (error !== null) {
      this.#tally.failed('failedOperations', error)
      group.failed++
    }
    group.left--
    if (group.left === 0) group.resolve(group.failed)
  }

  count(): void {
    countChannel(this.channel, this.#tally)
  }
}

function countChannel(channel: Channel, tally: Tally): void {
  const { stops, forcedStops, unmatchedCompletions } = channel.stats
  tally.counts.stops += stops
  tally.counts.forcedStops += forcedStops
  // A completion for which nothing was outstanding.
  tally.counts.doubled += unmatchedCompletions
}

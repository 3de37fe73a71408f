/** Random work on one channel, in either form, each piece checked against the model. */
import { Batch, Completions, Op, Status } from '../../lib/move-notify/importer/batch.js'
import type { Attachment } from '../../lib/move-notify/importer/attachment.js'
import type { Channel } from '../../lib/move-notify/importer/channel.js'
import type { Doubt, Job } from './invariants-model.js'

/** What to do, once the attachments it names have been chosen. */
export interface Work {
  op: number
  source: Attachment | null
  sourceOffset: number
  target: Attachment
  targetOffset: number
  length: number
  operand: number
  job: Job
}

/** How a rejection leaves the target; undefined: there is no such outcome for this work. */
export function doubtOf(code: string | undefined, op: number): Doubt | undefined {
  switch (code) {
    case 'ABORT_ERR':
      return 'either'
    case 'ERR_CLOSED':
    case 'ERR_REVOKED':
      return 'prefix'
    case 'ERR_OUTCOME_UNKNOWN':
      return op === Op.FETCH_ADD ? 'either' : undefined
    default:
      return undefined
  }
}

export interface Lane {
  submit(work: Work, signal?: AbortSignal): Promise<void>
}

/** Counts by outcome, and what should not have happened. */
export class Tally {
  readonly outcomes = new Map<string, number>()
  readonly surprises: string[] = []

  count(outcome: string): void {
    this.outcomes.set(outcome, (this.outcomes.get(outcome) ?? 0) + 1)
  }

  failed(what: string, error: unknown, work: Work): void {
    const { code } = error as { code?: string }
    this.count(`${what} ${code}`)
    const doubt = doubtOf(code, work.op)
    if (doubt === undefined) this.surprises.push(`${what}: ${String(error)}`)
    else if (work.op === Op.FETCH_ADD) work.job.doubtful(doubt)
    else work.job.doubtful(doubt, () => isGone(work))
  }
}

/** Work in flight that was aborted goes on, until a revoke or a close cuts it off. */
function isGone({ source, target }: Work): boolean {
  return target.isGone || source?.isGone === true
}

export class PromiseLane implements Lane {
  readonly #channel: Channel
  readonly #tally: Tally

  constructor(channel: Channel, tally: Tally) {
    this.#channel = channel
    this.#tally = tally
  }

  async submit(work: Work, signal?: AbortSignal): Promise<void> {
    const { source, sourceOffset, target, targetOffset, length, operand } = work
    const options = { signal }
    const channel = this.#channel
    try {
      if (source !== null) {
        await channel.copy(source, sourceOffset, target, targetOffset, length, options)
      } else if (work.op === Op.FILL) {
        await channel.fill(target, targetOffset, length, operand, options)
      } else {
        await channel.fetchAdd(target, targetOffset, operand, options)
      }
      this.#tally.count('done')
      work.job.done()
    } catch (error) {
      this.#tally.failed('promise', error, work)
    }
  }
}

interface Posted {
  work: Work
  settled: () => void
}

/** One row at a time goes in; a pump takes out what has completed. */
export class BatchLane implements Lane {
  readonly #channel: Channel
  readonly #tally: Tally
  readonly #batch = new Batch(1)
  readonly #out = new Completions(8)
  readonly #posted = new Map<number, Posted>()
  #cookie = 0
  #turn: Promise<void> = Promise.resolve()
  #pumping = false

  constructor(channel: Channel, tally: Tally) {
    this.#channel = channel
    this.#tally = tally
  }

  submit(work: Work): Promise<void> {
    return new Promise((settled) => {
      this.#turn = this.#turn.then(() => this.#post({ work, settled }))
    })
  }

  async #post(posted: Posted): Promise<void> {
    const batch = this.#batch
    const { work } = posted
    const cookie = ++this.#cookie
    batch.op[0] = work.op
    batch.source[0] = work.source?.id ?? 0
    batch.sourceOffset[0] = work.sourceOffset
    batch.target[0] = work.target.id
    batch.targetOffset[0] = work.targetOffset
    batch.length[0] = work.length
    batch.operand[0] = work.operand
    batch.cookie[0] = cookie
    try {
      while (this.#channel.post(batch, 0, 1) === 0) await this.#channel.ready(batch, 0)
    } catch (error) {
      const { code } = error as { code?: string }
      this.#tally.count(`batch ${code}`)
      if (code !== 'ERR_CLOSED' && code !== 'ERR_REVOKED') {
        this.#tally.surprises.push(`post: ${String(error)}`)
      }
      work.job.end() // it was never posted
      posted.settled()
      return
    }
    this.#posted.set(cookie, posted)
    void this.#pump()
  }

  async #pump(): Promise<void> {
    if (this.#pumping) return
    this.#pumping = true
    while (this.#posted.size > 0) {
      await this.#channel.completions()
      const count = this.#channel.reap(this.#out)
      for (let row = 0; row < count; row++) this.#settle(row)
    }
    this.#pumping = false
  }

  #settle(row: number): void {
    const cookie = this.#out.cookie[row] ?? 0
    const posted = this.#posted.get(cookie)
    if (posted === undefined) {
      this.#tally.surprises.push('a completion for which nothing was posted')
      return
    }
    this.#posted.delete(cookie)
    const { work } = posted
    const status = this.#out.status[row]
    this.#tally.count(`status ${status}`)
    if (status === Status.OK) work.job.done()
    else if (status === Status.NOT_MAPPED) work.job.doubtful('prefix')
    else if (status === Status.OUTCOME_UNKNOWN && work.op === Op.FETCH_ADD) {
      work.job.doubtful('either')
    } else this.#tally.surprises.push(`op ${work.op} completed with status ${status}`)
    posted.settled()
  }
}

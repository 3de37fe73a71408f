/** What was counted: of one scenario, and of the run. */
import { Pauses } from './pauses.js'
import { Verdict } from '../abi.js'

export interface RunCounts {
  /** Distinct stamped bytes that arrived as they were sent. */
  bytesVerified: number
  /** Operations that completed and left the target untouched. */
  lost: number
  /** Operations executed again: a block in a place where it was no more, or a second completion. */
  doubled: number
  /** Operations that completed and left the target mixed. */
  torn: number
  /** Runs of bytes changed in poisoned old backings, and guard lines changed in targets. */
  strayWrites: number
  /** Operations that were rejected, or completed with an error. */
  failedOperations: number
  moves: number
  failedMoves: number
  /** Moves at whose invalidation at least one operation in flight named the buffer. */
  movesWithWorkInFlight: number
  /** Operations that had to wait for a gate or a mapping. */
  operationsParked: number
  stops: number
  forcedStops: number
  /** Frames that a device says it has dropped. */
  framesDropped: number
  /** Frames sent once more: the receiver had not got them. */
  framesResent: number
  /** Operations of which a reset left open whether they were done; settled with the receiver. */
  outcomesUnknown: number
  /** Ends of queue pairs that were connected anew, and devices that were reset. */
  resets: number
}

const zero: RunCounts = {
  bytesVerified: 0,
  lost: 0,
  doubled: 0,
  torn: 0,
  strayWrites: 0,
  failedOperations: 0,
  moves: 0,
  failedMoves: 0,
  movesWithWorkInFlight: 0,
  operationsParked: 0,
  stops: 0,
  forcedStops: 0,
  framesDropped: 0,
  framesResent: 0,
  outcomesUnknown: 0,
  resets: 0,
}

export class Tally {
  readonly counts: RunCounts = { ...zero }
  /** How long each stop kept a gate closed. */
  readonly pauses = new Pauses()
  /** The first few errors of operations and moves. */
  readonly errors: string[] = []
  /** The first one after which nothing more can come; null as long as there is none. */
  fatal: Error | null = null

  /** A slot in which a block was due. */
  arrived(verdict: number, bytes: number): void {
    this.#guards(verdict)
    const content = verdict & Verdict.CONTENT
    if (content === Verdict.INTACT) this.counts.bytesVerified += bytes
    else if (content === Verdict.UNTOUCHED) this.counts.lost++
    else if (content === Verdict.FOREIGN) this.counts.doubled++
    else this.counts.torn++
  }

  /** A slot whose block had been verified: nothing more was due there. */
  settled(verdict: number): void {
    this.#guards(verdict)
    if ((verdict & Verdict.CONTENT) !== Verdict.INTACT) this.counts.doubled++
  }

  #guards(verdict: number): void {
    if ((verdict & Verdict.GUARD_BEFORE) !== 0) this.counts.strayWrites++
    if ((verdict & Verdict.GUARD_AFTER) !== 0) this.counts.strayWrites++
  }

  failed(kind: 'failedOperations' | 'failedMoves', error: unknown): void {
    this.counts[kind]++
    if (this.errors.length < 5) this.errors.push(describe(error))
    if (isFatal(error)) this.fatal ??= error
  }

  add(other: Tally): void {
    for (const key of Object.keys(zero) as (keyof RunCounts)[])
      this.counts[key] += other.counts[key]
    this.pauses.add(other.pauses)
    this.errors.push(...other.errors)
  }
}

/** The device is gone, or the way to it: what else is tried would fail the same way. */
const FATAL = ['ERR_DEVICE_LOST', 'ERR_NO_PROGRESS']

function isFatal(error: unknown): error is Error {
  return FATAL.includes((error as { code?: string } | null)?.code ?? '')
}

/** The error as one line: message, code and hint. */
export function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const { code, hint } = error as { code?: string; hint?: string }
  const known = code === undefined || error.message.includes(code) ? '' : ` (${code})`
  return `${error.message}${known}${hint === undefined ? '' : `; hint: ${hint}`}`
}

/**
 * What the two ends of a queue pair know of each other, where native code that
 * hands over rows and takes completions counts it too (native/verbs/rows/queues.h).
 */
import { WorkCount as At } from '../../abi.js'
import { sharedColumn } from '../queue/shared-columns.js'

export class MessageCounts {
  readonly column = sharedColumn(At.LENGTH, Float64Array)

  /** `number`: the queue pair's, within its engine; from 1. */
  constructor(number: number) {
    this.column[At.NUMBER] = number
    this.column[At.LIFE] = 1
  }

  get number(): number {
    return this.#get(At.NUMBER)
  }

  /** Connected, and not broken. */
  get isReady(): boolean {
    return this.#get(At.IS_READY) !== 0
  }

  set isReady(is: boolean) {
    this.column[At.IS_READY] = is ? 1 : 0
  }

  /** Set while the peer has asked us to keep still. */
  get isPausedByPeer(): boolean {
    return this.#get(At.IS_PAUSED_BY_PEER) !== 0
  }

  set isPausedByPeer(is: boolean) {
    this.column[At.IS_PAUSED_BY_PEER] = is ? 1 : 0
  }

  /** Counts the times that it was connected: a completion of an earlier one is none of ours. */
  get life(): number {
    return this.#get(At.LIFE)
  }

  /** Of this life: messages handed over, empty ones too. */
  get sent(): number {
    return this.#get(At.SENT)
  }

  /** Of this life: what the peer has receives for. */
  get credit(): number {
    return this.#get(At.CREDIT)
  }

  /** The peer has told of so many; never fewer than before. */
  raiseCredit(posted: number): void {
    this.column[At.CREDIT] = Math.max(this.credit, posted)
  }

  /** Of this life: receives handed over. */
  get posted(): number {
    return this.#get(At.POSTED)
  }

  /** Of this life: messages that came, empty ones too. */
  get received(): number {
    return this.#get(At.RECEIVED)
  }

  /** Empty messages handed over that are not done. */
  get voids(): number {
    return this.#get(At.VOIDS)
  }

  /** Completions of what was never handed over, or is done already: dropped. */
  get unmatched(): number {
    return this.#get(At.UNMATCHED)
  }

  /** What the queue pair had is settled: nothing of it is waited for. */
  forgetVoids(): void {
    this.column[At.VOIDS] = 0
  }

  beginLife(): void {
    this.column[At.LIFE] = this.life + 1
    this.column.fill(0, At.SENT, At.RECEIVED + 1)
  }

  #get(at: number): number {
    return this.column[at] ?? 0
  }
}

/** What an engine is opened with, and what it counts. */
import { checkMilliseconds } from '../../errors.js'
import type { PortChoice } from './local-port.js'
import { checkProgressLimits, type ProgressLimits } from './progress.js'

export interface VerbsEngineOptions extends PortChoice {
  /**
   * Resets of a queue pair in a row without progress after which it is given up, with
   * ERR_NO_PROGRESS; progress: a completion of success, or an arrival. Default 8.
   */
  maxResets?: number
  /** How long there may be no progress, from the first such reset on, ms. Default 10,000. */
  resetTimeoutMs?: number
  /**
   * How long nothing that a queue pair has sent may complete before it is reset, ms, beside a
   * second for each megabyte under way. Default 4000: a NIC says RETRY_EXC_ERR sooner.
   */
  stallTimeoutMs?: number
  /**
   * How long a device that is lost may take to leave the kernel's list, ms: then it is known
   * to reach no memory; otherwise what it had is quarantined. Default 5000. Work is rejected
   * at once in either case.
   */
  removalTimeoutMs?: number
}

export interface VerbsStats {
  /** Queue pairs that are open. */
  queues: number
  /** How often these were connected anew. */
  resets: number
  /** Resets since the engine was opened between which nothing got through. */
  fruitlessResets: number
  /** Queue pairs that were given up for it: ERR_NO_PROGRESS. */
  givenUp: number
}

export interface VerbsFault {
  kind: 'queue-pair-error'
  /** A queue pair's name. Default: all of them. */
  queue?: string
}

export interface VerbsBounds extends ProgressLimits {
  removalTimeoutMs: number
}

export function checkVerbsBounds(options: VerbsEngineOptions): VerbsBounds {
  const { removalTimeoutMs = 5000 } = options
  checkMilliseconds('removalTimeoutMs', removalTimeoutMs)
  return { ...checkProgressLimits(options), removalTimeoutMs }
}

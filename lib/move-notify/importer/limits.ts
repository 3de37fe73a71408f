/** What bounds a stop and a restore: an importer's options, checked. */
import { checkBoolean, checkInteger, checkMilliseconds, checkOptions } from '../../errors.js'

export interface ImporterOptions {
  /** How long a drain may take before the channel is forced, ms. Default 1000. */
  stopTimeoutMs?: number
  /** How long a channel runs between two stops at least, ms. Default 1. */
  minRunMs?: number
  /** How often a failed remap is tried again. Default 3. */
  mapRetries?: number
  /** Before the first such retry, ms; doubled each time. Default 1. */
  mapRetryMs?: number
  /** How long a move fence may take, ms. Default 60,000. */
  fenceTimeoutMs?: number
  /** Step 3.1 to the mail's letter: lock all that is in use, not only what moved. */
  lockAll?: boolean
  /** Cancelled restores in a row after which the worker locks all that the channel uses. Default 8. */
  starvationLimit?: number
}

export type ImporterLimits = Readonly<Required<ImporterOptions>>

/** Of a pause that we make: the bound of a stop is a sum of such. */
const LONGEST_PAUSE_MS = 60_000

export function checkImporterLimits(options: ImporterOptions): ImporterLimits {
  checkOptions(options)
  return {
    stopTimeoutMs: checkMilliseconds('stopTimeoutMs', options.stopTimeoutMs ?? 1000),
    minRunMs: checkMilliseconds('minRunMs', options.minRunMs ?? 1, LONGEST_PAUSE_MS),
    mapRetries: checkInteger('mapRetries', options.mapRetries ?? 3, 0, 30),
    mapRetryMs: checkMilliseconds('mapRetryMs', options.mapRetryMs ?? 1, LONGEST_PAUSE_MS),
    fenceTimeoutMs: checkMilliseconds('fenceTimeoutMs', options.fenceTimeoutMs ?? 60_000),
    lockAll: checkBoolean('lockAll', options.lockAll ?? false),
    starvationLimit: checkInteger('starvationLimit', options.starvationLimit ?? 8, 0),
  }
}

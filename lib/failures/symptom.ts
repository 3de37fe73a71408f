/** A row of the table of what stands behind an error code. */
import type { Doing, Failure } from './failure.js'
import type { Machine } from './machine.js'

export interface Symptom {
  /** By which it surfaces. */
  readonly codes: readonly string[]
  /** While one of these is done; default: whatever was called. */
  readonly doing?: readonly Doing[]
  /** Of these calls only, by the name that the error has. */
  readonly syscall?: RegExp
  /** Whether it is so, here and now; a hint that it gives is told. Default: it may be so. */
  readonly when?: (failure: Failure, machine: Machine) => boolean | string
  /** What helps. */
  readonly hint?: string | ((failure: Failure, machine: Machine) => string)
  /** `when` leaves no doubt: nothing else is told. */
  readonly certain?: true
  /** By this, the kernel says that it lacks the call: ERR_UNSUPPORTED. */
  readonly unsupported?: true
  /** Where the code comes from. */
  readonly source: string
}

export const needs = (version: string) => `needs Linux ${version} or later`

/**
 * Memory of the CPU's beside a backing that it has not mapped: patterns are written and read
 * there, and copied by whoever can, in the order of wayToCopy(). There is one at a time in the
 * process, and its size is fixed: whoever wants more takes it piece by piece.
 */
import { checkArray, looksLike, P2pdmaError, typeError } from '../errors.js'
import type { Mapping } from '../kernel/mapping.js'
import type { Backing, Copier, CopyRange } from '../move-notify/exporter/backing.js'
import { checkBacking } from '../move-notify/exporter/exporting.js'
import { type CopiedBy, type Way, wayToCopy } from '../move-notify/exporter/copying.js'
import { quarantine } from '../move-notify/exporter/quarantine.js'
import { withDeadline } from '../move-notify/reservation/deadline.js'
import { FENCE_TIMEOUT_MS } from '../move-notify/reservation/reservation.js'
import { memfd } from './memfd.js'

/** Bytes. */
export const STAGING_BYTES = 1 << 20

export interface Staging {
  /** Of the staging memory, from 0 to STAGING_BYTES. */
  readonly mapping: Mapping
  /** Copies from there into the backing; says by whom. */
  readonly write: (ranges: readonly CopyRange[]) => Promise<CopiedBy>
  /** Copies from the backing to there. */
  readonly read: (ranges: readonly CopyRange[]) => Promise<CopiedBy>
}

/** Settles when the one before is done. */
let turn: Promise<unknown> = Promise.resolve()

/**
 * Runs `use` with the staging memory. ERR_UNSUPPORTED where nobody copies between it and the
 * backing; ETIMEDOUT for a copy that takes longer than `timeoutMs`: both are quarantined then.
 */
export async function withStaging<T>(
  backing: Backing,
  copiers: readonly Copier[],
  use: (staging: Staging) => Promise<T>,
  timeoutMs = FENCE_TIMEOUT_MS,
): Promise<T> {
  checkBacking('backing', backing)
  for (const each of checkArray('copiers', copiers)) {
    if (!looksLike(each, COPIER)) throw typeError('copiers', 'attachments', each)
  }
  const done = turn.then(() => staged(backing, copiers, use, timeoutMs))
  turn = done.catch(() => {})
  return done
}

const COPIER = { copyBetween: 'function' } as const

async function staged<T>(
  backing: Backing,
  copiers: readonly Copier[],
  use: (staging: Staging) => Promise<T>,
  timeoutMs: number,
): Promise<T> {
  const memory = await memfd().allocate(STAGING_BYTES)
  let isOut = false
  const by = (way: () => Way) => {
    let found: Way | null = null
    return async (ranges: readonly CopyRange[]) => {
      found ??= way()
      const late = () => {
        isOut = true
        quarantine(memory)
        quarantine(backing)
        return lateCopy(backing.placement, timeoutMs)
      }
      await withDeadline(found.copy(ranges), timeoutMs, late)
      return found.by
    }
  }
  try {
    const write = by(() => wayToCopy(memory, backing, copiers))
    const read = by(() => wayToCopy(backing, memory, copiers))
    return await use({ mapping: memory.file.mapping, write, read })
  } finally {
    if (!isOut) await memory.free()
  }
}

function lateCopy(placement: string, timeoutMs: number): P2pdmaError {
  return new P2pdmaError(`a copy between memory and ${placement} took more than ${timeoutMs} ms`, {
    code: 'ETIMEDOUT',
    hint: 'the copy may go on: what it reads and writes is not used again',
  })
}

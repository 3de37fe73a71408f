/** Poison for memory that the CPU has not mapped. */
import type { Backing, Copier } from '../move-notify/exporter/backing.js'
import { POISON } from './poison.js'
import { STAGING_BYTES, withStaging } from './staging.js'

const WORD = 8

/**
 * `Backing.poison()` of memory that the CPU has not mapped: the pattern is copied there, by
 * whoever can (see `Backing.copyFrom`). ERR_UNSUPPORTED where nobody can.
 */
export function poisonByCopy(backing: Backing, copiers: readonly Copier[] = []): Promise<void> {
  return withStaging(backing, copiers, async ({ mapping, write }) => {
    await mapping.fill(POISON, 0, Math.min(STAGING_BYTES, backing.size))
    for (const { at, length } of pieces(backing)) {
      await write([{ sourceOffset: 0, targetOffset: at, length }])
    }
  })
}

/** `Backing.countStrayWrites()` of memory that the CPU has not mapped, as `poisonByCopy()`. */
export function countStrayWritesByCopy(
  backing: Backing,
  copiers: readonly Copier[] = [],
): Promise<number> {
  return withStaging(backing, copiers, async ({ mapping, read }) => {
    let runs = 0
    let goesOn = false
    for (const { at, length } of pieces(backing)) {
      await read([{ sourceOffset: at, targetOffset: 0, length }])
      runs += await mapping.countRuns(POISON, 0, length)
      // One that goes on from the piece before has been counted there.
      if (goesOn && (await mapping.countRuns(POISON, 0, WORD)) > 0) runs--
      goesOn = (await mapping.countRuns(POISON, length - WORD, WORD)) > 0
    }
    return runs
  })
}

function* pieces({ size }: Backing): Generator<{ at: number; length: number }> {
  for (let at = 0; at < size; at += STAGING_BYTES) {
    yield { at, length: Math.min(STAGING_BYTES, size - at) }
  }
}

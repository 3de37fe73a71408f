/** What a run will use and do to others, said before it begins. */
import { STAGING_BYTES } from '../exporters/staging.js'
import { EFFECTS, type Effect } from './effects.js'
import type { CheckedExporter } from './exporter-check.js'
import { mebibytes, ownBytes } from './memory.js'
import type { ProfileName, SmokeOptions } from './options.js'
import { neededBytes } from './plan.js'
import type { Scenario } from './scenarios.js'

export interface Planned {
  profile: ProfileName | null
  /** About so much of it at once, buffers and all, bytes. */
  memoryBytes: number
  /** The caps; null where there is none. */
  maxMemoryBytes: number | null
  maxGbps: number | null
  seconds: number | null
  /** What it does outside of its own process. */
  effects: Effect[]
  /** To what, in words. */
  touches: string[]
}

/** `checked`: what the CPU has not mapped is stamped in memory beside it. */
export function planned(
  options: SmokeOptions,
  played: readonly Scenario[],
  checked: readonly CheckedExporter[],
): Planned {
  const staging = checked.some(({ isMapped }) => !isMapped) ? STAGING_BYTES : 0
  return {
    profile: options.profile,
    memoryBytes: ownBytes() + neededBytes(options, played) + staging,
    maxMemoryBytes: options.maxMemory,
    maxGbps: options.maxGbps,
    seconds: options.seconds,
    effects: [...new Set(played.flatMap(({ effects }) => effects))],
    touches: [...new Set(played.flatMap(({ touches }) => touches ?? []))],
  }
}

/** Two lines for a reader. */
export function describePlanned(plan: Planned): string[] {
  const { memoryBytes, maxMemoryBytes, maxGbps, seconds, effects, touches } = plan
  const memory = `about ${mebibytes(memoryBytes)} of memory`
  const cap = maxMemoryBytes === null ? 'no cap' : `${mebibytes(maxMemoryBytes)} at most`
  const rate = maxGbps === null ? 'any bandwidth' : `${maxGbps} Gbit/s at most`
  const time = seconds === null ? 'no bound on time' : `${seconds} s at most`
  const done = effects.map((effect) => `it ${EFFECTS[effect]}`).join(', ')
  const whose = touches.length === 0 ? '' : ` (${touches.join('; ')})`
  return [
    `will use ${memory} (${cap}), ${rate}, ${time}`,
    effects.length === 0
      ? 'will change nothing outside of this process'
      : `disruptive, as asked for: ${done}${whose}`,
  ]
}

/** What the tests of the heart's model share. */
import type { Test } from 'tap'
import type { Call, HeartOptions } from './cases/heart.js'
import { type Exploration, explore, report, type Result } from './explore.js'
import type { Patch } from './loader.js'

export type Bounds = Omit<Partial<Exploration<HeartOptions>>, 'options'>

/** A time that has passed is one event and one turn more; its slices would be events each. */
const WHOLE_BOUNDS: Patch[] = [
  { file: 'lib/kernel/patience.ts', find: 'SLICE_MS = 100', replace: 'SLICE_MS = Infinity' },
  { file: 'lib/kernel/patience.ts', find: 'SLICES = 4', replace: 'SLICES = 1' },
  // Where nobody gives a time there is none: it would be one more thing that can happen at any time.
  {
    file: 'lib/move-notify/reservation/reservation.ts',
    find: 'FENCE_TIMEOUT_MS = 60_000',
    replace: 'FENCE_TIMEOUT_MS = Infinity',
  },
]

export function heart(options: HeartOptions, bounds: Bounds = {}): Exploration<HeartOptions> {
  const patches = [...WHOLE_BOUNDS, ...(bounds.patches ?? [])]
  return { file: 'test/model/cases/heart.ts', scenario: 'heart', options, ...bounds, patches }
}

/** Runs every interleaving (within the bounds); each name says the bound. */
export function exhaust(t: Test, name: string, options: HeartOptions, bounds: Bounds = {}): Result {
  const result = explore(heart(options, bounds))
  const { preemptions } = bounds
  const bound = preemptions === undefined ? '' : `, at most ${preemptions} preemptions`
  t.comment(`${name}: ${result.executions} executions${bound}`)
  if (result.failure !== null) t.fail(`${name}: ${report(result.failure)}`)
  else t.ok(result.complete, name)
  return result
}

export function fill(target: number, at: number, length: number, byte: number, channel = 0): Call {
  return { do: 'fill', channel, target, at, length, byte }
}

/** Copies the first `length` bytes. */
export function copy(source: number, target: number, length: number, channel = 0): Call {
  return { do: 'copy', channel, source, from: 0, target, at: 0, length }
}

export function add(target: number, value: number, channel = 0): Call {
  return { do: 'add', channel, target, at: 0, value }
}

export function move(buffer: number, signal?: string): Call {
  return signal === undefined ? { do: 'move', buffer } : { do: 'move', buffer, signal }
}

export function close(what: 'buffer' | 'attachment' | 'channel' | 'importer', index = 0): Call {
  return { do: 'close', what, index }
}

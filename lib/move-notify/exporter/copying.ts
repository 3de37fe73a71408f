/**
 * Who gets the bytes from one backing into another. Asked in order, and before anything is
 * stopped: the new place, which pulls; the old one, which pushes; a device that has both
 * mapped; the CPU.
 */
import { setImmediate as turn } from 'node:timers/promises'
import { checkInteger, P2pdmaError, rangeError } from '../../errors.js'
import type { Backing, Copier, Copy, CopyRange } from './backing.js'

/** By whom a copy is made. */
export type CopiedBy = 'pull' | 'push' | 'engine' | 'cpu'

export interface Way {
  /** `pull`: the target's exporter. `push`: the source's. `engine`: a device that has both mapped. */
  readonly by: CopiedBy
  readonly copy: Copy
}

/** The way by which `source` is copied to `target`; copies nothing. ERR_UNSUPPORTED where there is none. */
export function wayToCopy(source: Backing, target: Backing, copiers: Iterable<Copier>): Way {
  if (target.canCopyFrom?.(source) ?? true) {
    return { by: 'pull', copy: eachRange((range) => target.copyFrom(source, range)) }
  }
  if (source.copyTo !== undefined && (source.canCopyTo?.(target) ?? true)) {
    const push = (range?: CopyRange) =>
      source.copyTo?.(target, range) ?? Promise.reject(noWay(source, target))
    return { by: 'push', copy: eachRange(push) }
  }
  for (const each of copiers) {
    const copy = each.copyBetween(source, target)
    if (copy !== null) return { by: 'engine', copy }
  }
  if (source.mapping !== null && target.mapping !== null) {
    return { by: 'cpu', copy: (ranges) => copyByCpu(source, target, ranges) }
  }
  throw noWay(source, target)
}

/** `range`, looked at; where it is left out, as many bytes as both have. ERR_OUT_OF_RANGE. */
export function rangeToCopy(source: Backing, target: Backing, range?: CopyRange): CopyRange {
  if (range === undefined) {
    return { sourceOffset: 0, targetOffset: 0, length: Math.min(source.size, target.size) }
  }
  const { sourceOffset, targetOffset, length } = range
  checkInteger('range.length', length)
  for (const [name, offset, { size }] of [
    ['sourceOffset', sourceOffset, source],
    ['targetOffset', targetOffset, target],
  ] as const) {
    checkInteger(`range.${name}`, offset)
    if (offset + length > size) {
      throw rangeError(`range.${name}`, `with the length within the ${size} bytes`, offset + length)
    }
  }
  return { sourceOffset, targetOffset, length }
}

/** The whole is begun at once; ranges one after the other. */
function eachRange(copy: (range?: CopyRange) => Promise<void>): Copy {
  return async (ranges) => {
    if (ranges === undefined) return copy()
    for (const range of ranges) await copy(range)
  }
}

/** What the CPU copies in one turn of the event loop, bytes. */
const CHUNK = 256 << 10

async function copyByCpu(
  source: Backing,
  target: Backing,
  ranges: readonly CopyRange[] = [rangeToCopy(source, target)],
): Promise<void> {
  const from = await source.openCpuWindow('r')
  try {
    const to = await target.openCpuWindow('w')
    try {
      for (const { sourceOffset, targetOffset, length: size } of ranges) {
        for (let at = 0; at < size; at += CHUNK) {
          const length = Math.min(CHUNK, size - at)
          to.view(targetOffset + at, length).set(from.view(sourceOffset + at, length))
          await turn()
        }
      }
    } finally {
      await to.end()
    }
  } finally {
    await from.end()
  }
}

function noWay(source: Backing, target: Backing): P2pdmaError {
  const [from, to] = [source.placement, target.placement]
  return new P2pdmaError(`Nobody can copy from ${from} to ${to}`, {
    code: 'ERR_UNSUPPORTED',
    argument: 'exporter',
    hint: `neither does ${to} read there, nor ${from} write there, nor has a device that copies mapped both, nor the CPU: move by way of a placement that both know`,
  })
}

/**
 * Who gets the bytes from one backing into another. Asked in order, and before anything is
 * stopped: the new place, which pulls; the old one, which pushes; a device that has both
 * mapped; the CPU.
 */
import { setImmediate as turn } from 'node:timers/promises'
import { P2pdmaError } from '../../errors.js'
import type { Backing } from './backing.js'

/** Starts the copy; settles once, when no byte will be read or written any more. */
export type Copy = () => Promise<void>

/** Somebody's device that may be able to copy: null where it cannot. */
export interface Copier {
  copyBetween(source: Backing, target: Backing): Copy | null
}

/**
 * The way by which `source` is copied to `target`, as many bytes as both have. Throws
 * ERR_UNSUPPORTED where there is none; copies nothing.
 */
export function wayToCopy(source: Backing, target: Backing, copiers: Iterable<Copier>): Copy {
  if (target.canCopyFrom?.(source) ?? true) return () => target.copyFrom(source)
  if (source.copyTo !== undefined && (source.canCopyTo?.(target) ?? true)) {
    return () => source.copyTo?.(target) ?? Promise.reject(noWay(source, target))
  }
  for (const each of copiers) {
    const copy = each.copyBetween(source, target)
    if (copy !== null) return copy
  }
  if (source.mapping !== null && target.mapping !== null) return () => copyByCpu(source, target)
  throw noWay(source, target)
}

/** What the CPU copies in one turn of the event loop, bytes. */
const CHUNK = 256 << 10

async function copyByCpu(source: Backing, target: Backing): Promise<void> {
  const from = await source.openCpuWindow('r')
  try {
    const to = await target.openCpuWindow('w')
    try {
      const size = Math.min(source.size, target.size)
      for (let at = 0; at < size; at += CHUNK) {
        const length = Math.min(CHUNK, size - at)
        to.view(at, length).set(from.view(at, length))
        await turn()
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

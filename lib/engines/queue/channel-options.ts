/** The checks of a channel's options that all engines have in common. */
import { P2pdmaError, checkInteger, checkOptions, typeError } from '../../errors.js'
import type { EngineChannelOptions } from '../../move-notify/importer/engine.js'

/**
 * Throws a typed error that names what is wrong; a depth is a power of two, up to `maxDepth`.
 * Returns what was checked: a getter may say something else the next time.
 */
export function checkChannelOptions(
  options: EngineChannelOptions,
  maxDepth: number,
): EngineChannelOptions {
  const { queue, onCompletion, onUse, onClosed, depth: wanted } = checkOptions(options)
  const depth = checkInteger('depth', wanted, 1, maxDepth)
  if ((depth & (depth - 1)) !== 0) {
    throw new P2pdmaError(`depth must be a power of two, not ${depth}`, {
      code: 'ERR_OUT_OF_RANGE',
      argument: 'depth',
    })
  }
  if (queue !== undefined && typeof queue !== 'string') throw typeError('queue', 'a string', queue)
  if (typeof onCompletion !== 'function') {
    throw typeError('onCompletion', 'a function', onCompletion)
  }
  if (onUse !== undefined && typeof onUse !== 'function') {
    throw typeError('onUse', 'a function', onUse)
  }
  if (onClosed !== undefined && typeof onClosed !== 'function') {
    throw typeError('onClosed', 'a function', onClosed)
  }
  return {
    depth,
    onCompletion,
    ...(queue !== undefined && { queue }),
    ...(onUse !== undefined && { onUse }),
    ...(onClosed !== undefined && { onClosed }),
  }
}

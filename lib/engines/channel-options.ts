/** The checks of a channel's options that all engines have in common. */
import { P2pdmaError, checkInteger, typeError } from '../errors.js'
import type { EngineChannelOptions } from '../move-notify/engine.js'

/** Throws a typed error that names what is wrong; a depth is a power of two, up to `maxDepth`. */
export function checkChannelOptions(options: EngineChannelOptions, maxDepth: number): void {
  if (typeof options !== 'object' || options === null) {
    throw typeError('options', 'an object', options)
  }
  const { queue, onCompletion, onClosed } = options
  const depth = checkInteger('depth', options.depth, 1, maxDepth)
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
  if (onClosed !== undefined && typeof onClosed !== 'function') {
    throw typeError('onClosed', 'a function', onClosed)
  }
}

/** How a link is lost. What a peer sends and may not is a `protocolError`. */
import { P2pdmaError } from '../../../errors.js'

/** No hello in time. */
export function silent(name: string, timeoutMs: number): P2pdmaError {
  return new P2pdmaError(`No hello from ${name} in ${timeoutMs} ms`, {
    code: 'ETIMEDOUT',
    hint: 'is it p2pdma that listens there, and can its answer get through?',
  })
}

export function lost(name: string, how: string, cause?: Error | null): P2pdmaError {
  const { code, errno, syscall } = (cause ?? {}) as NodeJS.ErrnoException
  const why = cause == null ? '' : `: ${code ?? cause.message}`
  return new P2pdmaError(`Lost ${name}: ${how}${why}`, {
    code: 'ERR_PEER_LOST',
    errno,
    syscall,
    cause: cause ?? undefined,
  })
}

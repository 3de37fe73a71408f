/** Waiting until a file is ready, on the caller's own event loop. */
import { P2pdmaError, abortError, checkInteger, checkOptions, checkSignal } from '../errors.js'
import { native, type Native, type NativeFd } from '../native.js'
import { translate } from './call.js'
import { Patience } from './patience.js'

export interface WaitOptions {
  /** Aborts the wait: ABORT_ERR. */
  signal?: AbortSignal | undefined
  /** Gives up after so many milliseconds: ETIMEDOUT. Default: never. */
  timeoutMs?: number | undefined
}

/** uv_poll's events; poll(2) has other numbers for them. */
export const Ready = { READABLE: 1, WRITABLE: 2 } as const

const POLLIN = 0x0001
const POLLOUT = 0x0004

/** A wait in progress. */
export interface Wait {
  readonly promise: Promise<void>
  /** Ends it early, by rejecting it. No-op once it is over. */
  cancel(reason: Error): void
}

/** Whether the file is ready now. */
export function isReady(fd: NativeFd, event: number, system: PollCalls = native): boolean {
  const wanted = event === Ready.READABLE ? POLLIN : POLLOUT
  return (system.pollNow(fd, wanted) & wanted) !== 0
}

/** The calls this file makes, so that a test can answer for the kernel. */
export type PollCalls = Pick<Native, 'pollFd' | 'pollNow'>

/** Starts a wait for one event of `Ready`; the descriptor may be closed meanwhile. */
export function startWait(
  fd: NativeFd,
  event: number,
  options: WaitOptions = {},
  system: PollCalls = native,
): Wait {
  const { signal, timeoutMs } = checkOptions(options)
  checkSignal(signal)
  if (timeoutMs !== undefined) checkInteger('timeoutMs', timeoutMs, 0, 0x7fffffff)
  let settle: (error?: Error) => void = () => undefined
  const promise = new Promise<void>((resolve, reject) => {
    let stop: (() => void) | undefined
    let patience: Patience | undefined
    const onAbort = () => {
      if (signal !== undefined) settle(abortError(signal))
    }
    settle = (error) => {
      settle = () => undefined
      stop?.()
      patience?.end()
      signal?.removeEventListener('abort', onAbort)
      if (error === undefined) resolve()
      else reject(error)
    }
    if (signal?.aborted === true) {
      onAbort()
      return
    }
    try {
      if (isReady(fd, event, system)) {
        settle()
        return
      }
      stop = system.pollFd(fd, event, (status) => {
        settle(status === 0 ? undefined : pollError(status))
      })
    } catch (error) {
      // epoll_ctl(2): a file that does not support it is always ready.
      const { code, syscall } = error as NodeJS.ErrnoException
      const always = code === 'EPERM' && syscall === 'epoll_ctl'
      settle(always ? undefined : (translate(error) as Error))
      return
    }
    signal?.addEventListener('abort', onAbort)
    if (timeoutMs !== undefined) {
      patience = new Patience(timeoutMs, () => {
        settle(new P2pdmaError(`Not ready within ${timeoutMs} ms`, { code: 'ETIMEDOUT' }))
      })
    }
  })
  return {
    promise,
    cancel: (reason) => {
      settle(reason)
    },
  }
}

function pollError(status: number): P2pdmaError {
  return new P2pdmaError('The file descriptor cannot be polled', {
    code: 'EBADF',
    errno: status,
    syscall: 'poll',
  })
}

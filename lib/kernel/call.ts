/**
 * Every call of the addon goes through here: what it throws becomes a
 * `P2pdmaError`, with a hint where one is known.
 */
import { P2pdmaError } from '../errors.js'
import { type About, type Doing, explain } from '../failures/index.js'

export interface CallOptions extends About {
  /** What is being done, where an error's code alone does not say what it means. */
  doing?: Doing | undefined
}

/** Makes a synchronous native call. */
export function call<T>(fn: () => T, options: CallOptions = {}): T {
  try {
    return fn()
  } catch (error) {
    throw translate(error, options)
  }
}

/** Makes a native call that returns a promise. */
export async function callAsync<T>(fn: () => Promise<T>, options: CallOptions = {}): Promise<T> {
  try {
    return await fn()
  } catch (error) {
    throw translate(error, options)
  }
}

/** A native error as a `P2pdmaError`; anything else comes back as it is. */
export function translate(error: unknown, options: CallOptions = {}): unknown {
  if (!(error instanceof Error) || error instanceof P2pdmaError) return error
  const { code, errno, syscall, argument } = error as NodeJS.ErrnoException & { argument?: string }
  if (typeof code !== 'string') return error
  const { hint, isUnsupported } = explain({ ...options, code, syscall })
  if (isUnsupported) {
    const message = `Not supported by this kernel (${error.message})`
    const details = { code: 'ERR_UNSUPPORTED', errno, syscall, hint, cause: error }
    return new P2pdmaError(message, details)
  }
  const message = options.path === undefined ? error.message : `${error.message} '${options.path}'`
  return new P2pdmaError(message, { code, errno, syscall, argument, hint })
}

/** The codes of a call that was interrupted and is to be repeated. */
const interrupted: readonly string[] = ['EINTR', 'EAGAIN']

/** Repeats a call for as long as it fails with EINTR or EAGAIN. */
export async function retryInterrupted(fn: () => Promise<void>): Promise<void> {
  for (;;) {
    try {
      await fn()
      return
    } catch (error) {
      if (!interrupted.includes(String((error as NodeJS.ErrnoException).code))) throw error
    }
  }
}

/**
 * Every call of the addon goes through here: what it throws becomes a
 * `P2pdmaError`, with a hint where one is known.
 */
import { P2pdmaError } from '../errors.js'

/** What to load, enable or permit, by error code. */
export type Hints = Readonly<Record<string, string>>

export interface CallOptions {
  hints?: Hints | undefined
  /**
   * Codes by which a kernel says that it lacks the call (ENOTTY nearly
   * always); they become ERR_UNSUPPORTED.
   */
  unsupported?: readonly string[]
  /** What was to be opened, for the message. */
  path?: string
  /** The first kernel version that has the call, for the hint. */
  since?: string
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
  if (options.unsupported?.includes(code) === true) {
    const hint =
      options.since === undefined ? options.hints?.[code] : `needs Linux ${options.since} or later`
    return new P2pdmaError(`Not supported by this kernel (${error.message})`, {
      code: 'ERR_UNSUPPORTED',
      errno,
      syscall,
      hint,
      cause: error,
    })
  }
  const hint = options.hints?.[code]
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

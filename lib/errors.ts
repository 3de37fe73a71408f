/**
 * The one error class of the package. It looks like Node's own system errors:
 * `code` always, `errno` and `syscall` where the kernel said no, `argument`
 * where the caller did, and a `hint` where there is something to load, enable
 * or permit. A function that returns a promise rejects with it, and never throws
 * (brand.ts).
 */
import { types } from 'node:util'

export interface ErrorDetails {
  code: string
  errno?: number | undefined
  syscall?: string | undefined
  argument?: string | undefined
  hint?: string | undefined
  cause?: unknown
}

export class P2pdmaError extends Error {
  readonly code: string
  declare readonly errno?: number
  declare readonly syscall?: string
  declare readonly argument?: string
  declare readonly hint?: string

  constructor(message: string, details: ErrorDetails) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.name = 'P2pdmaError'
    this.code = details.code
    if (details.errno !== undefined) this.errno = details.errno
    if (details.syscall !== undefined) this.syscall = details.syscall
    if (details.argument !== undefined) this.argument = details.argument
    if (details.hint !== undefined) this.hint = details.hint
  }
}

/** Something was used after its close. */
export function closedError(what: string): P2pdmaError {
  return new P2pdmaError(`${what} is closed`, { code: 'ERR_CLOSED' })
}

/**
 * The device is no more, or answers no more: unplugged, reset by somebody else, its driver
 * taken away. All that was in flight and all that waited rejects with it; what was in
 * flight may have been done.
 */
export function deviceLostError(what: string, hint: string, cause?: unknown): P2pdmaError {
  return new P2pdmaError(`${what} is gone`, {
    code: 'ERR_DEVICE_LOST',
    hint: `${hint}; work in flight may have been done: read the target to know`,
    ...(cause !== undefined && { cause }),
  })
}

export function isDeviceLost(error: unknown): error is P2pdmaError {
  return error instanceof P2pdmaError && error.code === 'ERR_DEVICE_LOST'
}

/**
 * Whether a device, or the path to a peer, was given up: then there is one thing to say of
 * all that was under way, whatever had become of it. ERR_NO_PROGRESS: a queue pair was reset
 * again and again, and nothing got through.
 */
export function isGivenUp(error: unknown): error is P2pdmaError {
  return isDeviceLost(error) || (error instanceof P2pdmaError && error.code === 'ERR_NO_PROGRESS')
}

/** An argument of the wrong type: names the argument. */
export function typeError(argument: string, expected: string, value: unknown): P2pdmaError {
  const found = describe(value)
  // A prototype without a private field, or a proxy: see brand().
  const isLookalike = isObject(value) && expected.split(' ').includes(className(value))
  const what = isLookalike ? 'an object that only looks like one' : found
  return new P2pdmaError(`${argument} must be ${expected}, not ${what}`, {
    code: 'ERR_INVALID_ARG_TYPE',
    argument,
  })
}

/** An argument of the right type and a wrong value: names the argument. */
export function rangeError(argument: string, expected: string, value: unknown): P2pdmaError {
  return new P2pdmaError(`${argument} must be ${expected}, not ${describe(value)}`, {
    code: 'ERR_OUT_OF_RANGE',
    argument,
  })
}

/** Checks a byte count, offset or other whole number; returns it. */
export function checkInteger(
  argument: string,
  value: unknown,
  min = 0,
  max = Number.MAX_SAFE_INTEGER,
): number {
  if (typeof value !== 'number') throw typeError(argument, 'a number', value)
  if (!Number.isSafeInteger(value) || value < min || value > max) {
    throw rangeError(argument, `a whole number from ${min} to ${max}`, value)
  }
  return value
}

/** Checks a 64-bit word without a sign; returns it. */
export function checkBigInt(argument: string, value: unknown): bigint {
  if (typeof value !== 'bigint') throw typeError(argument, 'a bigint', value)
  if (BigInt.asUintN(64, value) !== value) {
    throw rangeError(argument, 'a bigint from 0 to 2^64 - 1', value)
  }
  return value
}

/**
 * Checks an options object; returns it. What a getter of the caller's throws is the
 * caller's own, and comes out as it is.
 */
export function checkOptions<T extends object>(value: T, argument = 'options'): T {
  if (!isObject(value) || isRevoked(value)) throw typeError(argument, 'an object', value)
  return value
}

/** Checks a list; returns it. (`Array.isArray` throws at a revoked proxy.) */
export function checkArray(argument: string, value: unknown, expected = 'an array'): unknown[] {
  if (isObject(value) && !isRevoked(value) && Array.isArray(value)) return value as unknown[]
  throw typeError(argument, expected, value)
}

/** Whether it has such fields: what may be anybody's has no brand to go by. */
export function looksLike(
  value: unknown,
  fields: Readonly<Record<PropertyKey, 'function' | 'number' | 'string' | 'boolean' | 'object'>>,
): boolean {
  if (!isObject(value)) return false
  try {
    return Reflect.ownKeys(fields).every((key) => typeof Reflect.get(value, key) === fields[key])
  } catch {
    // A revoked proxy, or one around a native object.
    return false
  }
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}

/** Whether it is a proxy that has nothing behind it any more. */
function isRevoked(value: object): boolean {
  try {
    Reflect.getPrototypeOf(value)
    return false
  } catch {
    return true
  }
}

const aborted = Object.getOwnPropertyDescriptor(AbortSignal.prototype, 'aborted')

/**
 * Checks a `signal` option by asking the platform: what only looks like a signal (an object
 * with half of its methods or its prototype, a proxy) may never tell, or may throw when it
 * is listened to.
 */
export function checkSignal(value: unknown): void {
  if (value === undefined) return
  try {
    // Throws unless it is one, or a proxy: which may do with it whatever it likes.
    aborted?.get?.call(value)
    if (!types.isProxy(value)) return
  } catch {
    // It is none.
  }
  throw typeError('signal', 'an AbortSignal', value)
}

/** Checks a time in milliseconds, which may be a fraction; returns it. */
export function checkMilliseconds(argument: string, value: unknown, max = Infinity): number {
  if (typeof value !== 'number') throw typeError(argument, 'a number', value)
  if (!(value >= 0 && value <= max)) {
    throw rangeError(argument, `milliseconds from 0 to ${max}`, value)
  }
  return value
}

export function checkBoolean(argument: string, value: unknown): boolean {
  if (typeof value !== 'boolean') throw typeError(argument, 'a boolean', value)
  return value
}

function describe(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value)
  if (typeof value === 'function') return 'a function'
  if (typeof value === 'object' && value !== null) {
    return `an instance of ${className(value)}`
  }
  return String(value)
}

/** Of an object that may be anybody's: one without a prototype, a revoked proxy. */
function className(value: object): string {
  try {
    return String(value.constructor.name)
  } catch {
    return 'Object'
  }
}

/** What an `AbortSignal` interrupts rejects with; the signal's reason is the cause. */
export function abortError(signal: { readonly reason?: unknown }): P2pdmaError {
  const error = new P2pdmaError('The operation was aborted', {
    code: 'ABORT_ERR',
    cause: signal.reason,
  })
  error.name = 'AbortError'
  return error
}

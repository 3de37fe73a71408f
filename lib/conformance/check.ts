/** What a conformance check is, and how it says what is wrong. */
import { P2pdmaError } from '../errors.js'

/** One thing that the interface asks for. Whatever runs it names it, and tells what it throws. */
export interface ConformanceCheck {
  readonly name: string
  /** Rejects where it is violated; opens what it needs, and closes it. */
  run(): Promise<void>
}

/** How long a check waits for what has to come, ms: a device in software may be slow. */
const PATIENCE_MS = 60_000

/** Throws ERR_NOT_CONFORMING unless it holds. */
export function holds(condition: boolean, what: string): asserts condition {
  if (!condition) throw new P2pdmaError(what, { code: 'ERR_NOT_CONFORMING' })
}

/** Rejects with ERR_NOT_CONFORMING where it takes too long: `what` has not come. */
export async function inTime<T>(work: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      const error = new P2pdmaError(`${what} has not come within ${PATIENCE_MS} ms`, {
        code: 'ERR_NOT_CONFORMING',
      })
      reject(error)
    }, PATIENCE_MS)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}

/** What a call throws or rejects with; violated where it does not, or has no code. */
export async function errorOf(what: string, call: () => unknown): Promise<P2pdmaError> {
  try {
    await call()
  } catch (error) {
    const isTyped = error instanceof Error && typeof (error as P2pdmaError).code === 'string'
    holds(isTyped, `${what} is refused without a code: ${String(error)}`)
    return error as P2pdmaError
  }
  holds(false, `${what} is not refused`)
}

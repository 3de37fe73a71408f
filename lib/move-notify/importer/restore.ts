import { P2pdmaError } from '../../errors.js'
import type { Attachment } from './attachment.js'
import { sleep } from '../reservation/deadline.js'
import { cannotMap, isRefusal } from '../exporter/refusal.js'
import { type Reservation, Usage } from '../reservation/reservation.js'
import { Slice } from '../reservation/slice.js'
import { type AcquireContext, lockAll } from '../reservation/ww-mutex.js'

export interface RestoreLimits {
  /** How often a failed mapping is tried again. */
  mapRetries: number
  /** Before the first retry, ms; doubled for each further one. */
  mapRetryMs: number
  /** How long a move fence may take, ms. */
  fenceTimeoutMs: number
}

/**
 * Steps 3.1 and 3.2: locks the reservations and remaps what is invalid.
 * The outcome is the function that unlocks them again (3.4): at once where
 * there is one attachment, and nothing to wait for.
 */
export function lockAndRestore(
  context: AcquireContext,
  attachments: readonly Attachment[],
  limits: RestoreLimits,
): (() => void) | Promise<() => void> {
  const locks = new Set<Reservation>()
  for (const { buffer } of attachments) locks.add(buffer.reservation)
  const unlock = () => {
    for (const lock of locks) lock.unlock(context)
  }
  const contended = lockAll(context, [...locks])
  const [only] = attachments
  if (contended === undefined && only !== undefined && attachments.length === 1) {
    const remapped = remap(only, limits)
    // Never rejects.
    return remapped === undefined ? unlock : remapped.then(() => unlock)
  }
  return restoreWhenLocked(contended, attachments, limits, unlock)
}

async function restoreWhenLocked(
  contended: void | Promise<void>,
  attachments: readonly Attachment[],
  limits: RestoreLimits,
  unlock: () => void,
): Promise<() => void> {
  if (contended !== undefined) await contended
  try {
    await restoreLocked(attachments, limits)
  } catch (error) {
    unlock()
    throw error
  }
  return unlock
}

async function restoreLocked(
  attachments: readonly Attachment[],
  limits: RestoreLimits,
): Promise<void> {
  const slice = new Slice()
  const pending: Promise<void>[] = []
  for (const attachment of attachments) {
    const turn = slice.next()
    if (turn !== undefined) await turn
    const remapped = remap(attachment, limits)
    if (remapped !== undefined) pending.push(remapped)
  }
  await Promise.all(pending)
}

/**
 * Maps one attachment, then waits for its move fences, as a dynamic importer
 * does. Its buffer's reservation is held. Undefined when done at once. Never
 * rejects: what cannot be remapped fails, alone, until the buffer's next move.
 */
export function remap(attachment: Attachment, limits: RestoreLimits): Promise<void> | undefined {
  const { buffer, importer } = attachment
  if (attachment.state !== 'invalid') return undefined
  let mapped: void | Promise<void>
  try {
    const refused = importer.refusal(attachment, buffer.backing)
    if (refused !== null) throw cannotMap(attachment, buffer.backing, refused)
    mapped = importer.map(attachment)
  } catch (error) {
    mapped = Promise.reject(error)
  }
  if (mapped === undefined && buffer.reservation.isIdle(Usage.KERNEL)) {
    attachment.validate(buffer.generation)
    return undefined
  }
  return finish(attachment, mapped ?? Promise.resolve(), limits)
}

async function finish(
  attachment: Attachment,
  mapped: Promise<void>,
  limits: RestoreLimits,
): Promise<void> {
  const { buffer, importer } = attachment
  try {
    await retried(attachment, mapped, limits)
    await buffer.reservation.wait(Usage.KERNEL, { timeoutMs: limits.fenceTimeoutMs })
  } catch (cause) {
    await importer.unmap(attachment.id)
    attachment.end('failed', remapError(cause))
    return
  }
  // The importer may have been closed or have failed meanwhile.
  if (attachment.state === 'invalid') attachment.validate(buffer.generation)
  else await importer.unmap(attachment.id)
}

async function retried(
  attachment: Attachment,
  mapped: Promise<void>,
  limits: RestoreLimits,
): Promise<void> {
  let attempt = mapped
  for (let retry = 0; ; retry++) {
    try {
      return await attempt
    } catch (error) {
      const isOver = retry >= limits.mapRetries || attachment.state !== 'invalid'
      if (isOver || isRefusal(error)) throw error
      await sleep(limits.mapRetryMs * 2 ** retry)
      attempt = Promise.resolve().then(() => attachment.importer.map(attachment))
    }
  }
}

function remapError(cause: unknown): P2pdmaError {
  const { message, code } = cause as { message?: string; code?: string }
  if (code === 'ERR_FENCE_FAILED' || code === 'ETIMEDOUT') return cause as P2pdmaError
  return new P2pdmaError(`the attachment could not be mapped again: ${message}`, {
    code: 'ERR_REMAP_FAILED',
    hint: 'the buffer is whole; it is tried again after its next move, or attach it again',
    cause,
  })
}

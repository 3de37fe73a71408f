/**
 * Steps 1 and 2 of the flow, the exporter's side: MovableBuffer.move(). What they set going,
 * steps 0, 1.1 to 1.4 and 3.1 to 3.4, is the importer's: ../importer/restart.ts.
 */
import {
  P2pdmaError,
  checkBoolean,
  checkMilliseconds,
  checkOptions,
  checkSignal,
  typeError,
} from '../../errors.js'
import type { Backing, Copier, Exporter } from './backing.js'
import { wayToCopy } from './copying.js'
import { cpuTimedOut } from './cpu-access.js'
import { Allowance, throwIfAborted, withDeadline } from '../reservation/deadline.js'
import { allocate } from './exporting.js'
import { Fence } from '../reservation/fence.js'
import type { MovableBuffer } from './movable-buffer.js'
import { isQuarantined, quarantine } from './quarantine.js'
import { refusalOf } from './refusal.js'
import { FENCE_TIMEOUT_MS, Usage } from '../reservation/reservation.js'
import { SharedSlice } from '../reservation/slice.js'
import { trace } from '../trace.js'
import type { BufferMove } from '../trace.js'
import { AcquireContext } from '../reservation/ww-mutex.js'

export interface MoveOptions {
  /** Rejects with ABORT_ERR while nothing has been stopped yet; after that a move goes through. */
  signal?: AbortSignal | undefined
  /**
   * The acquire context of a caller that holds reservations already. This
   * buffer's may be among them. If it is taken here it is kept until the move has ended.
   */
  context?: AcquireContext
  /**
   * How long the copy may take before the move counts as failed, ms; as long it waits
   * beforehand for the fences of others, all together. Default 60,000.
   */
  copyTimeoutMs?: number
  /**
   * Moves it although an importer cannot map the new place: that attachment fails, and is
   * tried again after the next move. Default false: EOPNOTSUPP.
   */
  force?: boolean
  /** How long brackets of CPU access may hold the move off, ms. Default 30,000. */
  cpuTimeoutMs?: number
}

export interface MoveResult {
  /** The buffer's generation since this move. */
  generation: number
  from: string
  to: string
  /** From the call to the lock, to the last unmap, to the last byte, to the end; ms. */
  lockedMs: number
  invalidatedMs: number
  copiedMs: number
  endMs: number
}

const DONE = Promise.resolve()

/**
 * In one turn of the event loop, of all moves together: so many are given their new backing, and
 * so many are made from there on, as fill a millisecond. Nothing is locked where one waits for
 * its turn. Those that begin in one turn stop a channel once.
 */
const MOVES_PER_TURN = 64
const allocations = new SharedSlice(MOVES_PER_TURN)
const exchanges = new SharedSlice(MOVES_PER_TURN)

class Clock {
  readonly start = performance.now()
  locked = 0
  invalidated = 0
  copied = 0

  now(): number {
    return performance.now() - this.start
  }
}

/** @internal */
export function checkMoveOptions(options: MoveOptions): void {
  const { signal, context, copyTimeoutMs, cpuTimeoutMs, force } = checkOptions(options)
  checkSignal(signal)
  if (context !== undefined && !(context instanceof AcquireContext)) {
    throw typeError('context', 'an AcquireContext', context)
  }
  checkBoolean('force', force ?? false)
  checkMilliseconds('copyTimeoutMs', copyTimeoutMs ?? 0)
  checkMilliseconds('cpuTimeoutMs', cpuTimeoutMs ?? 0)
}

/** @internal */
export async function moveBuffer(
  buffer: MovableBuffer,
  exporter: Exporter,
  options: MoveOptions,
): Promise<MoveResult> {
  const clock = new Clock()
  const from = buffer.placement
  const begun = allocations.next()
  if (begun !== undefined) await begun
  throwIfAborted(options.signal)
  // Step 1. First the new backing: a failure stops nothing.
  const fresh = await allocate(exporter, buffer.size)
  let published = false
  try {
    if (fresh.populate !== undefined) await fresh.populate()
    // Many may have waited for one thing, such as a slab to be made.
    const turn = exchanges.next()
    if (turn !== undefined) await turn
    const result = await exchange(buffer, fresh, options, clock, () => (published = true))
    publish(buffer, from, fresh.placement, clock, null)
    return result
  } catch (error) {
    publish(buffer, from, fresh.placement, clock, error as Error)
    if (!published && !isQuarantined(fresh)) await fresh.free()
    throw error
  }
}

async function exchange(
  buffer: MovableBuffer,
  fresh: Backing,
  options: MoveOptions,
  clock: Clock,
  onPublished: () => void,
): Promise<MoveResult> {
  // The reservation: from here on nobody else moves it.
  const unlock = await lockForMove(buffer, options)
  // With a context the lock is kept to the end: to take the buffer back under
  // it again could mean to back off, which this late nobody can.
  const keep = options.context !== undefined
  clock.locked = clock.now()
  let old: Backing
  let fence: Fence | null = null
  let generation: number
  try {
    old = buffer.backing
    // Everybody is asked, and all others are waited for, before anything is stopped.
    const refusal = options.force === true ? null : refusalOf(buffer.attachments, fresh)
    if (refusal !== null) throw refusal
    const way = wayToCopy(old, fresh, copiersOf(buffer))
    if (!buffer.reservation.isIdle(Usage.BOOKKEEP)) await waitForOthers(buffer, options)
    // Every mapping must go: steps 1.1 to 1.4 of each attachment.
    const invalidated = invalidateAll(buffer, old)
    if (invalidated !== undefined) await invalidated
    clock.invalidated = clock.now()
    // Step 2: the copy is queued, and its fence tells when the new backing may be used. One that
    // is done at once needs none.
    const copied = fresh.copyNow?.(old) === true
    if (copied) clock.copied = clock.now()
    const copy = copied ? DONE : way.copy()
    if (fresh.isDmaBuf && !copied) {
      // A kernel importer could be given the new fd; see Backing.isDmaBuf.
      try {
        await bounded(copy, options)
      } catch (error) {
        // A copy that hangs may write still.
        if ((error as P2pdmaError).code === 'ETIMEDOUT') {
          quarantine(fresh)
          quarantine(old)
        }
        throw error
      }
    }
    buffer.reservation.prune()
    if (!copied) {
      // Signalled within the deadline, in any case: who holds the reservation may wait for it.
      fence = Fence.of(bounded(copy, options))
      buffer.reservation.addMoveFence(fence)
    }
    // The new generation: the workers find it as soon as they have the lock.
    buffer.publish(fresh)
    generation = buffer.generation
    onPublished()
    for (const attachment of buffer.attachments) attachment.retry()
  } catch (error) {
    unlock()
    throw error
  }
  if (!keep) unlock()
  try {
    // Without a fence, a turn: the channels are restarted in it, and the old backing can wait.
    await fence?.wait()
    if (fence !== null) clock.copied = clock.now()
  } catch (failure) {
    const error = timedOut(failure) ?? (failure as P2pdmaError)
    if (!keep) await buffer.reservation.lock()
    if (fence !== null) buffer.reservation.forget(fence)
    await takeBack(buffer, fresh, old, generation, error).finally(unlock)
    throw error
  }
  if (keep) unlock()
  // Only now: until the fence has signalled the copy reads it.
  await buffer.retire(old)
  return {
    generation,
    from: old.placement,
    to: fresh.placement,
    lockedMs: clock.locked,
    invalidatedMs: clock.invalidated,
    copiedMs: clock.copied,
    endMs: clock.now(),
  }
}

/** Takes the reservation when no bracket of CPU access is open. Returns the unlock. */
async function lockForMove(buffer: MovableBuffer, options: MoveOptions): Promise<() => void> {
  const { reservation } = buffer
  const { context, signal } = options
  const cpuTimeoutMs = options.cpuTimeoutMs ?? 30_000
  const allowance = new Allowance(cpuTimeoutMs)
  const mine = context !== undefined && reservation.holder === context
  for (;;) {
    const admitted = buffer.cpuBrackets?.holdOff()
    try {
      // Before the lock: whoever is in a bracket may need the lock to get out.
      if (admitted !== undefined) {
        await allowance.spend(admitted.idle(), () => cpuTimedOut(cpuTimeoutMs), signal)
      }
      throwIfAborted(signal)
      if (!mine) await reservation.lock(context, signal && { signal })
    } finally {
      admitted?.release()
    }
    const unlock = () => {
      if (!mine) reservation.unlock(context)
    }
    try {
      throwIfAborted(signal)
      buffer.checkUsable()
      if (buffer.isPinned) {
        throw new P2pdmaError('the buffer is pinned', {
          code: 'EBUSY',
          hint: 'unpin it first: a pin is a promise that it does not move',
        })
      }
    } catch (error) {
      unlock()
      throw error
    }
    if (buffer.cpuBrackets?.isIdle ?? true) return unlock
    unlock()
  }
}

/**
 * Work that fences stand for: an earlier move's copy into what is now the old
 * backing, and what others do there. As ttm_bo_wait_ctx() (drivers/gpu/drm/ttm/ttm_bo.c)
 * it minds every usage. Nothing has been stopped yet.
 */
async function waitForOthers(buffer: MovableBuffer, options: MoveOptions): Promise<void> {
  const { reservation } = buffer
  const timeoutMs = options.copyTimeoutMs ?? FENCE_TIMEOUT_MS
  await reservation.waitForOthers(Usage.BOOKKEEP, { signal: options.signal, timeoutMs })
}

/**
 * Tells every attachment, then waits for all of them once. Undefined when done at once.
 * Under the reservation.
 */
function invalidateAll(buffer: MovableBuffer, old: Backing): Promise<void> | undefined {
  buffer.reservation.assertHeld('a mapping is invalidated')
  let pending: Promise<void>[] | null = null
  for (const attachment of buffer.attachments) {
    const invalidated = attachment.invalidate()
    if (invalidated !== undefined) (pending ??= []).push(invalidated)
  }
  return pending === null ? undefined : settleAll(pending, old)
}

async function settleAll(pending: readonly Promise<void>[], old: Backing): Promise<void> {
  const done = await Promise.allSettled(pending)
  for (const each of done) {
    if (each.status === 'fulfilled') continue
    // A device that nobody can stop may still write there.
    quarantine(old)
    throw each.reason as Error
  }
}

/**
 * The fence failed or never came: the attachments fail, the new backing is
 * quarantined, and the old one, which nobody has written to since, is the
 * buffer's again. Under the reservation.
 */
async function takeBack(
  buffer: MovableBuffer,
  fresh: Backing,
  old: Backing,
  generation: number,
  error: P2pdmaError,
): Promise<void> {
  buffer.reservation.assertHeld('a buffer is taken back')
  quarantine(fresh)
  if (error.code === 'ETIMEDOUT') quarantine(old)
  if (buffer.generation !== generation) return
  try {
    await invalidateAll(buffer, fresh)
  } finally {
    for (const attachment of buffer.attachments) attachment.fail(error)
    buffer.reservation.prune()
    buffer.publish(old)
  }
}

/** Nobody is listed before they are asked for. */
function* copiersOf(buffer: MovableBuffer): Generator<Copier> {
  yield* buffer.attachments
}

/** The deadline's own error, where that is why the fence failed. */
function timedOut(failure: unknown): P2pdmaError | null {
  const { cause } = failure as { cause?: unknown }
  return cause instanceof P2pdmaError && cause.code === 'ETIMEDOUT' ? cause : null
}

function bounded(work: Promise<void>, options: MoveOptions): Promise<void> {
  const ms = options.copyTimeoutMs ?? FENCE_TIMEOUT_MS
  return withDeadline(
    work,
    ms,
    () =>
      new P2pdmaError(`the copy was not finished within ${ms} ms`, {
        code: 'ETIMEDOUT',
        hint: 'the new backing is quarantined; the buffer is whole where it was',
      }),
  )
}

function publish(
  buffer: MovableBuffer,
  from: string,
  to: string,
  clock: Clock,
  error: Error | null,
): void {
  if (!trace.move.hasSubscribers) return
  trace.move.publish({
    from,
    to,
    generation: buffer.generation,
    bytes: buffer.size,
    lockedMs: clock.locked,
    invalidatedMs: clock.invalidated,
    copiedMs: clock.copied,
    endMs: clock.now(),
    at: performance.now(),
    error,
  } satisfies BufferMove)
}

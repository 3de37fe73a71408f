/**
 * The importer's side of the flow, in the order of its steps: 0 to 1.4 when a mapping must go,
 * 3.1 to 3.4 when there can be one again. Steps 1 and 2, the exporter's: ../exporter/move.ts.
 */
import { P2pdmaError } from '../../errors.js'
import { cannotMap, isRefusal } from '../exporter/refusal.js'
import { sleep, withDeadline } from '../reservation/deadline.js'
import { type Reservation, Usage, reservationClass } from '../reservation/reservation.js'
import { Slice } from '../reservation/slice.js'
import { type AcquireContext, lockAll } from '../reservation/ww-mutex.js'
import { trace } from '../trace.js'
import type { ChannelTransition } from '../trace.js'
import { type Attachment, remapError } from './attachment.js'
import {
  type ChannelEvent,
  type ChannelState,
  type ChannelTableState,
  transitions,
} from './channel-states.js'
import type { Channel } from './channel.js'
import { engineMap, engineUnmap } from './engine-mapping.js'
import type { EngineChannel } from './engine.js'
import type { ImporterLimits } from './limits.js'
import { follow } from './state-table.js'

/**
 * Step 1 as it reaches an importer: this mapping must go. Waits for nothing but the drain of
 * the channels that use it, and the unmap. Undefined where that is done at once.
 * Under the reservation.
 */
export function invalidate(attachment: Attachment): Promise<void> | undefined {
  attachment.buffer.reservation.assertHeld('a mapping is invalidated')
  if (attachment.state !== 'mapped') return undefined
  attachment.importer.engine.seal(attachment.id)
  const users = usersOf(attachment)
  const stopping = stopAll(users, attachment)
  // Step 1.3: it is unavailable, its generation dead.
  const unmapped =
    stopping.length === 0 ? takeAway(attachment) : takeAwayAfter(stopping, attachment)
  launchWorkers(users, attachment)
  return unmapped
}

/**
 * The buffer of an attachment that has failed moves: what could not be mapped where it was may
 * be here. Who holds work that names it, in a channel that is stopped still for another, would
 * do that by the new mapping, whose move fence is outstanding: he stops for this one, too.
 */
export function retry(attachment: Attachment): void {
  const users = usersOf(attachment)
  void stopAll(users, attachment)
  launchWorkers(users, attachment)
}

/** Steps 1.1 and 1.2: hardware access stops, and what has completed is seen. */
function stopAll(users: Channel[], attachment: Attachment): Promise<void>[] {
  attachment.invalidated(users)
  const stopping: Promise<void>[] = []
  for (const { machine } of users) {
    const stopped = machine.stopFor(attachment)
    if (stopped !== undefined) stopping.push(stopped)
  }
  return stopping
}

/** Step 1.4: the workers are launched; of one that nobody uses, one of its own. */
function launchWorkers(users: Channel[], attachment: Attachment): void {
  for (const { machine } of users) machine.launchWorker()
  if (users.length === 0) restoreIdle(attachment)
}

/** Step 0: the channels with work in flight on it, or whose peer holds a key to it. */
function usersOf(attachment: Attachment): Channel[] {
  const known = attachment.importer.shared.users
  const users: Channel[] = []
  for (const channel of known.of(attachment)) {
    if (channel.uses(attachment)) users.push(channel)
    else if (!channel.waitsFor(attachment)) known.remove(attachment, channel)
  }
  return users
}

function takeAway(attachment: Attachment): Promise<void> | undefined {
  attachment.unmapped()
  return engineUnmap(attachment.importer, attachment.id)
}

async function takeAwayAfter(stopping: Promise<void>[], attachment: Attachment): Promise<void> {
  try {
    await Promise.all(stopping)
  } catch (error) {
    attachment.isOutOfReach = false
    throw error
  }
  await takeAway(attachment)
}

/** What the channel does at the machine's turns; all synchronous. */
export interface StopHooks {
  /** The device is quiet: see what has completed. */
  quiet(): void
  /** The gate has opened. */
  opened(): void
  /** After every transition. */
  changed(): void
}

const QUIET = Promise.resolve()

/**
 * A channel's state machine: stops the device for the mappings that must go,
 * remaps them, and opens the gate again. States and events: channel-states.ts.
 */
export class StopAndRestart {
  readonly #owner: Channel
  readonly #device: EngineChannel
  readonly #limits: ImporterLimits
  readonly #hooks: StopHooks
  #state: ChannelTableState = 'running'
  #epoch = 1
  /** The attachments it stopped for that have no new mapping yet: its invalid list. */
  readonly #blockers = new Set<Attachment>()
  /** The epoch of step 3.3: counts invalidations. */
  #invalidations = 0
  #quiet: Promise<void> = QUIET
  #working = false
  #runningSince = -Infinity
  #closedSince = 0
  /** So far, forced ones included. */
  stops = 0
  forcedStops = 0

  constructor(owner: Channel, device: EngineChannel, limits: ImporterLimits, hooks: StopHooks) {
    this.#owner = owner
    this.#device = device
    this.#limits = limits
    this.#hooks = hooks
  }

  get state(): ChannelState {
    return this.#state === 'asked' ? 'running' : this.#state
  }

  /** Whether the gate is open. */
  get isOpen(): boolean {
    return this.#state === 'running' || this.#state === 'asked'
  }

  /** Starts at 1; a forced stop begins the next. */
  get epoch(): number {
    return this.#epoch
  }

  get isDead(): boolean {
    return this.#state === 'failed' || this.#state === 'closed'
  }

  /**
   * Steps 1.1 and 1.2: this mapping must go. Resolves when the device is quiet;
   * undefined where it is so at once. Called under the mover's reservation;
   * waits for nothing but the device, its deadline, and the rest of this
   * channel's minimum quantum.
   */
  stopFor(attachment: Attachment): Promise<void> | undefined {
    attachment.buffer.reservation.assertHeld('a channel is stopped')
    this.#blockers.add(attachment)
    this.#invalidations++
    if (this.#state === 'running') {
      this.#quiet = this.#stop() ?? QUIET
      this.#quiet.catch(() => {})
    } else if (this.#state === 'restoring') {
      this.#transition('invalidate')
    }
    return this.#state === 'stopped' ? undefined : this.#quiet
  }

  #stop(): Promise<void> | undefined {
    const rest = this.#runningSince + this.#limits.minRunMs - performance.now()
    if (rest <= 0) return this.#stopNow()
    this.#transition('ask')
    return sleep(rest).then(() => this.#stopNow())
  }

  #stopNow(): Promise<void> | undefined {
    if (this.isDead) return undefined
    this.#closedSince = performance.now()
    this.stops++
    this.#transition('invalidate')
    let stopped: void | Promise<void>
    try {
      stopped = this.#device.stop()
    } catch (error) {
      stopped = Promise.reject(error)
    }
    if (stopped === undefined) {
      this.#onQuiet(false)
      return undefined
    }
    return this.#drain(stopped).then((forced) => this.#onQuiet(forced))
  }

  /** Step 1.2: what has completed is seen before the mapping goes. */
  #onQuiet(forced: boolean): void {
    if (this.isDead) return
    this.#hooks.quiet()
    this.#transition(forced ? 'forced' : 'drained')
  }

  /** Waits until the device is quiet; past the deadline, forces it. Returns whether it had to. */
  async #drain(stopped: Promise<void>): Promise<boolean> {
    const { stopTimeoutMs } = this.#limits
    try {
      const late = () => new P2pdmaError('the drain timed out', { code: 'ETIMEDOUT' })
      await withDeadline(stopped, stopTimeoutMs, late)
      return false
    } catch {
      if (this.isDead) return false
    }
    try {
      this.#epoch = this.#device.force()
      this.forcedStops++
      return true
    } catch (cause) {
      const error = new P2pdmaError(
        `the device could not be stopped within ${stopTimeoutMs} ms, nor forced`,
        { code: 'ETIMEDOUT', hint: 'reset the device; its memory is quarantined', cause },
      )
      this.#owner.importer.fail(error)
      throw error
    }
  }

  /** Step 1.4: once, however many moves arrive. */
  launchWorker(): void {
    if (this.#working) return
    this.#working = true
    this.#restore().catch((error: unknown) => {
      this.#owner.importer.fail(error as Error)
      this.#abandon()
    })
  }

  /** Step 3, the worker. */
  async #restore(): Promise<void> {
    // The stamp is kept across attempts: the oldest cannot be starved of locks.
    const context = reservationClass.acquire()
    for (let attempt = 0; ; attempt++) {
      // A turn in any case: whoever moves is in the middle of it, and often ends it in this turn.
      await (this.#state === 'stopped' ? undefined : this.#quiet.catch(() => {}))
      if (this.isDead) break
      this.#transition('restore')
      const seen = this.#invalidations
      // Steps 3.1 and 3.2. It deviates from the mail: it locks what moved, not all that is in
      // use. A stream of moves that keeps cancelling the attempt is met with the
      // mail's letter: nobody can invalidate what is locked.
      const inUse = this.#limits.lockAll || attempt >= this.#limits.starvationLimit
      const attachments = inUse ? await this.#allInUse() : [...this.#blockers]
      const restored = lockAndRestore(context, attachments, this.#limits)
      const unlock = restored instanceof Promise ? await restored : restored
      // Step 3.3: checked and opened in one turn.
      const open =
        this.#state === 'restoring' && this.#blockers.size === 0 && this.#invalidations === seen
      if (open) this.#working = false
      try {
        if (open) this.#open()
      } finally {
        // Step 3.4.
        unlock()
      }
      if (open || this.isDead) break
    }
    context.fini()
    if (this.isDead) this.#abandon()
  }

  #allInUse(): Promise<Attachment[]> {
    const { importer } = this.#owner
    const { lockAll } = this.#limits
    return importer.attachmentList(
      (each) =>
        this.#blockers.has(each) || (lockAll ? each.importer === importer : this.#owner.uses(each)),
    )
  }

  #open(): void {
    this.#device.restart()
    this.#runningSince = performance.now()
    this.#transition('restart')
    this.#hooks.opened()
  }

  /** The attachment has a new mapping, or never will: nothing to wait for. */
  unblock(attachment: Attachment): void {
    this.#blockers.delete(attachment)
  }

  /** What it stopped for is somebody else's to remap. */
  #abandon(): void {
    this.#working = false
    const blockers = [...this.#blockers]
    this.#blockers.clear()
    for (const attachment of blockers) attachment.abandonedBy(this.#owner)
  }

  #transition(event: ChannelEvent): void {
    const from = this.#state
    const to = follow('channel', transitions, from, event)
    this.#state = to
    if (trace.channel.hasSubscribers) {
      const at = performance.now()
      const message: ChannelTransition = {
        importer: this.#owner.importer.name,
        channel: this.#owner.index,
        event,
        from,
        to,
        at,
      }
      if (event === 'restart') message.pauseMs = at - this.#closedSince
      trace.channel.publish(message)
    }
    this.#hooks.changed()
  }

  /** The importer has failed; false when it was over already. */
  fail(): boolean {
    if (this.isDead) return false
    this.#transition('fail')
    return true
  }

  /** False when it was closed already. */
  close(): boolean {
    if (this.#state === 'closed') return false
    this.#transition('close')
    // A worker that runs abandons them itself, when it comes to it.
    if (!this.#working) this.#abandon()
    return true
  }
}

/**
 * Steps 3.1 and 3.2: locks the reservations and remaps what is invalid.
 * The outcome is the function that unlocks them again (3.4): at once where
 * there is one attachment, and nothing to wait for.
 */
function lockAndRestore(
  context: AcquireContext,
  attachments: readonly Attachment[],
  limits: ImporterLimits,
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
    return remapped === undefined ? unlock : whenRestored(remapped, unlock)
  }
  return restoreWhenLocked(contended, attachments, limits, unlock)
}

async function restoreWhenLocked(
  contended: void | Promise<void>,
  attachments: readonly Attachment[],
  limits: ImporterLimits,
  unlock: () => void,
): Promise<() => void> {
  if (contended !== undefined) await contended
  return whenRestored(restoreLocked(attachments, limits), unlock)
}

/** The reservations are held until it is known what becomes of them. */
async function whenRestored(restored: Promise<void>, unlock: () => void): Promise<() => void> {
  try {
    await restored
  } catch (error) {
    unlock()
    throw error
  }
  return unlock
}

async function restoreLocked(
  attachments: readonly Attachment[],
  limits: ImporterLimits,
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
 * Step 3.2: maps one attachment, then waits for its move fences, as a dynamic importer
 * does. Its buffer's reservation is held. Undefined when done at once. What cannot be remapped
 * fails, alone, until the buffer's next move; it rejects where a mapping cannot be taken away
 * again, and the importer has failed.
 */
function remap(attachment: Attachment, limits: ImporterLimits): Promise<void> | undefined {
  const { buffer, importer } = attachment
  buffer.reservation.assertHeld('an attachment is mapped again')
  if (attachment.state !== 'invalid') return undefined
  let mapped: void | Promise<void>
  try {
    const refused = attachment.refusal(buffer.backing)
    if (refused !== null) throw cannotMap(attachment, buffer.backing, refused)
    mapped = engineMap(importer, attachment)
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
  limits: ImporterLimits,
): Promise<void> {
  const { buffer, importer } = attachment
  try {
    await retried(attachment, mapped, limits)
    await buffer.reservation.wait(Usage.KERNEL, { timeoutMs: limits.fenceTimeoutMs })
  } catch (cause) {
    await engineUnmap(importer, attachment.id)
    attachment.fail(remapError(cause))
    return
  }
  // The importer may have been closed or have failed meanwhile.
  if (attachment.state === 'invalid') attachment.validate(buffer.generation)
  else await engineUnmap(importer, attachment.id)
}

async function retried(
  attachment: Attachment,
  mapped: Promise<void>,
  limits: ImporterLimits,
): Promise<void> {
  let attempt = mapped
  for (let retry = 0; ; retry++) {
    try {
      return await attempt
    } catch (error) {
      const isOver = retry >= limits.mapRetries || attachment.state !== 'invalid'
      if (isOver || isRefusal(error)) throw error
      await sleep(limits.mapRetryMs * 2 ** retry)
      attempt = Promise.resolve().then(() => engineMap(attachment.importer, attachment))
    }
  }
}

/** Steps 3.1 to 3.4 for one that no channel stopped for: it is remapped by itself. */
export function restoreIdle(attachment: Attachment): void {
  const { buffer, importer } = attachment
  const restore = async () => {
    await buffer.reservation.lock()
    try {
      await remap(attachment, importer.limits)
    } finally {
      buffer.reservation.unlock()
    }
  }
  restore().catch((error: unknown) => importer.fail(error as Error))
}

import { P2pdmaError } from '../../errors.js'
import type { Attachment } from './attachment.js'
import { type ChannelEvent, type ChannelState, nextState } from './channel-states.js'
import type { Channel } from './channel.js'
import { sleep, withDeadline } from '../reservation/deadline.js'
import type { EngineChannel } from './engine.js'
import { reservationClass } from '../reservation/reservation.js'
import { type RestoreLimits, lockAndRestore } from './restore.js'
import { trace } from '../trace.js'
import type { ChannelTransition } from '../trace.js'

export interface StopLimits extends RestoreLimits {
  /** How long a drain may take before the channel is forced, ms. */
  stopTimeoutMs: number
  /** How long a channel runs between two stops at least, ms. */
  minRunMs: number
  /** Step 3.1 to the mail's letter. */
  lockAll: boolean
  /** Cancelled restores in a row after which all that is in use is locked. */
  starvationLimit: number
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
  readonly #limits: StopLimits
  readonly #hooks: StopHooks
  #state: ChannelState = 'running'
  #epoch = 1
  /** The attachments it stopped for that have no new mapping yet: its invalid list. */
  readonly #blockers = new Set<Attachment>()
  /** The epoch of step 3.3: counts invalidations. */
  #invalidations = 0
  #quiet: Promise<void> = QUIET
  #stopAsked = false
  #working = false
  #runningSince = -Infinity
  #closedSince = 0
  #stops = 0
  #forcedStops = 0

  constructor(owner: Channel, device: EngineChannel, limits: StopLimits, hooks: StopHooks) {
    this.#owner = owner
    this.#device = device
    this.#limits = limits
    this.#hooks = hooks
  }

  get state(): ChannelState {
    return this.#state
  }

  /** Starts at 1; a forced stop begins the next. */
  get epoch(): number {
    return this.#epoch
  }

  get stops(): number {
    return this.#stops
  }

  get forcedStops(): number {
    return this.#forcedStops
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
    this.#blockers.add(attachment)
    this.#invalidations++
    if (this.#state === 'running') {
      if (!this.#stopAsked) {
        this.#stopAsked = true
        this.#quiet = this.#stop() ?? QUIET
        this.#quiet.catch(() => {})
      }
    } else if (this.#state === 'restoring') {
      this.#transition('invalidate')
    }
    this.#startWorker()
    return this.#state === 'stopped' ? undefined : this.#quiet
  }

  /** The attachment has a new mapping, or never will: nothing to wait for. */
  unblock(attachment: Attachment): void {
    this.#blockers.delete(attachment)
  }

  #stop(): Promise<void> | undefined {
    const rest = this.#runningSince + this.#limits.minRunMs - performance.now()
    return rest > 0 ? sleep(rest).then(() => this.#stopNow()) : this.#stopNow()
  }

  #stopNow(): Promise<void> | undefined {
    this.#stopAsked = false
    if (this.#state !== 'running') return undefined
    this.#closedSince = performance.now()
    this.#stops++
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
      this.#forcedStops++
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

  /** Step 1.4: launches the worker, once, however many moves arrive. */
  #startWorker(): void {
    if (this.#working) return
    this.#working = true
    this.#restore().catch((error: unknown) => {
      this.#owner.importer.fail(error as Error)
      this.#abandon()
    })
  }

  /** Step 3. */
  async #restore(): Promise<void> {
    // The stamp is kept across attempts: the oldest cannot be starved of locks.
    const context = reservationClass.acquire()
    for (let attempt = 0; ; attempt++) {
      // A turn in any case: whoever moves is in the middle of it, and often ends it in this turn.
      await (this.#state === 'stopped' ? undefined : this.#quiet.catch(() => {}))
      if (this.isDead) break
      this.#transition('restore')
      const seen = this.#invalidations
      // Step 3.1 deviates from the mail: it locks what moved, not all that is in
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

  /** What it stopped for is somebody else's to remap. */
  #abandon(): void {
    this.#working = false
    const blockers = [...this.#blockers]
    this.#blockers.clear()
    for (const attachment of blockers) attachment.abandonedBy(this.#owner)
  }

  #transition(event: ChannelEvent): void {
    const from = this.#state
    const to = nextState(from, event)
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

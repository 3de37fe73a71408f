/**
 * Copies by way of the network: each is a frame, sent out of the source by one
 * NIC and received straight into the target by the other. Receives are posted
 * ahead, group after group; a group's frames are sent when the device has the
 * receives for them, and when all frames before have been settled: so each
 * frame goes where it belongs as long as none is lost.
 *
 * What a reset leaves in doubt is settled with the receiver by what it has got
 * (design.md, "The forced path"), and what has not arrived is sent once more.
 */
import { P2pdmaError } from '../../errors.js'
import type { VfioEngine } from '../../engines/index.js'
import type { VfioLink } from '../../engines/vfio/driver.js'
import type { Channel } from '../../move-notify/importer/channel.js'
import {
  type Copied,
  type LaneCopy,
  countChannel,
  type Form,
  type Identify,
  type Lane,
} from '../lanes.js'
import { sleep } from '../../move-notify/reservation/deadline.js'
import type { Tally } from '../tally.js'
import { BatchMessages, type MessageForm, PromiseMessages } from '../message-forms.js'
import { HEADER_BYTES } from './header.js'

/** RCTL.BSIZE of the driver: what a receive has to have room for. */
const RECEIVE_BYTES = 2048
/**
 * When nothing has arrived for so long, by devices that run, nothing more will;
 * ms. The first, many times what a frame takes through cables, switches and
 * FIFOs, where something has happened that loses frames; else the second.
 */
const QUIET_MS = 500
const LOST_MS = 10_000
const TICK_MS = 10
/** How often frames are sent again. */
const MAX_ROUNDS = 8

export interface Nic {
  engine: VfioEngine
  channel: Channel
}

interface Group {
  copies: readonly LaneCopy[]
  identify: Identify
  /** Receives that must be with the device before it is sent, all groups before included. */
  credit: number
  arrived: number
  /** Resolves when something has arrived at each place, or cannot any more. */
  full: Promise<unknown>
  error: Error | null
}

export class FrameLane implements Lane {
  readonly channel: Channel
  readonly sender: Nic
  readonly receiver: Nic
  readonly #form: MessageForm
  readonly #tally: Tally
  #receives = 0
  /** Resets, and links that went down: what is lost then is counted by no device. */
  #upsets = 0
  /** Frames dropped by the devices' count, as far as they have been accounted for. */
  #dropped: number
  readonly #onReset = () => void this.#upsets++
  readonly #onLink = ({ isUp }: VfioLink) => {
    if (!isUp) this.#upsets++
  }
  /** The group before has been settled. */
  #before: Promise<unknown> = Promise.resolve()

  constructor(form: Form, sender: Nic, receiver: Nic, tally: Tally) {
    const Messages = form === 'promise' ? PromiseMessages : BatchMessages
    this.#form = new Messages(sender.channel, receiver.channel, tally)
    this.sender = sender
    this.receiver = receiver
    this.#tally = tally
    this.channel = receiver.channel
    this.#dropped = this.#drops()
    for (const { engine } of this.#nics) engine.on('reset', this.#onReset).on('link', this.#onLink)
  }

  get #nics(): Nic[] {
    return [this.sender, this.receiver]
  }

  copy(copies: readonly LaneCopy[], identify: Identify): Promise<Copied> {
    const group = this.#post(copies, identify)
    const settled = this.#before.then(() => this.#transmit(group))
    this.#before = settled.catch(() => {})
    return settled
  }

  /** Makes room for the frames of one group. */
  #post(copies: readonly LaneCopy[], identify: Identify): Group {
    this.#receives += copies.length
    const arrivals = this.#form.receive(
      copies.map(({ to, toOffset }) => ({
        attachment: to,
        offset: toOffset - HEADER_BYTES,
        length: RECEIVE_BYTES,
      })),
    )
    const group: Group = {
      ...{ copies, identify, credit: this.#receives },
      ...{ arrived: 0, full: Promise.allSettled(arrivals), error: null },
    }
    arrivals.forEach((arrival, place) => {
      arrival.then(
        (bytes) => {
          group.arrived++
          if (bytes !== frameBytes(copies[place])) group.error ??= strangerError(bytes)
        },
        (error: unknown) => (group.error ??= error as Error),
      )
    })
    return group
  }

  async #transmit(group: Group): Promise<Copied> {
    const { copies } = group
    const upsets = this.#upsets
    /** Of the copies, those that have not arrived. */
    let missing = copies.map((_, index) => index)
    let order: number[] | null = null
    let isInDoubt = false
    for (let round = 0; missing.length > 0; round++) {
      if (round > MAX_ROUNDS) return this.#fail(missing.length, neverError(missing.length))
      await this.#credit(group)
      const unknown = await this.#send(group, missing)
      isInDoubt ||= unknown.size > 0 || round > 0
      await this.#quiet(group, () => unknown.size > 0 || this.#upsets > upsets || this.#hasDropped)
      if (group.error !== null) return this.#fail(missing.length, group.error)
      if (group.arrived === copies.length && !isInDoubt) break
      order = await group.identify(group.arrived)
      const here = new Set(order)
      missing = missing.filter((index) => !here.has(index))
      const unexplained = missing.filter((index) => !unknown.has(index)).length - this.#newDrops()
      if (unexplained > 0 && this.#upsets === upsets) this.#tally.counts.lost += unexplained
      if (group.arrived === copies.length) break
      this.#tally.counts.framesResent += missing.length
    }
    return { failed: 0, order }
  }

  /** Waits until the device has all receives of the group. */
  async #credit(group: Group): Promise<void> {
    while (this.#form.credit < group.credit && group.error === null) await sleep(1)
  }

  /** Sends these; resolves with those of which a reset has left the outcome open. */
  async #send({ copies }: Group, indexes: readonly number[]): Promise<Set<number>> {
    const frames = indexes.map((index) => {
      const { from, fromOffset } = copies[index] as LaneCopy
      const offset = fromOffset - HEADER_BYTES
      return { attachment: from, offset, length: frameBytes(copies[index]) }
    })
    const unknown = new Set<number>()
    const sent = await Promise.allSettled(this.#form.send(frames))
    sent.forEach((each, i) => {
      if (each.status === 'fulfilled') return
      const { reason } = each as { reason: { code?: string } }
      if (reason.code === 'ERR_OUTCOME_UNKNOWN') unknown.add(indexes[i] ?? -1)
      else throw each.reason
    })
    this.#tally.counts.outcomesUnknown += unknown.size
    return unknown
  }

  /** Resolves when all of the group has arrived, or nothing more will. */
  async #quiet(group: Group, isExplained: () => boolean): Promise<void> {
    let isFull = false
    const full = group.full.then(() => (isFull = true))
    let [quiet, arrived, last] = [0, -1, performance.now()]
    for (;;) {
      await Promise.race([full, sleep(TICK_MS)])
      if (isFull || group.error !== null) return
      // A device that is gone does not come back.
      for (const { engine } of this.#nics) if (engine.error !== null) throw engine.error
      const now = performance.now()
      // An event loop that was held up has not looked for arrivals meanwhile.
      quiet += Math.min(now - last, 2 * TICK_MS)
      last = now
      // While a device does not work, or a move holds it up, time does not count.
      if (!this.#isWorking || group.arrived > arrived) quiet = 0
      arrived = group.arrived
      if (quiet > LOST_MS || (quiet > QUIET_MS && isExplained())) return
    }
  }

  get #isWorking(): boolean {
    return this.#nics.every(
      ({ engine, channel }) => !engine.isDown && engine.link?.isUp === true && channel.isRunning,
    )
  }

  #drops(): number {
    return this.#nics.reduce((sum, { engine }) => sum + engine.stats().dropped, 0)
  }

  get #hasDropped(): boolean {
    return this.#drops() > this.#dropped
  }

  /** Frames dropped that have not been accounted for; they are from now on. */
  #newDrops(): number {
    const before = this.#dropped
    this.#dropped = this.#drops()
    return this.#dropped - before
  }

  #fail(failed: number, error: Error): Copied {
    this.#tally.failed('failedOperations', error)
    return { failed, order: null }
  }

  count(): void {
    for (const { engine } of this.#nics)
      engine.off('reset', this.#onReset).off('link', this.#onLink)
    countChannel(this.sender.channel, this.#tally)
    countChannel(this.receiver.channel, this.#tally)
    this.#form.count()
  }
}

function frameBytes(copy: LaneCopy | undefined): number {
  return HEADER_BYTES + (copy?.length ?? 0)
}

function strangerError(bytes: number): P2pdmaError {
  return new P2pdmaError(`a frame of ${bytes} bytes arrived that nobody here has sent`, {
    code: 'ERR_SMOKE_FAILED',
    hint: 'connect the two NICs to each other and to nothing else',
  })
}

function neverError(count: number): P2pdmaError {
  return new P2pdmaError(`${count} frames did not arrive though sent ${MAX_ROUNDS} times`, {
    code: 'ERR_SMOKE_FAILED',
    hint: 'are the two NICs connected to each other?',
  })
}

/** Two-sided ping-pong in the batch form: what both ends of it do. */
import { Batch, Completions, Op, Status } from '../../../lib/move-notify/importer/batch.js'
import type { Channel } from '../../../lib/move-notify/importer/channel.js'

/** By events: within the call, or on the event loop. */
export type Wait = 'event' | 'loop' | 'poll'

export const PING_DEPTH = 512
/** Receives that are out, and how many are posted again at a time. */
export const RECEIVES = 256
export const RENEWED = 128

/** Otherwise each message that was sent would wake us, too. */
const ARRIVALS = { arrivalsOnly: true }

/** Longer than a round trip; a wait that found nothing goes on on the event loop, us. */
const PATIENCE = 2000

/** Polls without an answer after which the event loop has a turn: more than one answer takes. */
const SPINS = 2048
/** Messages after which it has one in any case: the link to the peer lives on it. */
const TURN_EVERY = 64

export class Pinger {
  readonly #channel: Channel
  readonly #send = new Batch(1)
  readonly #receive = new Batch(RENEWED)
  readonly #out = new Completions(64)
  readonly #size: number
  #arrived = 0
  #seen = 0
  #used = 0

  /** The attachment: what is sent, and behind it what is received. */
  constructor(channel: Channel, attachment: number, size: number) {
    this.#channel = channel
    this.#size = size
    this.#send.op[0] = Op.SEND
    this.#send.source[0] = attachment
    this.#send.length[0] = size
    this.#receive.op.fill(Op.RECEIVE)
    this.#receive.target.fill(attachment)
    this.#receive.targetOffset.fill(size)
    this.#receive.length.fill(size)
    this.#receive.cookie.fill(1)
    for (let posted = 0; posted < RECEIVES; posted += RENEWED) this.#renew()
  }

  #renew(): void {
    const accepted = this.#channel.post(this.#receive, 0, RENEWED)
    if (accepted !== RENEWED) throw new Error(`${accepted} of ${RENEWED} receives were accepted`)
  }

  #reap(): void {
    const out = this.#out
    const count = this.#channel.reap(out)
    for (let row = 0; row < count; row++) {
      const isReceive = out.cookie[row] === 1
      if (out.status[row] !== Status.OK || out.result[row] !== this.#size) {
        throw new Error(`status ${out.status[row]}, ${out.result[row]} bytes`)
      }
      if (!isReceive) continue
      this.#arrived++
      if (++this.#used === RENEWED) {
        this.#used = 0
        this.#renew()
      }
    }
  }

  #post(): void {
    if (this.#channel.post(this.#send, 0, 1) !== 1) throw new Error('a send was not accepted')
  }

  /** Whether a message has come; looks a bounded number of times. */
  #spin(): boolean {
    for (let i = 0; this.#arrived === this.#seen; i++) {
      if (i === SPINS) return false
      this.#reap()
    }
    return true
  }

  async #receiveOne(wait: Wait): Promise<void> {
    while (this.#arrived === this.#seen) {
      if (wait === 'poll') {
        if (!this.#spin()) await turn()
      } else {
        await this.#channel.completions(ARRIVALS)
        this.#reap()
      }
    }
    this.#seen++
  }

  /** Without the event loop; false: nothing has come. */
  #receiveNow(wait: Wait): boolean {
    if (wait === 'loop') return false
    if (wait === 'event') {
      this.#channel.completionsSync(PATIENCE, ARRIVALS)
      this.#reap()
      if (this.#arrived === this.#seen) return false
    } else if (!this.#spin()) return false
    this.#seen++
    return true
  }

  /**
   * Half of each round trip, us: from message to message. The clock is looked at once
   * the next one is out, since that costs more here than perftest's rdtsc does.
   */
  async ping(count: number, wait: Wait): Promise<Float64Array> {
    const halves = new Float64Array(count)
    this.#post()
    let last = performance.now()
    for (let i = 0; i < count; i++) {
      if (!this.#receiveNow(wait)) await this.#receiveOne(wait)
      if (i + 1 < count) this.#post()
      const now = performance.now()
      halves[i] = (now - last) * 500
      last = now
      if (wait !== 'loop' && i % TURN_EVERY === 0) await turn()
    }
    return halves
  }

  async echo(count: number, wait: Wait): Promise<void> {
    for (let i = 0; i < count; i++) {
      if (!this.#receiveNow(wait)) await this.#receiveOne(wait)
      this.#post()
      if (wait !== 'loop' && i % TURN_EVERY === 0) await turn()
    }
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

/**
 * A connected queue pair, and what its two ends tell each other about it: who
 * has paused it, how many receives there are, and how it comes back after an
 * error. The rows are its channel's.
 */
import { P2pdmaError } from '../../errors.js'
import {
  type CompletionQueue,
  MemoryAccess,
  type MemoryRegion,
  type QueuePair,
  QpState,
  randomPsn,
} from '../../kernel/verbs/index.js'
import type { Mapping } from '../../kernel/mapping.js'
import { sleep } from '../../move-notify/deadline.js'
import type { VerbsChannel } from './channel.js'
import { Counts } from './counts.js'
import type { QueueMessage, Update } from './link/messages.js'

/**
 * How long a queue pair may take to be connected again, ms: a link that went
 * down needs seconds to come up, and the neighbour to be found again
 * (drivers/infiniband/core/addr.c, rdma_addr_find_l2_eth_by_grh()).
 */
const RECONNECT_MS = 10_000
/** From one try to the next, ms. */
const RETRY_MS = 50
/** How long the other end may take for its part of a reset, ms. */
const RESET_MS = RECONNECT_MS + 5000

/** What a queue needs of its peer: who it is, and the way to tell it something. */
export interface QueuePeer {
  readonly name: string
  /** Of two resets at once the opener's counts. */
  readonly isOpener: boolean
  readonly dgid: string
  readonly sgidIndex: number
  readonly pathMtu: number
  send(message: QueueMessage): boolean
  /** The keys of what is granted on this queue that have changed since the peer was told. */
  updates(queue: Queue): Update[]
  hasGrants(queue: Queue): boolean
  /** From now on a deregistration may have to wait for the device. */
  onReset(queue: Queue): void
  onLost(queue: Queue, error: P2pdmaError): void
  forget(queue: Queue): void
}

/** What a queue's objects are made of. */
export interface QueueParts {
  qp: QueuePair
  cq: CompletionQueue
  /** Where atomics put the value before: 8 bytes for each row. */
  scratch: MemoryRegion
  values: Mapping
  close(): Promise<void>
}

export class Queue {
  readonly id: number
  readonly name: string
  readonly depth: number
  readonly parts: QueueParts
  readonly #peer: QueuePeer
  channel: VerbsChannel | null = null
  #now: 'new' | 'ready' | 'broken' | 'lost' = 'new'
  #error: P2pdmaError | null = null
  #peerQpn = 0
  psn = randomPsn()
  readonly counts: Counts
  #pauses = 0
  /** Number of the pause that we have asked for and not ended, or 0. */
  #pausing = 0
  #onPaused: (() => void) | null = null
  #resets = 0
  #resetAsked = 0
  #onResetOk: ((psn: number, received: number) => void) | null = null
  #resetTimer: NodeJS.Timeout | undefined
  #reconnecting: Promise<void> = Promise.resolve()
  #isClosed = false

  /** `number`: within its engine, from 1. */
  constructor(peer: QueuePeer, id: number, number: number, depth: number, parts: QueueParts) {
    this.counts = new Counts(number)
    this.#peer = peer
    this.id = id
    this.name = `${peer.name}/q${id}`
    this.depth = depth
    this.parts = parts
  }

  get #state() {
    return this.#now
  }

  set #state(state) {
    this.#now = state
    this.counts.isReady = state === 'ready'
  }

  get isReady(): boolean {
    return this.counts.isReady
  }

  /** Why it will never work again; null otherwise. */
  get error(): P2pdmaError | null {
    return this.#error
  }

  get qpn(): number {
    return this.parts.qp.qpNumber
  }

  /** RESET to RTS, towards the peer's. */
  async join(peerQpn: number, peerPsn: number, life = this.counts.life): Promise<void> {
    const { qp } = this.parts
    const { dgid, sgidIndex, pathMtu } = this.#peer
    this.#peerQpn = peerQpn
    const access = MemoryAccess.REMOTE_READ | MemoryAccess.REMOTE_WRITE | MemoryAccess.REMOTE_ATOMIC
    await qp.toInit({ access })
    await qp.toRtr({ destQpNum: peerQpn, rqPsn: peerPsn, ahAttr: { dgid, sgidIndex }, pathMtu })
    await qp.toRts({ sqPsn: this.psn })
    if (this.#state === 'lost' || this.#isClosed || this.counts.life !== life) return
    this.#state = 'ready'
  }

  // --- pauses that we ask for ---

  /** Whether anything of the peer's may come in. */
  get isReachable(): boolean {
    return this.#peer.hasGrants(this) || this.counts.posted > this.counts.received
  }

  /** Asks the peer to keep still, and to use up our receives. Resolves when it does. */
  pause(): Promise<void> {
    if (this.#state === 'lost') return Promise.resolve()
    const n = this.#pauses + 1
    // A queue pair that is broken receives nothing; once a reset has been asked for its counts
    // are of a life that ends, and the peer may have begun the next.
    const { counts } = this
    const posted = this.#onResetOk === null ? counts.posted : 0
    const flush = counts.isReady && posted > counts.received
    this.#peer.send({ type: 'pause', queue: this.id, n, flush, posted })
    this.#pauses = n
    this.#pausing = n
    return new Promise((resolve) => (this.#onPaused = resolve))
  }

  onPaused(n: number): void {
    if (n !== this.#pausing) return
    this.#paused()
  }

  #paused(): void {
    const resolve = this.#onPaused
    this.#onPaused = null
    resolve?.()
  }

  /** Ends our pause: the peer gets what it needs to go on. */
  resume(): void {
    const n = this.#pausing
    if (n === 0) return
    this.#pausing = 0
    this.#onPaused = null
    const updates = this.#peer.updates(this)
    this.#peer.send({ type: 'resume', queue: this.id, n, updates })
  }

  // --- pauses that the peer asks for ---

  async onPause(n: number, flush: boolean, posted: number): Promise<void> {
    this.counts.isPausedByPeer = true
    this.counts.raiseCredit(posted)
    await this.channel?.drainFor(flush ? posted : 0)
    this.#peer.send({ type: 'paused', queue: this.id, n })
  }

  onResume(): void {
    this.counts.isPausedByPeer = false
    this.channel?.pump()
  }

  // --- credit ---

  tellCredit(): void {
    this.#peer.send({ type: 'credit', queue: this.id, posted: this.counts.posted })
  }

  onCredit(posted: number): void {
    this.counts.raiseCredit(posted)
    this.channel?.pump()
  }

  // --- errors ---

  /** The queue pair does not work any more: to ERR, and back with the peer's help. */
  break(): void {
    if (this.#state !== 'ready') return
    this.#fall()
    void this.#askForReset()
  }

  #fall(): void {
    this.#state = 'broken'
    this.#toError()
    this.#peer.onReset(this)
    // Nothing of the peer's reaches us any more.
    this.#paused()
  }

  #toError(): void {
    try {
      this.parts.qp.modifyNow({ qpState: QpState.ERR })
    } catch {
      // It is there already, or gone.
    }
  }

  async #askForReset(): Promise<void> {
    const n = ++this.#resets
    this.#resetAsked = n
    // Not within the completion that has told of the error: there may be more behind it.
    await Promise.resolve()
    await this.channel?.drainErrors()
    if (this.#resetAsked !== n || this.#state !== 'broken') return
    this.psn = randomPsn()
    const answered = new Promise<boolean>((resolve) => {
      this.#resetTimer = setTimeout(() => resolve(false), RESET_MS)
      this.#onResetOk = (psn, received) => {
        clearTimeout(this.#resetTimer)
        this.#beginLife(received)
        void this.#reconnect(psn).then(() => {
          resolve(true)
          this.channel?.pump()
        })
      }
    })
    const { psn } = this
    const { received } = this.counts
    this.#peer.send({ type: 'reset', queue: this.id, n, psn, received })
    if (!(await answered) && this.#resetAsked === n) {
      this.lose(
        new P2pdmaError(`${this.name}: the peer did not answer a reset`, {
          code: 'ETIMEDOUT',
          hint: 'it hangs, or the link between the hosts is down',
        }),
      )
    }
  }

  onResetOk(n: number, psn: number, received: number): void {
    if (n !== this.#resetAsked) return
    const answer = this.#onResetOk
    this.#onResetOk = null
    answer?.(psn, received)
  }

  async onReset(n: number, psn: number, received: number): Promise<void> {
    if (this.#state === 'lost' || this.#isClosed) return
    // Both asked at once: the opener's counts.
    if (this.#onResetOk !== null && this.#peer.isOpener) return
    this.#cancelAsk()
    // What has come of what the peer refused is judged before all counts as cut off.
    this.channel?.onEvent()
    if (this.#state === 'ready') this.#fall()
    await this.channel?.drainErrors()
    this.psn = randomPsn()
    const mine = { psn: this.psn, received: this.counts.received }
    this.#beginLife(received)
    if (!(await this.#reconnect(psn))) return
    this.#peer.send({ type: 'reset-ok', queue: this.id, n, ...mine })
    this.channel?.pump()
  }

  #cancelAsk(): void {
    clearTimeout(this.#resetTimer)
    this.#resetAsked = 0
    this.#onResetOk = null
  }

  /** At once: what the peer tells from now on is of the new life. */
  #beginLife(received: number): void {
    this.channel?.settle(received)
    this.counts.beginLife()
    this.#resetAsked = 0
  }

  /** Tried again for a while: there is no way to the peer while its link, or ours, is down. */
  async #reconnect(psn: number): Promise<boolean> {
    const { life } = this.counts
    // One at a time: the one before sees that its life is over.
    const before = this.#reconnecting
    this.#reconnecting = before.then(() => this.#tryToReconnect(psn, life))
    await this.#reconnecting
    return this.isReady && this.counts.life === life
  }

  async #tryToReconnect(psn: number, life: number): Promise<void> {
    const deadline = performance.now() + RECONNECT_MS
    while (this.#state === 'broken' && !this.#isClosed && this.counts.life === life) {
      try {
        await this.parts.qp.toReset()
        await this.join(this.#peerQpn, psn, life)
      } catch (cause) {
        if (performance.now() > deadline) this.lose(reconnectError(this.name, cause))
        else await sleep(RETRY_MS)
      }
    }
  }

  /** There is no peer any more, or no way back. */
  lose(error: P2pdmaError): void {
    if (this.#state === 'lost') return
    this.#error = error
    this.#state = 'lost'
    this.#toError()
    this.#peer.onReset(this)
    this.#cancelAsk()
    this.#paused()
    this.#peer.onLost(this, error)
    this.channel?.lost()
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#toError()
    this.#peer.onReset(this)
    this.#cancelAsk()
    this.#paused()
    this.#peer.forget(this)
    await this.parts.close()
  }
}

function reconnectError(name: string, cause: unknown): P2pdmaError {
  return new P2pdmaError(`${name} could not be connected again`, {
    code: 'ERR_DEVICE',
    hint: 'see the cause, and whether the port is active',
    cause,
  })
}

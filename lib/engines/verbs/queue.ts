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
import { sleep, withDeadline } from '../../move-notify/reservation/deadline.js'
import type { VerbsBackend } from './backend.js'
import { MessageCounts } from './counts.js'
import type { MessageOf, QueueMessage, Update } from './link/messages.js'
import type { LocalPort } from './local-port.js'
import { type PathFacts, Progress, type ProgressLimits } from './progress.js'

/**
 * From one try to connect again to the next, ms: a link that went down needs seconds to
 * come up, and the neighbour to be found again
 * (drivers/infiniband/core/addr.c, rdma_addr_find_l2_eth_by_grh()).
 */
const RETRY_MS = 50
/** How much longer than ours the other end may take for its part of a reset, ms. */
const ANSWER_MS = 5000

/** What a queue needs of its peer: who it is, and the way to tell it something. */
export interface QueuePeer {
  readonly name: string
  /** Of two resets at once the opener's counts. */
  readonly isOpener: boolean
  readonly dgid: string
  /** Of ours, by which it is reached. */
  readonly path: LocalPort['path']
  readonly pathMtu: number
  send(message: QueueMessage): boolean
  /** The keys of what is granted on this queue that have changed since the peer was told. */
  updates(queue: Queue): Update[]
  hasGrants(queue: Queue): boolean
  /** From now on a deregistration may have to wait for the device. */
  onReset(queue: Queue): void
  /** A call of the device's has failed: perhaps it is gone. */
  onRefused(cause: unknown): void
  /** Between whom: for who reads why nothing gets through. */
  pathFacts(): PathFacts
  /** What a reset that brought nothing adds to the engine's sums. */
  onFruitless(): void
  onLost(queue: Queue, error: P2pdmaError): void
  /** `reason`: what the other end is told. */
  forget(queue: Queue, reason?: P2pdmaError): void
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
  /** Of its channel, while it has one. */
  backend: VerbsBackend | null = null
  #now: 'new' | 'ready' | 'broken' | 'lost' = 'new'
  #error: P2pdmaError | null = null
  #peerQpn = 0
  psn = randomPsn()
  readonly counts: MessageCounts
  #pauses = 0
  /** Number of the pause that we have asked for and not ended, or 0. */
  #pausing = 0
  #onPaused: (() => void) | null = null
  #resets = 0
  #resetAsked = 0
  /** In this life the device has refused a request of the peer's. */
  #hasRefused = false
  #onResetOk: ((psn: number, received: number) => void) | null = null
  /** Nobody waits for the answer any more. */
  #endAsk: (() => void) | null = null
  readonly progress: Progress
  /** The life that has been judged last. */
  #judged = 0
  #reconnecting: Promise<void> = Promise.resolve()
  #isClosed = false

  /** `number`: within its engine, from 1. */
  constructor(
    peer: QueuePeer,
    id: number,
    number: number,
    depth: number,
    parts: QueueParts,
    limits: ProgressLimits,
  ) {
    this.counts = new MessageCounts(number)
    this.#peer = peer
    this.id = id
    this.name = `${peer.name}/q${id}`
    this.depth = depth
    this.parts = parts
    this.progress = new Progress(this.name, limits, () => this.#onLate())
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
    const { dgid, path, pathMtu } = this.#peer
    this.#peerQpn = peerQpn
    const access = MemoryAccess.REMOTE_READ | MemoryAccess.REMOTE_WRITE | MemoryAccess.REMOTE_ATOMIC
    await qp.toInit({ portNum: path.portNum, access })
    await qp.toRtr({ destQpNum: peerQpn, rqPsn: peerPsn, ahAttr: { dgid, ...path }, pathMtu })
    await qp.toRts({ sqPsn: this.psn })
    if (this.#state === 'lost' || this.#isClosed || this.counts.life !== life) return
    this.#state = 'ready'
    this.progress.rejoined()
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
    await this.backend?.drainFor(flush ? posted : 0)
    this.#peer.send({ type: 'paused', queue: this.id, n })
  }

  onResume(): void {
    this.counts.isPausedByPeer = false
    this.backend?.pump()
  }

  // --- credit ---

  tellCredit(): void {
    this.#peer.send({ type: 'credit', queue: this.id, posted: this.counts.posted })
  }

  onCredit(posted: number): void {
    this.counts.raiseCredit(posted)
    this.backend?.pump()
  }

  // --- errors ---

  /** The queue pair does not work any more: to ERR, and back with the peer's help. `why`: what has said so. */
  break(why?: string): void {
    if (this.#state !== 'ready') return
    if (why !== undefined) this.progress.note(why)
    this.#fall()
    void this.#askForReset()
  }

  /** An asynchronous event after which a queue pair is in ERR; it may come late, in the next life. */
  onFatal(name: string): void {
    if (this.#state !== 'ready' || !this.#isInError()) return
    this.#hasRefused = name === 'QP_ACCESS_ERR'
    this.break(name)
  }

  #isInError(): boolean {
    try {
      return this.parts.qp.query().qpState === QpState.ERR
    } catch (cause) {
      this.#peer.onRefused(cause)
      return true
    }
  }

  #fall(): void {
    this.#state = 'broken'
    this.progress.begin()
    this.#toError()
    this.#peer.onReset(this)
    // Nothing of the peer's reaches us any more.
    this.#paused()
  }

  #toError(): void {
    try {
      this.parts.qp.modifyNow({ qpState: QpState.ERR })
    } catch (cause) {
      // It is there already; or the device is gone.
      this.#peer.onRefused(cause)
    }
  }

  async #askForReset(): Promise<void> {
    const n = ++this.#resets
    this.#resetAsked = n
    // Not within the completion that has told of the error: there may be more behind it.
    await Promise.resolve()
    await this.backend?.drainErrors()
    const isOurs = () => this.#resetAsked === n && this.#state === 'broken'
    if (!isOurs() || !this.#judge()) return
    const { delayMs } = this.progress
    if (delayMs > 0) await sleep(delayMs)
    if (!isOurs()) return
    this.psn = randomPsn()
    const answered = new Promise<void>((resolve) => {
      this.#endAsk = resolve
      this.#onResetOk = (psn, received) => {
        resolve()
        this.#beginLife(received)
        void this.#reconnect(psn).then(() => this.backend?.pump())
      }
    })
    const { psn } = this
    const { received } = this.counts
    const refused = this.#hasRefused && { refused: true as const }
    this.#peer.send({ type: 'reset', queue: this.id, n, psn, received, ...refused })
    const ms = this.progress.limits.resetTimeoutMs + ANSWER_MS
    withDeadline(answered, ms, () => unanswered(this.name, ms)).catch((error: unknown) => {
      if (this.#resetAsked === n) this.lose(error as P2pdmaError)
    })
  }

  /**
   * What the life that ends has come to, before it is settled with the peer; once.
   * False where that was one too many.
   */
  #judge(): boolean {
    const { life } = this.counts
    const { progress } = this
    if (this.#judged === life) return !progress.isOver
    this.#judged = life
    const outcome = this.backend?.outcome ?? 'idle'
    progress.endLife(outcome)
    if (outcome === 'fruitless') this.#peer.onFruitless()
    if (progress.isOver) {
      this.#giveUp()
      return false
    }
    if (outcome === 'fruitless') progress.publish(null)
    return true
  }

  #giveUp(): void {
    const { progress } = this
    const error = progress.error(this.#peer.pathFacts())
    progress.publish(error)
    this.lose(error)
  }

  /** The time without progress has passed. While it runs it is given its life's end; so is a peer that is asked. */
  #onLate(): void {
    if (this.#state === 'broken' && this.#onResetOk === null) this.#giveUp()
  }

  onResetOk(n: number, psn: number, received: number): void {
    if (n !== this.#resetAsked) return
    const answer = this.#onResetOk
    this.#onResetOk = null
    answer?.(psn, received)
  }

  async onReset({ n, psn, received, refused }: MessageOf<'reset'>): Promise<void> {
    if (this.#isOver) return
    const { life } = this.counts
    // What has come of what the peer refused is judged before all counts as cut off.
    this.backend?.onEvent()
    if (refused === true) await this.backend?.hearRefusal()
    // Meanwhile both may have asked: the opener's counts, and that may be answered already.
    if (this.#isOver || this.counts.life !== life) return
    if (this.#onResetOk !== null && this.#peer.isOpener) return
    this.#cancelAsk()
    if (this.#state === 'ready') this.#fall()
    await this.backend?.drainErrors()
    if (this.#isOver || !this.#judge()) return
    this.psn = randomPsn()
    const mine = { psn: this.psn, received: this.counts.received }
    this.#beginLife(received)
    if (!(await this.#reconnect(psn))) return
    this.#peer.send({ type: 'reset-ok', queue: this.id, n, ...mine })
    this.backend?.pump()
  }

  /** There may have been a close, or a loss, meanwhile. */
  get #isOver(): boolean {
    return this.#state === 'lost' || this.#isClosed
  }

  #cancelAsk(): void {
    this.#endAsk?.()
    this.#resetAsked = 0
    this.#onResetOk = null
  }

  /** At once: what the peer tells from now on is of the new life. */
  #beginLife(received: number): void {
    this.backend?.settle(received)
    this.counts.beginLife()
    this.#resetAsked = 0
    this.#hasRefused = false
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

  /** Its end is that of the time that there may be no progress. */
  async #tryToReconnect(psn: number, life: number): Promise<void> {
    while (this.#state === 'broken' && !this.#isClosed && this.counts.life === life) {
      try {
        await this.parts.qp.toReset()
        await this.join(this.#peerQpn, psn, life)
      } catch (cause) {
        const { code, syscall } = cause as NodeJS.ErrnoException
        this.progress.note(`${syscall ?? 'to connect again'}: ${code ?? String(cause)}`)
        this.#peer.onRefused(cause)
        if (this.progress.isLate) this.#onLate()
        else await sleep(RETRY_MS)
      }
    }
  }

  /** There is no peer any more, or no way back. */
  lose(error: P2pdmaError): void {
    if (this.#state === 'lost') return
    this.#error = error
    this.#state = 'lost'
    this.progress.close()
    this.#toError()
    this.#peer.onReset(this)
    this.#cancelAsk()
    this.#paused()
    this.#peer.onLost(this, error)
    this.backend?.lost()
  }

  /** `reason`: what the other end is told, where it is no orderly end. */
  async close(reason?: P2pdmaError): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    this.progress.close()
    this.#toError()
    this.#peer.onReset(this)
    this.#cancelAsk()
    this.#paused()
    this.#peer.forget(this, reason)
    await this.parts.close()
  }
}

function unanswered(name: string, ms: number): P2pdmaError {
  return new P2pdmaError(`${name}: the peer did not answer a reset within ${ms} ms`, {
    code: 'ETIMEDOUT',
    hint: 'it hangs, or the link between the hosts is down',
  })
}

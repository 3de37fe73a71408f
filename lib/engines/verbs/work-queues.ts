/**
 * The work queues of a queue pair: the rows of its channel, and the native side
 * that turns them into work requests and completions into rows that are done
 * (native/verbs/rows/queues.h), with one call a batch.
 */
import { WorkBell as Bell, WorkKind } from '../../abi.js'
import { call } from '../../kernel/call.js'
import { nativeVerbs, type NativeWork } from '../../native-verbs.js'
import type { BackendRows } from '../queue/channel.js'
import { ColumnsInUse } from '../queue/native-columns.js'
import type { RowRules } from '../queue/row-error.js'
import { sharedColumn } from '../queue/shared-columns.js'
import type { Uses } from '../queue/uses.js'
import type { MessageCounts } from './counts.js'
import type { QueueParts } from './queue.js'
import type { RegionTable } from './region-table.js'
import { Rows } from './rows.js'
import type { Settling } from './settle.js'

/** What its channel is told of. */
export interface WorkListener {
  /** Receives have been handed over. */
  onCredit(): void
  /** A queue pair that refuses is in ERR, or about to be. */
  onRefused(): void
  /** Rows were finished without a completion of the device's. */
  onGone(): void
  /** A completion that tells of no success: of `WorkKind`, with a `WcStatus`. */
  onBad(kind: number, position: number, status: number): void
}

export class WorkQueues implements BackendRows, Settling {
  readonly sends: Rows
  readonly receives: Rows
  readonly rules: RowRules
  readonly columns: ColumnsInUse
  readonly #table: RegionTable
  readonly #listener: WorkListener
  readonly #native: NativeWork
  readonly #bell = sharedColumn(Bell.LENGTH, Float64Array)
  /** The columns of the table that the native side has. */
  #ids: Uint32Array | null = null

  constructor(
    parts: QueueParts,
    counts: MessageCounts,
    table: RegionTable,
    maxMessage: number,
    depth: number,
    listener: WorkListener,
  ) {
    this.sends = new Rows(depth, this.#bell, Bell.SENDS)
    this.receives = new Rows(depth, this.#bell, Bell.RECEIVES, this.sends.uses.untold)
    this.#table = table
    this.rules = {
      unsupported: {
        text: ': a NIC neither fills nor does nothing',
        hint: 'it does COPY, FETCH_ADD, SEND and RECEIVE',
      },
      lengths: `up to ${maxMessage}, one message`,
      sizeOf: (id) => table.sizeOf(id),
    }
    this.#listener = listener
    this.#native = call(() =>
      nativeVerbs().verbsOpenWork(
        parts.qp.handle,
        parts.cq.handle,
        depth,
        maxMessage,
        parts.values.handle,
        parts.scratch.iova,
        parts.scratch.lkey,
        this.#bell,
        counts.column,
        this.sends,
        this.receives,
        this.sends.uses.untold,
      ),
    )
    this.columns = new ColumnsInUse(this.#native)
    this.epoch = 1
  }

  /** Of both queues: they tell by one list. */
  get uses(): Uses {
    return this.sends.uses
  }

  /** Of the rows that are given back. */
  get epoch(): number {
    return this.#bell[Bell.EPOCH] ?? 0
  }

  set epoch(epoch: number) {
    this.#bell[Bell.EPOCH] = epoch
  }

  /** Rows accepted and not given back. */
  get size(): number {
    return this.sends.size + this.receives.size
  }

  /** As `Backend.post`. */
  post(first: number, count: number): number {
    this.#useTable()
    const bell = this.#bell
    bell[Bell.FIRST] = first
    bell[Bell.COUNT] = count
    this.#native.post()
    const accepted = bell[Bell.ACCEPTED] ?? 0
    this.#afterHanding()
    return accepted
  }

  get defect(): number {
    return this.#bell[Bell.DEFECT] ?? 0
  }

  #useTable(): void {
    const { ids, states, access, iovas, sizes, keys, queues } = this.#table
    if (ids === this.#ids) return
    const ofSends = this.sends.uses
    const ofReceives = this.receives.uses
    ofSends.grow(ids.length)
    ofReceives.grow(ids.length)
    call(() =>
      this.#native.useTable(
        ids.length,
        ids,
        states,
        access,
        iovas,
        sizes,
        keys,
        queues,
        ofSends.last,
        ofReceives.last,
      ),
    )
    this.#ids = ids
  }

  /** Hands over what is held and may be. */
  hand(): void {
    this.#useTable()
    this.#native.hand()
    this.#afterHanding()
  }

  #afterHanding(): void {
    const bell = this.#bell
    const gone = bell[Bell.GONE] !== 0
    const refused = bell[Bell.ERROR] !== 0
    if (bell[Bell.CREDITED] !== 0) this.#listener.onCredit()
    if (gone) this.#listener.onGone()
    if (refused) this.#listener.onRefused()
  }

  /** Hands over messages that only use up receives of the peer's; false where the queue pair refuses. */
  sendVoids(count: number): boolean {
    call(() => this.#native.sendVoids(count))
    if (this.#bell[Bell.ERROR] === 0) return true
    this.#listener.onRefused()
    return false
  }

  /** Takes what the queue pair has completed; returns how many. */
  poll(): number {
    let polled = 0
    do {
      this.#native.poll()
      polled += this.#bell[Bell.POLLED] ?? 0
    } while (this.#judge())
    return polled
  }

  /**
   * Has the next completion that comes be an event, or the next message, and takes
   * those before it; returns how many.
   */
  listen(arrivalsOnly: boolean): number {
    this.#bell[Bell.ARRIVALS_ONLY] = arrivalsOnly ? 1 : 0
    this.#native.listen()
    return this.#afterListening()
  }

  /**
   * As `listen`; where there was nothing it waits for an event, for so long at
   * most. Returns which queue's it has taken; 0: none, and -1: it did not wait.
   */
  wait(arrivalsOnly: boolean, microseconds: number): number {
    const bell = this.#bell
    bell[Bell.ARRIVALS_ONLY] = arrivalsOnly ? 1 : 0
    bell[Bell.MICROSECONDS] = microseconds
    this.#native.wait()
    const queue = bell[Bell.EVENT_OF] ?? 0
    const polled = this.#afterListening()
    return queue === 0 && polled > 0 ? -1 : queue
  }

  #afterListening(): number {
    let polled = this.#bell[Bell.POLLED] ?? 0
    if (this.#bell[Bell.ERROR] !== 0) this.#listener.onRefused()
    if (this.#judge()) polled += this.poll()
    return polled
  }

  /** True: there may be more behind it. */
  #judge(): boolean {
    const bell = this.#bell
    if (bell[Bell.IS_BAD] !== 1) return false
    this.#listener.onBad(
      bell[Bell.BAD_KIND] ?? 0,
      bell[Bell.BAD_POSITION] ?? 0,
      bell[Bell.BAD_STATUS] ?? 0,
    )
    return true
  }

  finish(rows: Rows, position: number, status: number, result: number): void {
    call(() => this.#native.finish(this.#kindOf(rows), position, status, result))
  }

  takeBack(rows: Rows, position: number): void {
    call(() => this.#native.takeBack(this.#kindOf(rows), position))
  }

  #kindOf(rows: Rows): number {
    return rows === this.receives ? WorkKind.RECEIVE : WorkKind.SEND
  }

  /** As `Backend.reap`. */
  reap(): number {
    do {
      this.#native.reap()
    } while (this.#judge())
    return this.#bell[Bell.TAKEN] ?? 0
  }

  /** Idempotent. */
  close(): void {
    this.#native.close()
  }
}

/** A queue pair: one end of a connection, or of datagrams. */
import { brand } from '../../brand.js'
import {
  checkBoolean,
  checkInteger,
  checkOptions,
  P2pdmaError,
  rangeError,
  typeError,
} from '../../errors.js'
import { nativeVerbs, type NativeQp } from '../../native-verbs.js'
import { call } from '../call.js'
import { checkRows, ReceiveBatch, SendBatch } from './columns.js'
import { CompletionQueue } from './completion-queue.js'
import { QpState, SendFlag } from './constants.js'
import { MemoryRegion } from './memory-region.js'
import { MemoryWindow } from './memory-window.js'
import type { ProtectionDomain } from './protection-domain.js'
import { nativeAttributes, type QpAttributes, qpAttributes } from './qp-attributes.js'
import { SharedReceiveQueue } from './shared-receive-queue.js'
import { VerbsObject } from './verbs-object.js'

/** Reliable connection, unreliable connection, unreliable datagrams. */
export type QueuePairType = 'RC' | 'UC' | 'UD'

export interface QueuePairOptions {
  /** Default 'RC'. */
  type?: QueuePairType | undefined
  sendCq: CompletionQueue
  /** Default: the send queue's. */
  receiveCq?: CompletionQueue | undefined
  /** Receives come from here; it has no queue of its own then. */
  srq?: SharedReceiveQueue | undefined
  /** Requests that may be posted and not yet completed. Default 64. */
  maxSendWr?: number | undefined
  maxReceiveWr?: number | undefined
  /** Bytes that SendFlag.INLINE may carry. Default 0. */
  maxInlineData?: number | undefined
  /** Every send is told of, SIGNALED or not. Default false. */
  signalAll?: boolean | undefined
}

/** Where a bind has the window. */
export interface BindOptions {
  /** What the device addresses the first byte by, inside the region. Default: the region's iova. */
  address?: number | undefined
  /** Bytes; 0 unbinds a window of type 1. Default: to the region's end. */
  length?: number | undefined
  /** Of `MemoryAccess`: the REMOTE_ ones. */
  access: number
  /** Type 2: the key it gets. Default: `MemoryWindow.nextRkey()`. */
  rkey?: number | undefined
  wrId?: number | undefined
  /** Default true. */
  signaled?: boolean | undefined
}

/** @internal */
export interface QueuePairRequest {
  type: number
  sendCq: CompletionQueue
  receiveCq: CompletionQueue
  srq: SharedReceiveQueue | null
  maxSendWr: number
  maxReceiveWr: number
  maxInlineData: number
  signalAll: boolean
}

/** ibv_qp_type. */
const types = new Map<unknown, number>([
  ['RC', 2],
  ['UC', 3],
  ['UD', 4],
])

export class QueuePair extends VerbsObject<'qp'> {
  static {
    brand(this, null, { promising: ['toInit', 'toRtr', 'toRts', 'toSqd', 'toError', 'toReset'] })
  }

  /** What its peer sends to, 24 bits. */
  readonly qpNumber: number
  readonly type: QueuePairType
  readonly maxSendWr: number
  readonly maxReceiveWr: number
  readonly maxInlineData: number
  readonly sendCq: CompletionQueue
  readonly receiveCq: CompletionQueue
  readonly srq: SharedReceiveQueue | null
  readonly domain: ProtectionDomain

  private constructor(handle: NativeQp, domain: ProtectionDomain, request: QueuePairRequest) {
    const { sendCq, receiveCq, srq } = request
    super(handle, [domain, sendCq, receiveCq, ...(srq === null ? [] : [srq])])
    this.qpNumber = handle.qpNumber
    this.type = request.type === 2 ? 'RC' : request.type === 3 ? 'UC' : 'UD'
    this.maxSendWr = handle.maxSendWr
    this.maxReceiveWr = handle.maxReceiveWr
    this.maxInlineData = handle.maxInlineData
    this.sendCq = sendCq
    this.receiveCq = receiveCq
    this.srq = srq
    this.domain = domain
  }

  /** @internal */
  static check(domain: ProtectionDomain, options: QueuePairOptions): QueuePairRequest {
    const { type: name = 'RC', sendCq, ...rest } = checkOptions(options)
    const type = types.get(name)
    if (type === undefined) throw typeError('type', "'RC', 'UC' or 'UD'", name)
    const receiveCq = rest.receiveCq ?? sendCq
    const srq = rest.srq ?? null
    if (!(sendCq instanceof CompletionQueue)) throw typeError('sendCq', 'a CompletionQueue', sendCq)
    if (!(receiveCq instanceof CompletionQueue)) {
      throw typeError('receiveCq', 'a CompletionQueue', receiveCq)
    }
    if (srq !== null && !(srq instanceof SharedReceiveQueue)) {
      throw typeError('srq', 'a SharedReceiveQueue', srq)
    }
    if (!sendCq.isOf(domain.device)) throw typeError('sendCq', "one of the same device's", sendCq)
    if (!receiveCq.isOf(domain.device)) {
      throw typeError('receiveCq', "one of the same device's", receiveCq)
    }
    if (srq?.isOf(domain) === false) throw typeError('srq', "one of the same domain's", srq)
    return {
      type,
      sendCq,
      receiveCq,
      srq,
      maxSendWr: checkInteger('maxSendWr', rest.maxSendWr ?? 64, 0, 0x7fffffff),
      maxReceiveWr: checkInteger('maxReceiveWr', rest.maxReceiveWr ?? 64, 0, 0x7fffffff),
      maxInlineData: checkInteger('maxInlineData', rest.maxInlineData ?? 0, 0, 0x7fffffff),
      signalAll: checkBoolean('signalAll', rest.signalAll ?? false),
    }
  }

  /** @internal */
  static fromNative(
    handle: NativeQp,
    domain: ProtectionDomain,
    request: QueuePairRequest,
  ): QueuePair {
    return new QueuePair(handle, domain, request)
  }

  protected get what(): string {
    return `QueuePair ${this.qpNumber}`
  }

  /**
   * Posts rows in one native call and one chained list; returns how many were
   * accepted, which is fewer where the queue is full or a later row is
   * malformed. Throws, with nothing posted, where the first row is malformed
   * (`argument` is the column), or in a state that takes none.
   */
  post(batch: SendBatch, first = 0, count?: number): number {
    const rows = checkRows(batch, SendBatch, first, count)
    return call(() => nativeVerbs().verbsPostSend(this.handle, batch.native, first, rows))
  }

  /** The same for receives. */
  postReceive(batch: ReceiveBatch, first = 0, count?: number): number {
    const rows = checkRows(batch, ReceiveBatch, first, count)
    return call(() => nativeVerbs().verbsPostReceive(this.handle, batch.native, first, rows))
  }

  /**
   * Posts a bind of a window to a region; the window's new key, which it
   * returns, is good once that has completed. Needs MemoryAccess.MW_BIND of the region.
   */
  bind(window: MemoryWindow, region: MemoryRegion, options: BindOptions): number {
    if (!(window instanceof MemoryWindow)) throw typeError('window', 'a MemoryWindow', window)
    if (!(region instanceof MemoryRegion)) throw typeError('region', 'a MemoryRegion', region)
    const {
      access,
      address = region.iova,
      wrId = 0,
      signaled = true,
      ...rest
    } = checkOptions(options)
    const end = region.iova + region.length
    checkInteger('access', access, 0, 0xffffffff)
    checkInteger('address', address, region.iova, end)
    const length = checkInteger('length', rest.length ?? end - address, 0)
    if (length > end - address) throw rangeError('length', `at most ${end - address}`, length)
    const rkey = checkInteger('rkey', rest.rkey ?? window.nextRkey(), 0, 0xffffffff)
    checkInteger('wrId', wrId)
    const flags = checkBoolean('signaled', signaled) ? SendFlag.SIGNALED : 0
    const bound = call(
      () =>
        nativeVerbs().verbsBindMw(
          this.handle,
          window.handle,
          region.handle,
          address,
          length,
          access,
          rkey,
          wrId,
          flags,
        ),
      { doing: 'verbs.bind' },
    )
    window.bound(bound)
    return bound
  }

  /** Changes its state and attributes, off the event loop. */
  async modify(attributes: QpAttributes): Promise<void> {
    const request = nativeAttributes(attributes)
    await this.run(() => nativeVerbs().verbsModifyQp(this.handle, request), {
      doing: 'verbs.modify',
    })
  }

  /** The same on the event loop: for a change that does not wait. */
  modifyNow(attributes: QpAttributes): void {
    const request = nativeAttributes(attributes)
    call(
      () => {
        nativeVerbs().verbsModifyQpNow(this.handle, request)
      },
      { doing: 'verbs.modify' },
    )
  }

  /** Asks the kernel for all of its attributes. */
  query(): QpAttributes & { qpState: number; sqDraining: boolean } {
    const { sqDraining, ...native } = call(() => nativeVerbs().verbsQueryQp(this.handle))
    return { ...qpAttributes(native), qpState: native.qpState, sqDraining }
  }

  /** RESET to INIT. `access`: what peers may do, of `MemoryAccess`; datagrams have a `qkey` instead. */
  toInit(options: { portNum?: number; pkeyIndex?: number; access?: number; qkey?: number } = {}) {
    const { portNum = 1, pkeyIndex = 0, access = 0, qkey = 0 } = checkOptions(options)
    const last = this.type === 'UD' ? { qkey } : { qpAccessFlags: access }
    return this.modify({ qpState: QpState.INIT, portNum, pkeyIndex, ...last })
  }

  /**
   * INIT to RTR: it receives from now on. A connection names its peer; see
   * `QpAttributes` for the fields and their units.
   */
  toRtr(options: PeerOptions | null = null) {
    if (this.type === 'UD') return this.modify({ qpState: QpState.RTR })
    if (options === null) {
      return Promise.reject(typeError('options', 'an object: who the peer is', options))
    }
    const { ahAttr, destQpNum, rqPsn, pathMtu = 1024, ...rest } = checkOptions(options)
    const reliable = {
      maxDestRdAtomic: rest.maxDestRdAtomic ?? 16,
      minRnrTimer: rest.minRnrTimer ?? 12,
    }
    return this.modify({
      qpState: QpState.RTR,
      ahAttr,
      destQpNum,
      rqPsn,
      pathMtu,
      ...(this.type === 'RC' ? reliable : {}),
    })
  }

  /** RTR to RTS: it sends from now on. */
  toRts(options: SenderOptions) {
    const { sqPsn, timeout, retryCnt, rnrRetry, maxRdAtomic } = checkOptions(options)
    const reliable = {
      timeout: timeout ?? 14,
      retryCnt: retryCnt ?? 7,
      rnrRetry: rnrRetry ?? 7,
      maxRdAtomic: maxRdAtomic ?? 16,
    }
    return this.modify({
      qpState: QpState.RTS,
      sqPsn,
      ...(this.type === 'RC' ? reliable : {}),
    })
  }

  /** RTS to SQD: what is in progress ends, then nothing more is sent. What arrives goes on arriving. */
  toSqd(notify = true) {
    return this.modify({ qpState: QpState.SQD, enSqdAsyncNotify: notify ? 1 : 0 })
  }

  /** Any state to ERR: all that is posted completes with WR_FLUSH_ERR. */
  toError() {
    return this.modify({ qpState: QpState.ERR })
  }

  /** Any state to RESET: what is posted is forgotten, without a completion. */
  toReset() {
    return this.modify({ qpState: QpState.RESET })
  }
}

export interface PeerOptions {
  ahAttr: NonNullable<QpAttributes['ahAttr']>
  destQpNum: number
  rqPsn: number
  /** Default 1024. */
  pathMtu?: number | undefined
  /** Default 16. */
  maxDestRdAtomic?: number | undefined
  /** Default 12: 0.64 ms. */
  minRnrTimer?: number | undefined
}

export interface SenderOptions {
  sqPsn: number
  /** Default 14: 67 ms. */
  timeout?: number | undefined
  /** Default 7. */
  retryCnt?: number | undefined
  /** Default 7: for ever. */
  rnrRetry?: number | undefined
  /** Default 16. */
  maxRdAtomic?: number | undefined
}

/** For one that reconnects: a sequence number to begin from, 24 bits. */
export function randomPsn(): number {
  return Math.floor(Math.random() * 0x1000000)
}

/** @internal */
export function checkQueuePair(argument: string, pair: unknown): QueuePair {
  if (!(pair instanceof QueuePair)) throw typeError(argument, 'a QueuePair', pair)
  if (pair.type !== 'RC') {
    throw new P2pdmaError('Only reliable connections are connected by address', {
      code: 'ERR_INVALID_ARG_VALUE',
      argument,
    })
  }
  return pair
}

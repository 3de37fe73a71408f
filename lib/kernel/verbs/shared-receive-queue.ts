import { brand } from '../../brand.js'
import { checkInteger } from '../../errors.js'
import { nativeVerbs, type NativeSrq } from '../../native-verbs.js'
import { call } from '../call.js'
import { checkRows, ReceiveBatch } from './columns.js'
import { VerbsObject } from './verbs-object.js'

let lastId = 0

export class SharedReceiveQueue extends VerbsObject<'srq'> {
  static {
    brand(this)
  }

  /** What its asynchronous events call it. */
  readonly id: number
  /** Receives that there is room for. */
  readonly maxReceiveWr: number

  private constructor(native: NativeSrq, domain: VerbsObject, id: number) {
    super(native, [domain])
    this.id = id
    this.maxReceiveWr = native.maxReceiveWr
  }

  /** @internal */
  static nextId(): number {
    lastId = (lastId % 0x7fffffff) + 1
    return lastId
  }

  /** @internal */
  static fromNative(native: NativeSrq, domain: VerbsObject, id: number): SharedReceiveQueue {
    return new SharedReceiveQueue(native, domain, id)
  }

  protected get what(): string {
    return 'SharedReceiveQueue'
  }

  /** As `QueuePair.postReceive`. */
  postReceive(batch: ReceiveBatch, first = 0, count?: number): number {
    const rows = checkRows(batch, ReceiveBatch, first, count)
    return call(() => nativeVerbs().verbsPostSrqReceive(this.handle, batch.native, first, rows))
  }

  /** Asks for one event SRQ_LIMIT_REACHED when fewer than so many receives are left; 0: for none. */
  setLimit(limit: number): void {
    checkInteger('limit', limit, 0, this.maxReceiveWr)
    call(() => {
      nativeVerbs().verbsSetSrqLimit(this.handle, limit)
    })
  }
}

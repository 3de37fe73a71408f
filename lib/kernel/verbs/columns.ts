/**
 * Work requests and completions in columns: typed arrays over one
 * SharedArrayBuffer, which unlike an ArrayBuffer cannot be detached under the
 * native reader. Filling a row allocates nothing.
 */
import { brand } from '../../brand.js'
import { checkInteger, typeError } from '../../errors.js'
import { nativeVerbs, type NativeColumnsOf } from '../../native-verbs.js'
import { sharedMemory } from '../../shared-memory.js'
import { call } from '../call.js'

const MAX_CAPACITY = 1 << 20

/** Cuts columns out of one piece of memory, the wide ones first. */
class Cutter {
  readonly capacity: number
  readonly #memory: SharedArrayBuffer
  #at = 0

  constructor(capacity: number, bytesPerRow: number) {
    this.capacity = checkInteger('capacity', capacity, 1, MAX_CAPACITY)
    this.#memory = sharedMemory(capacity * bytesPerRow)
  }

  wide(): Float64Array {
    return new Float64Array(this.#memory, this.#take(8), this.capacity)
  }

  word(): Uint32Array {
    return new Uint32Array(this.#memory, this.#take(4), this.capacity)
  }

  byte(): Uint8Array {
    return new Uint8Array(this.#memory, this.#take(1), this.capacity)
  }

  #take(width: number): number {
    const at = this.#at
    this.#at += width * this.capacity
    return at
  }
}

/** Send requests to post. Row i is `opcode[i]`, `address[i]`, ... */
export class SendBatch {
  static {
    brand(this, (value) => #isOwn in value)
  }

  readonly #isOwn = true
  readonly capacity: number
  /** The caller's own number, whole, below 2^53; comes back in the completion. */
  readonly wrId: Float64Array
  /** Where the data are here, as the device addresses it. */
  readonly address: Float64Array
  /** Bytes, at most 2^31; atomics: 8. */
  readonly length: Float64Array
  /** Writes, reads and atomics: where, as the peer's device addresses it. Atomics: a multiple of 8. */
  readonly remoteAddress: Float64Array
  /** FETCH_AND_ADD: what is added; CMP_AND_SWP: what is compared with. Below 2^53. */
  readonly compareAdd: Float64Array
  /** CMP_AND_SWP: what is put there. Below 2^53. */
  readonly swap: Float64Array
  /** The key of the region around `address`. */
  readonly lkey: Uint32Array
  /** The peer's key; LOCAL_INV and SEND_WITH_INV: the one invalidated. */
  readonly rkey: Uint32Array
  /** For the _WITH_IMM operations; the peer sees the same number. */
  readonly immediate: Uint32Array
  /** Datagrams: the `id` of an `AddressHandle`. */
  readonly addressHandle: Uint32Array
  readonly remoteQpn: Uint32Array
  readonly remoteQkey: Uint32Array
  /** `SendOp`. */
  readonly opcode: Uint8Array
  /** `SendFlag`. */
  readonly flags: Uint8Array
  /** For QueuePair. @internal */
  readonly native: NativeColumnsOf<'send'>

  constructor(capacity: number) {
    const cut = new Cutter(capacity, 6 * 8 + 6 * 4 + 2)
    this.capacity = cut.capacity
    this.wrId = cut.wide()
    this.address = cut.wide()
    this.length = cut.wide()
    this.remoteAddress = cut.wide()
    this.compareAdd = cut.wide()
    this.swap = cut.wide()
    this.lkey = cut.word()
    this.rkey = cut.word()
    this.immediate = cut.word()
    this.addressHandle = cut.word()
    this.remoteQpn = cut.word()
    this.remoteQkey = cut.word()
    this.opcode = cut.byte()
    this.flags = cut.byte()
    this.native = call(() =>
      nativeVerbs().verbsSendColumns(
        capacity,
        this.wrId,
        this.address,
        this.length,
        this.remoteAddress,
        this.compareAdd,
        this.swap,
        this.lkey,
        this.rkey,
        this.immediate,
        this.addressHandle,
        this.remoteQpn,
        this.remoteQkey,
        this.opcode,
        this.flags,
      ),
    )
  }
}

/** Receive requests to post. */
export class ReceiveBatch {
  static {
    brand(this, (value) => #isOwn in value)
  }

  readonly #isOwn = true
  readonly capacity: number
  /** The caller's own number, whole, below 2^53; comes back in the completion. */
  readonly wrId: Float64Array
  /** Where the message goes, as the device addresses it. */
  readonly address: Float64Array
  /** Bytes that there is room for; a datagram's header takes 40 of them. */
  readonly length: Float64Array
  readonly lkey: Uint32Array
  /** @internal */
  readonly native: NativeColumnsOf<'receive'>

  constructor(capacity: number) {
    const cut = new Cutter(capacity, 3 * 8 + 4)
    this.capacity = cut.capacity
    this.wrId = cut.wide()
    this.address = cut.wide()
    this.length = cut.wide()
    this.lkey = cut.word()
    this.native = call(() =>
      nativeVerbs().verbsReceiveColumns(capacity, this.wrId, this.address, this.length, this.lkey),
    )
  }
}

/** Completions polled. Where `status` is not SUCCESS only `wrId`, `qpNumber` and `vendorError` count. */
export class WorkCompletions {
  static {
    brand(this, (value) => #isOwn in value)
  }

  readonly #isOwn = true
  readonly capacity: number
  readonly wrId: Float64Array
  /** `WcStatus`. */
  readonly status: Uint32Array
  /** `WcOpcode`. */
  readonly opcode: Uint32Array
  /** Bytes received; of a send it says nothing. */
  readonly byteLength: Uint32Array
  /** With WcFlag.WITH_IMM the immediate, with WITH_INV the key that was invalidated. */
  readonly immediate: Uint32Array
  readonly qpNumber: Uint32Array
  /** Datagrams: the sender's. */
  readonly sourceQp: Uint32Array
  readonly vendorError: Uint32Array
  /** `WcFlag`. */
  readonly flags: Uint32Array
  /** @internal */
  readonly native: NativeColumnsOf<'completion'>

  constructor(capacity: number) {
    const cut = new Cutter(capacity, 8 + 8 * 4)
    this.capacity = cut.capacity
    this.wrId = cut.wide()
    this.status = cut.word()
    this.opcode = cut.word()
    this.byteLength = cut.word()
    this.immediate = cut.word()
    this.qpNumber = cut.word()
    this.sourceQp = cut.word()
    this.vendorError = cut.word()
    this.flags = cut.word()
    this.native = call(() =>
      nativeVerbs().verbsCompletionColumns(
        capacity,
        this.wrId,
        this.status,
        this.opcode,
        this.byteLength,
        this.immediate,
        this.qpNumber,
        this.sourceQp,
        this.vendorError,
        this.flags,
      ),
    )
  }
}

/** Checks what a post is given; returns how many rows. */
export function checkRows(
  batch: SendBatch | ReceiveBatch,
  type: typeof SendBatch | typeof ReceiveBatch,
  first: number,
  count: number | undefined,
): number {
  if (!(batch instanceof type)) throw typeError('batch', `a ${type.name}`, batch)
  checkInteger('first', first, 0, batch.capacity)
  return checkInteger('count', count ?? batch.capacity - first, 0, batch.capacity - first)
}

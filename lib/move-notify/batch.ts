/**
 * Operations and completions in columns: typed arrays over one
 * SharedArrayBuffer, which unlike an ArrayBuffer cannot be detached under the
 * native reader. Filling a row allocates nothing.
 */
import { checkInteger } from '../errors.js'

/** What an operation does. COPY and FILL can be repeated without harm; FETCH_ADD cannot. */
export const Op = { NOP: 0, COPY: 1, FILL: 2, FETCH_ADD: 3 } as const

/** How an operation ended. */
export const Status = {
  OK: 0,
  /** The mapping it was resolved to was dead when the device used it. */
  FAULT: 1,
  /** Its attachment was failed, revoked or closed before it began. */
  NOT_MAPPED: 2,
  /** A forced stop cut it off and it cannot be repeated. */
  OUTCOME_UNKNOWN: 3,
  /** The channel was closed before it began. */
  CANCELLED: 4,
} as const

/** Work to post. Row i is `op[i]`, `source[i]`, ... */
export class Batch {
  readonly capacity: number
  /** `Op`. */
  readonly op: Uint8Array
  /** Attachment id read from; ignored by NOP, FILL and FETCH_ADD. */
  readonly source: Uint32Array
  /** Attachment id written to; ignored by NOP. */
  readonly target: Uint32Array
  /** Bytes from the source's start. */
  readonly sourceOffset: Float64Array
  /** Bytes from the target's start. FETCH_ADD: a multiple of 8. */
  readonly targetOffset: Float64Array
  /** Bytes; FETCH_ADD: 8. */
  readonly length: Float64Array
  /** FILL: the byte written; FETCH_ADD: the whole number added. */
  readonly operand: Float64Array
  /** The caller's own number; comes back in the completion. */
  readonly cookie: Float64Array

  constructor(capacity: number) {
    this.capacity = checkInteger('capacity', capacity, 1, 1 << 20)
    const memory = new SharedArrayBuffer(capacity * 56)
    let at = 0
    const wide = () => {
      const column = new Float64Array(memory, at, capacity)
      at += capacity * 8
      return column
    }
    this.sourceOffset = wide()
    this.targetOffset = wide()
    this.length = wide()
    this.operand = wide()
    this.cookie = wide()
    this.source = new Uint32Array(memory, at, capacity)
    this.target = new Uint32Array(memory, at + capacity * 4, capacity)
    this.op = new Uint8Array(memory, at + capacity * 8, capacity)
  }
}

/** Completions reaped. */
export class Completions {
  readonly capacity: number
  /** The operation's cookie. */
  readonly cookie: Float64Array
  /** FETCH_ADD: the value before; COPY and FILL: bytes transferred. */
  readonly result: Float64Array
  /** `Status`. */
  readonly status: Uint32Array
  /** The channel's epoch in which the device executed it. */
  readonly epoch: Uint32Array

  constructor(capacity: number) {
    this.capacity = checkInteger('capacity', capacity, 1, 1 << 20)
    const memory = new SharedArrayBuffer(capacity * 24)
    this.cookie = new Float64Array(memory, 0, capacity)
    this.result = new Float64Array(memory, capacity * 8, capacity)
    this.status = new Uint32Array(memory, capacity * 16, capacity)
    this.epoch = new Uint32Array(memory, capacity * 20, capacity)
  }
}

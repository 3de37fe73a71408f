/**
 * Operations and completions in columns: typed arrays over one
 * SharedArrayBuffer, which unlike an ArrayBuffer cannot be detached under the
 * native reader. Filling a row allocates nothing.
 */
import { Op } from '../../abi.js'
import { brand } from '../../brand.js'
import { checkInteger } from '../../errors.js'
import { sharedMemory } from '../../shared-memory.js'

export { Op, Status } from '../../abi.js'

/** Whether an operation reads out of the attachment in the column `source`. */
export function namesSource(op: number): boolean {
  return op === Op.COPY || op === Op.SEND
}

/** Whether an operation writes into the attachment in the column `target`. */
export function namesTarget(op: number): boolean {
  return op !== Op.NOP && op !== Op.SEND
}

/** Work to post. Row i is `op[i]`, `source[i]`, ... */
export class Batch {
  static {
    brand(this, (value) => #isOwn in value)
  }

  readonly #isOwn = true
  readonly capacity: number
  /** `Op`. */
  readonly op: Uint8Array
  /** Attachment id read from; ignored but by COPY and SEND. */
  readonly source: Uint32Array
  /** Attachment id written to; ignored by NOP and SEND. */
  readonly target: Uint32Array
  /** Bytes from the source's start. */
  readonly sourceOffset: Float64Array
  /** Bytes from the target's start. FETCH_ADD: a multiple of 8. */
  readonly targetOffset: Float64Array
  /** Bytes; FETCH_ADD: 8; RECEIVE: what there is room for. */
  readonly length: Float64Array
  /** FILL: the byte written; FETCH_ADD: the whole number added. */
  readonly operand: Float64Array
  /** The caller's own number; comes back in the completion. */
  readonly cookie: Float64Array

  constructor(capacity: number) {
    this.capacity = checkInteger('capacity', capacity, 1, 1 << 20)
    const memory = sharedMemory(capacity * 56)
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
  static {
    brand(this, (value) => #isOwn in value)
  }

  readonly #isOwn = true
  readonly capacity: number
  /** The operation's cookie. */
  readonly cookie: Float64Array
  /** FETCH_ADD: the value before; any other: bytes transferred. DEVICE_ERROR: the device's code. */
  readonly result: Float64Array
  /** `Status`. */
  readonly status: Uint32Array
  /** The channel's epoch in which the device executed it. */
  readonly epoch: Uint32Array

  constructor(capacity: number) {
    this.capacity = checkInteger('capacity', capacity, 1, 1 << 20)
    const memory = sharedMemory(capacity * 24)
    this.cookie = new Float64Array(memory, 0, capacity)
    this.result = new Float64Array(memory, capacity * 8, capacity)
    this.status = new Uint32Array(memory, capacity * 16, capacity)
    this.epoch = new Uint32Array(memory, capacity * 20, capacity)
  }
}

/** The transmit ring, legacy descriptors: 82574 datasheet 7.2.10.1. */
import type { RingQueue } from '../driver.js'
import type { DescriptorForm } from '../ring-slots.js'
import { send } from './limits.js'
import type { DescriptorRing } from './ring.js'

/** Bits of the third word: the length is below, the command from bit 24. */
const END_OF_PACKET = 1 << 24
const INSERT_CRC = 1 << 25
const REPORT_STATUS = 1 << 27
/** Of the fourth word. */
const DONE = 1

/** The sends of a batch are done together. Done: the device has read the frame. */
export const sendForm: DescriptorForm = {
  words: Uint32Array.of(0, 0, END_OF_PACKET | INSERT_CRC, 0),
  addressWord: 0,
  lengthWord: 2,
  lastWord: 2,
  lastBits: REPORT_STATUS,
  doneWord: 3,
  doneMask: DONE,
  goodMask: 0,
  goodValue: 0,
  resultWord: 2,
  resultMask: 0xffff,
}

export class TxQueue implements RingQueue {
  readonly name = 'tx'
  readonly operations = [send]
  readonly repeatable = false
  readonly drains = true
  readonly ring: DescriptorRing
  readonly #onArm: () => void

  constructor(ring: DescriptorRing, onArm: () => void) {
    this.ring = ring
    this.#onArm = onArm
  }

  /** The device reports no errors of frames that it sends. */
  errorCode(word: number): number {
    return word
  }

  tell(tail: number): void {
    this.ring.tell(tail)
  }

  next(): number {
    return this.ring.head
  }

  /** What is posted is sent; the channel waits for the reports too. */
  stop(tail: number): boolean {
    return this.ring.head === tail
  }

  /** An empty ring needs no switch. */
  start(): void {}

  setUp(): void {
    this.ring.setUp()
  }

  arm(): void {
    this.#onArm()
  }

  close(): void {
    this.ring.close()
  }
}

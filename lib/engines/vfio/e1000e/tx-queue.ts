/** The transmit ring, legacy descriptors: 82574 datasheet 7.2.10.1. */
import { Op } from '../../../move-notify/batch.js'
import type { RingQueue } from '../driver.js'
import { sendLimits } from './limits.js'
import type { DescriptorRing } from './ring.js'

/** Bits of the third word: the length is below, the command from bit 24. */
const END_OF_PACKET = 1 << 24
const INSERT_CRC = 1 << 25
const REPORT_STATUS = 1 << 27
/** Of the fourth word. */
const DONE = 1

export class TxQueue implements RingQueue {
  readonly name = 'tx'
  readonly op = Op.SEND
  readonly repeatable = false
  readonly limits = sendLimits
  readonly #ring: DescriptorRing
  readonly #words: Uint32Array
  readonly #mask: number
  readonly #onArm: () => void
  /** A ring of slots: the last one of each batch, which alone reports, until it has. */
  readonly #lasts: Uint32Array
  #firstLast = 0
  #lastCount = 0
  /** What is before this slot is done. */
  #doneTo = 0
  #tail = 0

  constructor(ring: DescriptorRing, onArm: () => void) {
    this.#ring = ring
    this.#words = ring.words
    this.#mask = ring.entries - 1
    this.#lasts = new Uint32Array(ring.entries)
    this.#onArm = onArm
  }

  write(slot: number, iova: number, length: number): void {
    const words = this.#words
    const at = slot * 4
    words[at] = iova
    words[at + 1] = iova > 0x7fffffff ? iova / 2 ** 32 : 0
    words[at + 2] = length | END_OF_PACKET | INSERT_CRC
    words[at + 3] = 0
  }

  ring(tail: number): void {
    const last = (tail - 1) & this.#mask
    const command = last * 4 + 2
    this.#words[command] = (this.#words[command] ?? 0) | REPORT_STATUS
    this.#lasts[(this.#firstLast + this.#lastCount++) & this.#mask] = last
    this.#tail = tail
    this.#ring.tail = tail
  }

  /** The sends of a batch are done together. */
  done(head: number, _most: number): number {
    this.#look()
    return (this.#doneTo - head) & this.#mask
  }

  #look(): void {
    while (this.#lastCount > 0) {
      const slot = this.#lasts[this.#firstLast & this.#mask] ?? 0
      if ((Atomics.load(this.#words, slot * 4 + 3) & DONE) === 0) return
      this.#doneTo = (slot + 1) & this.#mask
      this.#firstLast = (this.#firstLast + 1) & this.#mask
      this.#lastCount--
    }
  }

  /** The device has read the frame. */
  result(slot: number): number {
    return (this.#words[slot * 4 + 2] ?? 0) & 0xffff
  }

  next(): number {
    return this.#ring.head
  }

  /** Drained: all has been reported, and the device says so itself. */
  stop(): boolean {
    this.#look()
    return this.#lastCount === 0 && this.#ring.head === this.#tail
  }

  /** An empty ring needs no switch. */
  start(): void {}

  setUp(): void {
    this.#ring.setUp()
    this.#firstLast = 0
    this.#lastCount = 0
    this.#doneTo = 0
    this.#tail = 0
  }

  arm(): void {
    this.#onArm()
  }

  close(): void {
    this.#ring.close()
  }
}

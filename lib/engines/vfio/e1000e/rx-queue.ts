/** The receive ring, legacy descriptors: 82574 datasheet 7.1.4.1. */
import { Op } from '../../../move-notify/batch.js'
import type { RingQueue } from '../driver.js'
import { receiveLimits } from './limits.js'
import type { DescriptorRing } from './ring.js'

/** Bits of the fourth word: the status is below, the errors from bit 8. */
const DONE = 1
const END_OF_PACKET = 2
/** CE, SE, SEQ, CXE, RXE: of the frame; not those of IP and TCP checksums in it. */
const FRAME_ERRORS = 0x97
/** In a result: the frame did not fit into one buffer. */
const CONTINUED = 0x100

/** More than a full FIFO takes to memory, ms: it waits no longer for a count that does not fall. */
const FIFO_MS = 0.5

/** What switches the device's receiver: it has one for all its rings. */
export interface Receiver {
  on(): void
  /** Written, and read back. */
  off(): void
  /** Whether frames that it has received are in the device still. */
  hasFrames(): boolean
  /** How long a frame that was coming in when it was switched off may take, ms. */
  frameMs(): number
  arm(): void
}

export class RxQueue implements RingQueue {
  readonly name = 'rx'
  readonly op = Op.RECEIVE
  readonly repeatable = true
  readonly limits = receiveLimits
  readonly #ring: DescriptorRing
  readonly #words: Uint32Array
  readonly #mask: number
  readonly #receiver: Receiver
  #isOn = false
  #tail = 0
  /** The tail that the device knows of. */
  #told = 0

  constructor(ring: DescriptorRing, receiver: Receiver) {
    this.#ring = ring
    this.#words = ring.words
    this.#mask = ring.entries - 1
    this.#receiver = receiver
  }

  write(slot: number, iova: number, _length: number): void {
    const words = this.#words
    const at = slot * 4
    words[at] = iova
    words[at + 1] = iova > 0x7fffffff ? iova / 2 ** 32 : 0
    words[at + 3] = 0
  }

  /**
   * While the receiver is off the tail waits for it, as 4.6.5 wants it; QEMU
   * before version 8 takes the store as "ready", and drops the frames that wait.
   */
  ring(tail: number): void {
    this.#tail = tail
    if (this.#isOn) this.#tell()
  }

  done(head: number, most: number): number {
    const words = this.#words
    const mask = this.#mask
    let at = head * 4 + 3
    let done = 0
    while (done < most && ((words[at] ?? 0) & DONE) !== 0) {
      done++
      at = ((head + done) & mask) * 4 + 3
    }
    // The device writes them in order: what it wrote before the last one is read after this.
    if (done > 0) Atomics.load(words, ((head + done - 1) & mask) * 4 + 3)
    return done
  }

  result(slot: number): number {
    const status = this.#words[slot * 4 + 3] ?? 0
    const errors = (status >>> 8) & FRAME_ERRORS
    if (errors === 0 && (status & END_OF_PACKET) !== 0) {
      return (this.#words[slot * 4 + 2] ?? 0) & 0xffff
    }
    return -(errors | ((status & END_OF_PACKET) === 0 ? CONTINUED : 0))
  }

  next(): number {
    return this.#ring.head
  }

  /**
   * Receives stay posted; the receiver is off. A frame that is coming in then
   * is received whole (10.2.5.1, RCTL.EN), and what is in the FIFO goes on to
   * memory: both are awaited here, which takes 13 us at 1 Gb/s. The last
   * register read cannot pass the writes that the device had sent before it
   * (PCIe ordering).
   */
  stop(): boolean {
    const receiver = this.#receiver
    this.#isOn = false
    receiver.off()
    const received = performance.now() + receiver.frameMs()
    while (performance.now() < received);
    const written = received + FIFO_MS
    while (receiver.hasFrames() && !this.#ring.isEmpty) {
      if (performance.now() > written) return false
    }
    return true
  }

  start(): void {
    this.#receiver.on()
    this.#isOn = true
    if (this.#told !== this.#tail) this.#tell()
  }

  #tell(): void {
    this.#told = this.#tail
    this.#ring.tail = this.#tail
  }

  setUp(): void {
    this.#isOn = false
    this.#tail = 0
    this.#told = 0
    this.#ring.setUp()
  }

  arm(): void {
    this.#receiver.arm()
  }

  close(): void {
    this.#ring.close()
  }
}

/** The receive ring, legacy descriptors: 82574 datasheet 7.1.4.1. */
import type { RingQueue } from '../driver.js'
import type { DescriptorForm } from '../ring-slots.js'
import { receive } from './limits.js'
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

/** The device writes length and status; the address is all that we say. */
export const receiveForm: DescriptorForm = {
  words: Uint32Array.of(0, 0, 0, 0),
  addressWord: 0,
  doneWord: 3,
  doneMask: DONE,
  goodMask: END_OF_PACKET | (FRAME_ERRORS << 8),
  goodValue: END_OF_PACKET,
  resultWord: 2,
  resultMask: 0xffff,
}

export class RxQueue implements RingQueue {
  readonly name = 'rx'
  readonly operations = [receive]
  readonly repeatable = true
  readonly drains = false
  readonly ring: DescriptorRing
  readonly #receiver: Receiver

  constructor(ring: DescriptorRing, receiver: Receiver) {
    this.ring = ring
    this.#receiver = receiver
  }

  errorCode(word: number): number {
    return ((word >>> 8) & FRAME_ERRORS) | ((word & END_OF_PACKET) === 0 ? CONTINUED : 0)
  }

  tell(tail: number): void {
    this.ring.tell(tail)
  }

  next(): number {
    return this.ring.head
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
    receiver.off()
    const received = performance.now() + receiver.frameMs()
    while (performance.now() < received);
    const written = received + FIFO_MS
    while (receiver.hasFrames() && !this.ring.isEmpty) {
      if (performance.now() > written) return false
    }
    return true
  }

  start(): void {
    this.#receiver.on()
  }

  setUp(): void {
    this.ring.setUp()
  }

  arm(): void {
    this.#receiver.arm()
  }

  close(): void {
    this.ring.close()
  }
}

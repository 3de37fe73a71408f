/**
 * The load: long copies over and over, on a channel of their own, so that the
 * device always has work in flight on every buffer. What they write is the
 * same each time and is verified at the end.
 */
import type { Layout } from './layout.js'
import type { Lane } from './lanes.js'
import type { Pacer } from './pacer.js'
import type { Pair } from './pair.js'

/**
 * How much work is kept queued, ms at the rate seen, stops included: the event
 * loop may be held up while others have the CPU.
 */
const QUEUED_MS = 500
/** Operations kept queued at most: a ring full. */
const MAX_QUEUED = 256
/** Operations kept queued on each pair at least. */
const MIN_QUEUED = 4

export class Load {
  readonly #lane: Lane
  readonly #pairs: readonly Pair[]
  readonly #pacer: Pacer
  readonly #offset: number
  readonly #length: number
  readonly #since = performance.now()
  readonly #loops: Promise<void>[] = []
  #stopping = false
  #bytes = 0

  constructor(lane: Lane, pairs: readonly Pair[], layout: Layout, pacer: Pacer) {
    this.#lane = lane
    this.#pacer = pacer
    this.#pairs = pairs
    this.#offset = layout.loadSlot * layout.slotSize
    this.#length = layout.loadSlots * layout.slotSize
    for (let i = 0; i < MIN_QUEUED * pairs.length; i++) this.#add()
  }

  /** One operation more in the queue, on the next pair in turn. */
  #add(): void {
    const pair = this.#pairs[this.#loops.length % this.#pairs.length]
    if (pair !== undefined) this.#loops.push(this.#loop(pair))
  }

  async #loop(pair: Pair): Promise<void> {
    const copy = {
      from: pair.source.attachment,
      fromOffset: this.#offset,
      to: pair.target.attachment,
      toOffset: this.#offset,
      length: this.#length,
    }
    while (!this.#stopping) {
      await this.#pacer.take(this.#length, () => !this.#stopping)
      if (this.#stopping) return
      const { failed } = await this.#lane.copy([copy])
      // It would fail again, at once and for ever.
      if (failed > 0) return
      this.#bytes += this.#length
      if (this.#loops.length < this.#wanted()) this.#add()
    }
  }

  #wanted(): number {
    const rate = this.#bytes / (performance.now() - this.#since)
    return Math.min(MAX_QUEUED, (rate * QUEUED_MS) / this.#length)
  }

  /** Resolves when the last one has completed. */
  async stop(): Promise<void> {
    this.#stopping = true
    // No loop is added any more.
    await Promise.all(this.#loops)
  }
}

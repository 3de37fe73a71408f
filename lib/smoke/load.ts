/**
 * The load: long copies over and over, on a channel of their own, so that the
 * device always has work in flight on every buffer. What they write is the
 * same each time and is verified at the end.
 */
import type { Layout } from './layout.js'
import type { Lane } from './lanes.js'
import type { Pair } from './pair.js'

/** Bytes kept queued, about: some milliseconds' work, while the event loop is held up. */
const QUEUED_BYTES = 128 << 20
/** Operations kept queued at most: a ring full. */
const MAX_QUEUED = 256
/** Operations kept queued on each pair at least. */
const MIN_QUEUED = 2

export class Load {
  readonly #lane: Lane
  readonly #loops: Promise<void>[] = []
  #stopping = false
  #bytes = 0

  constructor(lane: Lane, pairs: readonly Pair[], layout: Layout) {
    this.#lane = lane
    const length = layout.loadSlots * layout.slotSize
    const offset = layout.loadSlot * layout.slotSize
    const wanted = Math.min(MAX_QUEUED, QUEUED_BYTES / length) / pairs.length
    for (let i = 0; i < Math.max(MIN_QUEUED, wanted); i++) {
      for (const pair of pairs) this.#loops.push(this.#loop(pair, offset, length))
    }
  }

  /** Bytes copied so far. */
  get bytes(): number {
    return this.#bytes
  }

  async #loop(pair: Pair, offset: number, length: number): Promise<void> {
    const copies = [
      {
        from: pair.source.attachment,
        fromOffset: offset,
        to: pair.target.attachment,
        toOffset: offset,
        length,
      },
    ]
    while (!this.#stopping) {
      const failed = await this.#lane.copy(copies)
      // It would fail again, at once and for ever.
      if (failed > 0) return
      this.#bytes += length
    }
  }

  /** Resolves when the last one has completed. */
  async stop(): Promise<void> {
    this.#stopping = true
    await Promise.all(this.#loops)
  }
}

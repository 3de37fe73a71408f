/** RDMA writes in the batch form, out of one buffer into another at the far end. */
import { Batch, Completions, Op, Status } from '../../../lib/move-notify/importer/batch.js'
import type { Channel } from '../../../lib/move-notify/importer/channel.js'

export interface WriterOptions {
  /** Bytes of a write. */
  size: number
  /** Writes on the way at most; a multiple of `list`. */
  depth: number
  inFlight?: number
  /** Rows posted at a time. */
  list: number
}

/** Small writes go to one place after the other of a page, as perftest's do. */
const PAGE = 4096
/** Milliseconds for which the event loop is ours at a time. */
const SLICE_MS = 10

export class Writer {
  readonly #channel: Channel
  readonly #batch: Batch
  readonly #out = new Completions(256)
  readonly #inFlight: number
  readonly #list: number
  posted = 0
  done = 0
  #isEnded = false
  #last = performance.now()
  #gap = 0

  constructor(channel: Channel, source: number, target: number, options: WriterOptions) {
    const { size, depth, inFlight = depth, list } = options
    this.#channel = channel
    this.#inFlight = inFlight
    this.#list = list
    const batch = new Batch(depth)
    batch.op.fill(Op.COPY)
    batch.source.fill(source)
    batch.target.fill(target)
    batch.length.fill(size)
    for (let row = 0; row < depth; row++) {
      const at = size < PAGE ? (row * Math.max(size, 64)) % PAGE : 0
      batch.sourceOffset[row] = batch.targetOffset[row] = at
    }
    this.#batch = batch
  }

  /** Fills up, up to `total` writes. */
  #post(total: number): void {
    const { capacity } = this.#batch
    while (this.posted < total && this.posted - this.done + this.#list <= this.#inFlight) {
      const row = this.posted % capacity
      const count = Math.min(this.#list, total - this.posted, capacity - row)
      const accepted = this.#channel.post(this.#batch, row, count)
      this.posted += accepted
      if (accepted < count) return
    }
  }

  #reap(): number {
    const out = this.#out
    const count = this.#channel.reap(out)
    for (let row = 0; row < count; row++) {
      if (out.status[row] !== Status.OK) throw new Error(`a write ended with ${out.status[row]}`)
    }
    this.done += count
    return count
  }

  /** So many writes more; nanoseconds from the first post to the last completion. */
  async write(count: number): Promise<number> {
    const total = this.posted + count
    const start = process.hrtime.bigint()
    let slice = performance.now()
    while (this.done < total) {
      this.#post(total)
      if (this.#reap() > 0 && performance.now() - slice < SLICE_MS) continue
      if (this.done === total) break
      await this.#channel.completions()
      slice = performance.now()
    }
    return Number(process.hrtime.bigint() - start)
  }

  /** Writes until it is ended, and looks how long nothing completes. */
  async goOn(everyMs = 0): Promise<void> {
    this.#last = performance.now()
    while (!this.#isEnded) {
      this.#post(Infinity)
      if (this.#reap() > 0) {
        const now = performance.now()
        this.#gap = Math.max(this.#gap, now - this.#last)
        this.#last = now
        if (everyMs > 0) await new Promise((resolve) => setTimeout(resolve, everyMs))
      } else if (this.#channel.isRunning) await this.#channel.completions()
      else await this.#channel.ready(this.#batch, this.posted % this.#batch.capacity)
    }
  }

  end(): void {
    this.#isEnded = true
  }

  /** The longest time between two completions since this was called the last time, ms. */
  takeGap(): number {
    const gap = this.#gap
    this.#gap = 0
    return gap
  }
}

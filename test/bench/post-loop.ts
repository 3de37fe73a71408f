/** Fills a batch's columns, posts, and reaps: what an operation costs in the batch form. */
import { setImmediate as turn } from 'node:timers/promises'
import type { Attachment, Batch, Channel, Completions, SoftwareEngine } from '../../lib/index.js'
import { native } from '../../lib/native.js'
import type { Library } from './library.js'

/** Posted, and then reaped: the device works in between, untimed. */
export const DEPTH = 1024

/** Copies of no bytes, between two small buffers of a software engine. */
export class PostLoop {
  readonly engine: SoftwareEngine
  readonly from: Attachment
  readonly to: Attachment
  readonly #library: Library
  readonly #channel: Channel
  readonly #out: Completions
  readonly #batches = new Map<number, Batch>()

  private constructor(
    library: Library,
    engine: SoftwareEngine,
    channel: Channel,
    [from, to]: [Attachment, Attachment],
  ) {
    this.#library = library
    this.engine = engine
    this.#channel = channel
    this.from = from
    this.to = to
    this.#out = new library.Completions(DEPTH)
  }

  static async open(library: Library): Promise<PostLoop> {
    const { SoftwareEngine, MovableBuffer, memfd } = library
    const engine = new SoftwareEngine()
    const importer = engine.importer()
    const attach = async () => importer.attach(await MovableBuffer.create(4096, memfd()))
    const ends: [Attachment, Attachment] = [await attach(), await attach()]
    return new PostLoop(library, engine, importer.channel({ depth: DEPTH }), ends)
  }

  batch(size: number): Batch {
    const batch = this.#batches.get(size) ?? new this.#library.Batch(size)
    this.#batches.set(size, batch)
    return batch
  }

  /** CPU nanoseconds of this thread for an operation, of `rounds` times DEPTH. */
  async measure(size: number, rounds: number): Promise<number> {
    const { engine } = this
    const batch = this.batch(size)
    let ns = 0
    for (let i = 0; i < rounds; i++) {
      const done = engine.stats().operations + DEPTH
      ns += this.#post(batch, size)
      while (engine.stats().operations < done) await turn()
      ns += this.#reap()
    }
    return ns / (rounds * DEPTH)
  }

  #post(batch: Batch, size: number): number {
    const channel = this.#channel
    const source = this.from.id
    const target = this.to.id
    const { COPY } = this.#library.Op
    const start = native.threadCpuTime()
    for (let cookie = 0; cookie < DEPTH; cookie += size) {
      for (let row = 0; row < size; row++) {
        batch.op[row] = COPY
        batch.source[row] = source
        batch.target[row] = target
        batch.sourceOffset[row] = 0
        batch.targetOffset[row] = 64
        batch.length[row] = 0
        batch.cookie[row] = cookie + row
      }
      if (channel.post(batch, 0, size) !== size) throw new Error('a batch was refused')
    }
    return native.threadCpuTime() - start
  }

  #reap(): number {
    const channel = this.#channel
    const out = this.#out
    const start = native.threadCpuTime()
    let sum = 0
    for (let reaped = 0; reaped < DEPTH;) {
      const count = channel.reap(out)
      for (let row = 0; row < count; row++) sum += out.cookie[row]!
      reaped += count
    }
    const elapsed = native.threadCpuTime() - start
    if (sum !== (DEPTH * (DEPTH - 1)) / 2) throw new Error('completions were wrong')
    return elapsed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.engine.close()
    await Promise.all([this.from.buffer.close(), this.to.buffer.close()])
  }
}

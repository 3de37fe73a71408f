/** An importer with many small buffers attached, of which a channel uses the first 64. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type {
  Attachment,
  Channel,
  Exporter,
  Importer,
  MovableBuffer,
  SoftwareEngine,
} from '../../lib/index.js'
import { native } from '../../lib/native.js'
import type { Library } from './library.js'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

const SIZE = 4096
/** Buffers that the channel's peer holds keys to: their moves stop it. */
const GRANTED = 64

export class Population {
  readonly engine: SoftwareEngine
  readonly importer: Importer
  readonly buffers: MovableBuffer[] = []
  readonly attachments: Attachment[] = []
  readonly #library: Library
  readonly #exporter: Exporter
  readonly #channel: Channel

  /** `lockAll`: step 3.1 to the mail's letter. */
  constructor(library: Library, lockAll = false) {
    this.#library = library
    // 1,024 buffers share a backing: see the limits of files and maps.
    this.#exporter = library.slab(library.memfd(), { slabSize: 1024 * SIZE })
    this.engine = new library.SoftwareEngine()
    // Without a minimum between two stops: its timer would be all that is measured.
    this.importer = this.engine.importer({ minRunMs: 0, lockAll })
    this.#channel = this.importer.channel()
  }

  async create(count: number): Promise<void> {
    while (this.buffers.length < count) {
      this.buffers.push(await this.#library.MovableBuffer.create(SIZE, this.#exporter))
    }
  }

  async attach(count: number): Promise<void> {
    await this.create(count)
    while (this.attachments.length < count) {
      const attachment = await this.importer.attach(this.buffers[this.attachments.length]!)
      if (this.attachments.length < GRANTED) this.#channel.grant(attachment)
      this.attachments.push(attachment)
    }
  }

  /** Bytes for each of `count` more buffers, and for attaching each of them. */
  async bytes(count: number): Promise<{ buffer: number; attachment: number }> {
    const start = this.#used()
    const [created, attached] = [this.buffers.length, this.attachments.length]
    await this.create(attached + count)
    const made = this.#used()
    await this.attach(attached + count)
    return {
      buffer: (made - start) / (this.buffers.length - created),
      attachment: (this.#used() - made) / count,
    }
  }

  #used(): number {
    collect()
    collect()
    const { heapUsed, external } = process.memoryUsage()
    return heapUsed + external + this.engine.stats().tableBytes
  }

  async moveOne(index: number): Promise<void> {
    await this.buffers[index]!.move(this.#exporter)
  }

  /** Microseconds for each of `count` moves, of ten buffers at most, one after the other. */
  async moves(count: number): Promise<number> {
    const start = performance.now()
    const buffers = Math.min(10, this.attachments.length)
    for (let i = 0; i < count; i++) await this.moveOne(i % buffers)
    return ((performance.now() - start) * 1000) / count
  }

  /** Microseconds for each of `count` moves until the channel runs again. */
  async restarts(count: number): Promise<number> {
    const start = performance.now()
    for (let i = 0; i < count; i++) {
      await this.moveOne(i % 10)
      while (!this.#channel.isRunning) await new Promise((resolve) => setImmediate(resolve))
    }
    return ((performance.now() - start) * 1000) / count
  }

  /**
   * The fastest of some rounds of ten moves, microseconds for each: what else
   * runs on the machine makes some of them slower and none of them faster.
   */
  async bestMoves(rounds: number): Promise<number> {
    let best = Infinity
    for (let i = 0; i < rounds; i++) best = Math.min(best, await this.moves(10))
    return best
  }

  /** CPU microseconds of the event loop's thread for each of `count` moves. */
  async cpuOfMoves(count: number): Promise<number> {
    const start = native.threadCpuTime()
    await this.moves(count)
    return (native.threadCpuTime() - start) / 1000 / count
  }

  /** Microseconds for `count` buffers, moved at once. */
  async together(count: number): Promise<number> {
    const start = performance.now()
    await Promise.all(Array.from({ length: count }, (_, i) => this.moveOne(i)))
    return (performance.now() - start) * 1000
  }

  /** Microseconds for `count` buffers, moved one after the other. */
  async singly(count: number): Promise<number> {
    const start = performance.now()
    for (let i = 0; i < count; i++) await this.moveOne(i)
    return (performance.now() - start) * 1000
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.engine.close()
    await Promise.all(this.buffers.map((buffer) => buffer.close()))
  }
}

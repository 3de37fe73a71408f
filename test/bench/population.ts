/** An importer with many small buffers attached, of which a channel uses the first 64. */
import { SoftwareEngine } from '../../lib/engines/index.js'
import { memfd, slab } from '../../lib/exporters/index.js'
import type { Attachment } from '../../lib/move-notify/importer/attachment.js'
import type { Channel } from '../../lib/move-notify/importer/channel.js'
import type { Importer } from '../../lib/move-notify/importer/importer.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { native } from '../../lib/native.js'

const SIZE = 4096
/** Buffers that the channel's peer holds keys to: their moves stop it. */
const GRANTED = 64

export class Population {
  readonly engine = new SoftwareEngine()
  readonly importer: Importer
  readonly buffers: MovableBuffer[] = []
  readonly attachments: Attachment[] = []
  /** 1,024 buffers share a backing: see the limits of files and maps. */
  readonly #exporter = slab(memfd(), { slabSize: 1024 * SIZE })
  readonly #channel: Channel

  /** `lockAll`: step 3.1 to the mail's letter. */
  constructor(lockAll = false) {
    // Without a minimum between two stops: its timer would be all that is measured.
    this.importer = this.engine.importer({ minRunMs: 0, lockAll })
    this.#channel = this.importer.channel()
  }

  async create(count: number): Promise<void> {
    while (this.buffers.length < count) {
      this.buffers.push(await MovableBuffer.create(SIZE, this.#exporter))
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

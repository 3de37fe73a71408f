/** What a move costs beside channels that do not use what moves, though they have much in flight. */
import { SoftwareEngine } from '../../lib/engines/index.js'
import { memfd } from '../../lib/exporters/index.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { Batch, Op } from '../../lib/move-notify/importer/batch.js'
import { native } from '../../lib/native.js'
import { pairs, type Ratio } from './measure.js'

const SIZE = 4096
const DEPTH = 256

/** An engine with so many channels, whose rings are full, and a buffer that none of them names. */
class Bystanders {
  readonly #engine = new SoftwareEngine()
  readonly #exporter = memfd()
  readonly #buffers: MovableBuffer[] = []

  async open(channels: number): Promise<void> {
    const importer = this.#engine.importer({ minRunMs: 0 })
    for (let i = 0; i < 3; i++) {
      this.#buffers.push(await MovableBuffer.create(SIZE, this.#exporter))
    }
    const [, from, to] = await Promise.all(this.#buffers.map((each) => importer.attach(each)))
    const batch = new Batch(DEPTH)
    for (let i = 0; i < DEPTH; i++) {
      batch.op[i] = Op.COPY
      batch.source[i] = from!.id
      batch.target[i] = to!.id
      batch.length[i] = 64
    }
    // Each channel's first row hangs in the middle, and stays: none of them is done.
    for (let i = 0; i < channels; i++) {
      this.#engine.inject({ kind: 'stall' })
      const channel = importer.channel({ depth: DEPTH })
      if (channel.post(batch, 0, DEPTH) !== DEPTH) throw new Error('a row was not accepted')
      while (this.#engine.stats().injected <= i) {
        await new Promise((resolve) => setImmediate(resolve))
      }
    }
  }

  /** CPU microseconds of the event loop's thread for each of `count` moves. */
  async moves(count: number): Promise<number> {
    const start = native.threadCpuTime()
    for (let i = 0; i < count; i++) await this.#buffers[0]!.move(this.#exporter)
    return (native.threadCpuTime() - start) / 1000 / count
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#engine.unstall()
    await this.#engine.close()
    for (const each of this.#buffers) await each.close()
  }
}

export async function usesSuite(quick: boolean): Promise<Ratio[]> {
  const channels = quick ? 20 : 1000
  await using many = new Bystanders()
  await using one = new Bystanders()
  await many.open(channels)
  await one.open(1)
  const count = quick ? 2 : 20
  return [
    await pairs(
      'uses_1000_channels_vs_1',
      quick ? 3 : 61,
      'us/move',
      () => many.moves(count),
      () => one.moves(count),
      { channels: `${channels} and 1`, rows: DEPTH },
    ),
  ]
}

/**
 * A buffer in a device's BAR, and a queue pair of its own whose peer writes to
 * it, so that the kernel can take the memory away in the middle: what was written
 * before has to be there when it comes back.
 */
import { memfd, type VfioBarExporter } from '../../exporters/index.js'
import type { Attachment } from '../../move-notify/importer/attachment.js'
import { Access } from '../../move-notify/importer/engine.js'
import { MovableBuffer } from '../../move-notify/exporter/movable-buffer.js'
import type { RemoteAttachment } from '../../move-notify/importer/remote-attachment.js'
import { countChannel } from '../lanes.js'
import type { Pacer } from '../pacer.js'
import type { Tally } from '../tally.js'
import type { End } from './ends.js'
import { Keys } from './one-sided-lane.js'

const BLOCK = 4096
const BLOCKS = 16
const WRITERS = 4
/** Writes done in the middle of which the memory goes. */
const BEFORE = 6
/** Writes that go on for so long after that were not made to fail, ms. */
const LIMIT_MS = 30_000

/** Of the scenario and the run. */
interface Counting {
  tally: Tally
  pacer: Pacer
}

/** What a round of writes came to. */
interface Round {
  /** Blocks that were written, and those of which a write failed. */
  written: Set<number>
  failed: Set<number>
  errors: Error[]
}

export class Revocable {
  readonly buffer: MovableBuffer
  readonly #bar: VfioBarExporter
  readonly #source: MovableBuffer
  readonly #from: Attachment
  readonly #remote: RemoteAttachment
  readonly #ends: readonly [End, End]
  readonly #tally: Tally
  readonly #pacer: Pacer
  #round = 0

  private constructor(
    bar: VfioBarExporter,
    [buffer, source]: [MovableBuffer, MovableBuffer],
    from: Attachment,
    remote: RemoteAttachment,
    ends: readonly [End, End],
    { tally, pacer }: Counting,
  ) {
    this.buffer = buffer
    this.#bar = bar
    this.#source = source
    this.#from = from
    this.#remote = remote
    this.#ends = ends
    this.#tally = tally
    this.#pacer = pacer
  }

  /** The first end writes to the second one's memory. */
  static async open(
    bar: VfioBarExporter,
    ends: readonly [End, End],
    counting: Counting,
  ): Promise<Revocable> {
    const [active, passive] = ends
    const buffer = await MovableBuffer.create(BLOCKS * BLOCK, bar, { poison: true })
    const source = await MovableBuffer.create(BLOCKS * BLOCK, memfd())
    try {
      const from = await active.port.importer.attach(source, { access: Access.READ })
      const attachment = await passive.port.importer.attach(buffer, { access: Access.WRITE })
      const remote = await new Keys(active, passive, Access.WRITE).to(attachment)
      return new Revocable(bar, [buffer, source], from, remote, ends, counting)
    } catch (error) {
      await source.close()
      await buffer.close()
      throw error
    }
  }

  /** Its queue pair, as either end calls it. */
  get queues(): string[] {
    return this.#ends.map(({ channel }) => channel.queue ?? '')
  }

  /** Writes every block. */
  async fill(): Promise<Round> {
    const round = await this.#begin()
    let next = 0
    await this.#writers(round, () => (next < BLOCKS ? next++ : null))
    return round
  }

  /** Writes blocks over and over; `take` is called in the middle, and has to make the writes fail. */
  async fillUntilTaken<T>(take: () => Promise<T>): Promise<Round & { taken: T }> {
    const round = await this.#begin()
    const taking: Promise<T>[] = []
    let next = 0
    let endsAt = Infinity
    await this.#writers(round, () => {
      if (next === BEFORE) {
        taking.push(take())
        endsAt = performance.now() + LIMIT_MS
      }
      return performance.now() < endsAt ? next++ % BLOCKS : null
    })
    return { ...round, taken: await (taking[0] ?? take()) }
  }

  /** The next one: what each block is to hold is in the source. */
  async #begin(): Promise<Round> {
    const round = ++this.#round
    await this.#source.withCpuAccess('w', (cpu) => {
      for (let block = 0; block < BLOCKS; block++)
        cpu.view().set(content(round, block), block * BLOCK)
    })
    return { written: new Set(), failed: new Set(), errors: [] }
  }

  /** Each until its first error, or until there is no next block. */
  async #writers(round: Round, next: () => number | null): Promise<void> {
    const [{ channel }] = this.#ends
    const writer = async () => {
      for (let block = next(); block !== null; block = next()) {
        const at = block * BLOCK
        try {
          await this.#pacer.take(BLOCK)
          await channel.copy(this.#from, at, this.#remote, at, BLOCK)
          round.written.add(block)
        } catch (error) {
          round.failed.add(block)
          round.errors.push(error as Error)
          return
        }
      }
    }
    await Promise.all(Array.from({ length: WRITERS }, writer))
  }

  /** Away and back: what the kernel has revoked is registered anew. */
  async remap(): Promise<void> {
    await this.buffer.move(memfd())
    await this.buffer.move(this.#bar)
  }

  /**
   * How many blocks do not hold what they should: what the last round has written, or
   * what the one before has. Of a write that failed nothing is known.
   */
  async countWrong({ written, failed }: Round): Promise<number> {
    let wrong = 0
    await this.buffer.withCpuAccess('r', (cpu) => {
      for (let block = 0; block < BLOCKS; block++) {
        if (failed.has(block) && !written.has(block)) continue
        const round = written.has(block) ? this.#round : this.#round - 1
        const seen = Buffer.from(cpu.view(block * BLOCK, BLOCK))
        if (!seen.equals(content(round, block))) wrong++
      }
    })
    return wrong
  }

  /** Adds up what is left to count. */
  async close(): Promise<void> {
    for (const { channel } of this.#ends) countChannel(channel, this.#tally)
    try {
      this.#tally.counts.strayWrites += await this.buffer.countStrayWrites()
    } finally {
      for (const { channel } of this.#ends) await channel.close()
      await this.#source.close()
      await this.buffer.close()
    }
  }
}

/** Says in each word which round and block it is of, and where in it. */
function content(round: number, block: number): Buffer {
  const words = new Uint32Array(BLOCK / 4).map((_, i) => round * 2 ** 20 + block * 2 ** 12 + i)
  return Buffer.from(words.buffer)
}

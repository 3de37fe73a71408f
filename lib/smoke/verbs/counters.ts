/**
 * Counters in the target's memory to which the other end adds, by atomics. Each
 * addition is of one, so that the values before it, as they come back, are all
 * the numbers from 0, each once, whatever moved meanwhile.
 */
import { memfd } from '../../exporters/index.js'
import { Access } from '../../move-notify/importer/engine.js'
import { MovableBuffer } from '../../move-notify/exporter/movable-buffer.js'
import { countChannel } from '../lanes.js'
import type { Pacer } from '../pacer.js'
import type { Placement, Side } from '../pair.js'
import type { Check } from '../scenarios.js'
import type { Tally } from '../tally.js'
import { Keys } from './one-sided-lane.js'
import type { End } from './ends.js'

const COUNTERS = 8
/** Additions under way. */
const WINDOW = 16
const SIZE = 4096
/** Of an atomic and its headers, about. */
const PACKET = 64

export class Counters {
  readonly side: Side
  readonly #active: End
  readonly #passive: End
  readonly #keys: Keys
  readonly #tally: Tally
  readonly #pacer: Pacer
  readonly #before = Array.from({ length: COUNTERS }, () => new Set<number>())
  #stopping = false
  #next = 0

  private constructor(side: Side, active: End, passive: End, tally: Tally, pacer: Pacer) {
    this.side = side
    this.#active = active
    this.#passive = passive
    this.#keys = new Keys(active, passive, Access.READ | Access.WRITE)
    this.#tally = tally
    this.#pacer = pacer
  }

  static async open(
    { from, to }: Placement,
    active: End,
    passive: End,
    tally: Tally,
    pacer: Pacer,
  ): Promise<Counters> {
    const buffer = await MovableBuffer.create(SIZE, from, { poison: true })
    try {
      await buffer.withCpuAccess('w', (cpu) => cpu.view().fill(0))
      const attachment = await passive.port.importer.attach(buffer)
      const side = { name: 'the counters', buffer, attachment, probe: passive.port.probe, to }
      return new Counters(side, active, passive, tally, pacer)
    } catch (error) {
      await buffer.close()
      throw error
    }
  }

  /** Adds until `stop()`, or until an addition fails. */
  async run(): Promise<void> {
    const remote = await this.#keys.to(this.side.attachment)
    const loop = async () => {
      while (!this.#stopping) {
        await this.#pacer.take(PACKET)
        const counter = this.#next++ % COUNTERS
        const { previous = -1 } = await this.#active.channel.fetchAdd(remote, counter * 8, 1)
        const before = this.#before[counter] as Set<number>
        if (before.has(previous)) this.#tally.counts.doubled++
        before.add(previous)
      }
    }
    const loops = await Promise.allSettled(Array.from({ length: WINDOW }, loop))
    for (const each of loops) {
      if (each.status === 'rejected') this.#tally.failed('failedOperations', each.reason)
    }
  }

  stop(): void {
    this.#stopping = true
  }

  /** When all is quiet: what the memory has, against what came back. */
  async check(): Promise<Check> {
    const { buffer } = this.side
    // To where the CPU has views.
    await buffer.move(memfd())
    const values = await buffer.withCpuAccess('r', (cpu) => [
      ...new BigUint64Array(cpu.view().slice(0, COUNTERS * 8).buffer),
    ])
    const made = this.#before.map((before) => before.size)
    const total = made.reduce((sum, each) => sum + each, 0)
    const isWhole = this.#before.every((before) =>
      [...before].every((n) => n >= 0 && n < before.size),
    )
    const isExact = values.every((value, i) => value === BigInt(made[i] ?? -1))
    const sum = values.reduce((all, each) => all + each, 0n)
    return {
      ok: total > 0 && isWhole && isExact,
      name: `${total} additions of one, and the ${COUNTERS} counters hold ${sum}`,
    }
  }

  /** Adds up what is left to count. */
  async close(): Promise<void> {
    for (const { channel } of [this.#active, this.#passive]) countChannel(channel, this.#tally)
    try {
      this.#tally.counts.strayWrites += await this.side.buffer.countStrayWrites()
    } finally {
      await this.side.buffer.close()
    }
  }
}

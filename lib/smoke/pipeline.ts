/**
 * The stamped traffic: groups of blocks are stamped in the source, copied by
 * the device, verified in the target and marked as consumed, several groups at
 * a time. No slot is used again before its block has been verified and, later,
 * has been looked at once more: what was written a second time is seen there.
 */
import { Verdict } from '../abi.js'
import { P2pdmaError } from '../errors.js'
import type { MovableBuffer } from '../move-notify/exporter/movable-buffer.js'
import { groupSlots, type Layout, payloadOffset } from './layout.js'
import type { Lane } from './lanes.js'
import type { Pacer } from './pacer.js'
import type { Pair } from './pair.js'
import type { Random } from './random.js'
import { CONSUMED, type Stamps } from './stamp.js'
import type { Tally } from './tally.js'
import type { Watchdog } from './watchdog.js'

export interface PipelineParts {
  pairs: readonly Pair[]
  layout: Layout
  lane: Lane
  stamps: Stamps
  tally: Tally
  random: Random
  watchdog: Watchdog
  pacer: Pacer
  /** Groups under way at most. */
  window: number
}

export class Pipeline {
  readonly #parts: PipelineParts
  /** Groups under way at most: fewer than half of all, so that a late second write meets a rest. */
  readonly #window: number
  #begun = 0
  #done = 0
  #stopping = false
  #ended = false
  #progress: (() => void)[] = []

  constructor(parts: PipelineParts) {
    this.#parts = parts
    const all = parts.pairs.length * parts.layout.groups
    this.#window = Math.min(parts.window, Math.max(1, Math.floor((all - 1) / 2)))
  }

  /** Groups verified. */
  get done(): number {
    return this.#done
  }

  /** Whether it has run to its end, or has failed. */
  get ended(): boolean {
    return this.#ended
  }

  /** Groups until each slot has been used once more. */
  get lap(): number {
    return this.#parts.pairs.length * this.#parts.layout.groups
  }

  /** Blocks that complete between a block's verification, at the latest, and its slot's next use. */
  get restBlocks(): number {
    return this.#window * this.#parts.layout.groupSize
  }

  /** Resolves at the next group verified, or at the end. */
  progress(): Promise<void> {
    return new Promise((resolve) => this.#progress.push(resolve))
  }

  /** Runs until `stop()`; resolves when all that was begun has been verified. */
  async run(): Promise<void> {
    const under: Promise<void>[] = []
    try {
      while (!this.#stopping) {
        const group = this.#group(this.#begun++)
        group.catch(() => {})
        under.push(group)
        // In order: the window slides over the oldest.
        if (under.length >= this.#window) await under.shift()
      }
      while (under.length > 0) await under.shift()
    } finally {
      await Promise.allSettled(under)
      this.#ended = true
      this.#report()
    }
  }

  stop(): void {
    this.#stopping = true
  }

  async #group(number: number): Promise<void> {
    const { pairs, layout, lane, stamps, tally, random, watchdog, pacer } = this.#parts
    const pair = pairs[number % pairs.length] as Pair
    const slots = groupSlots(layout, Math.floor(number / pairs.length) % layout.groups)
    const places = random.shuffled(slots)
    const name = `group ${number}`
    const { source, target } = pair
    const sequences = await watchdog.over(
      `stamping ${name} in ${source.name}`,
      stamps.stamp(source.buffer, slots),
    )
    await watchdog.over(`the second look at ${name}`, this.#settled(pair, places))
    const identify = (count: number) =>
      this.#identify(target.buffer, places.slice(0, count), sequences)
    await pacer.take(slots.length * layout.payload)
    const { failed, order } = await watchdog.over(
      `copying ${name} from ${source.name} to ${target.name}`,
      lane.copy(
        slots.map((slot, i) => ({
          from: source.attachment,
          fromOffset: payloadOffset(layout, slot),
          to: target.attachment,
          toOffset: payloadOffset(layout, places[i] ?? 0),
          length: layout.payload,
        })),
        identify,
      ),
    )
    if (failed > 0) throw failedError(failed, name)
    const verdicts = await watchdog.over(
      `verifying ${name} in ${target.name}`,
      stamps.verify(target.buffer, places, expected(sequences, order), true),
    )
    for (const verdict of verdicts) tally.arrived(verdict, layout.payload)
    this.#done++
    this.#report()
  }

  /** Which of the sequences each place holds, by their indexes; -1: none. Mostly in order. */
  async #identify(
    buffer: MovableBuffer,
    places: readonly number[],
    sequences: readonly number[],
  ): Promise<number[]> {
    const { stamps } = this.#parts
    const left = sequences.map((_, index) => index)
    let next = 0
    const order: number[] = []
    for (const place of places) {
      const candidates = [...left.filter((i) => i >= next), ...left.filter((i) => i < next)]
      let found = -1
      for (const index of candidates) {
        const [verdict] = await stamps.verify(buffer, [place], [sequences[index] ?? 0], false)
        if (((verdict ?? 0) & Verdict.CONTENT) !== Verdict.INTACT) continue
        found = index
        break
      }
      order.push(found)
      if (found < 0) continue
      left.splice(left.indexOf(found), 1)
      next = found + 1
    }
    return order
  }

  /** What was consumed must still be so. */
  async #settled(pair: Pair, places: readonly number[]): Promise<void> {
    const { stamps, tally } = this.#parts
    const { buffer } = pair.target
    const none = places.map(() => CONSUMED)
    const verdicts = await stamps.verify(buffer, places, none, false)
    for (const verdict of verdicts) tally.settled(verdict)
    const changed = places.filter((_, i) => verdicts[i] !== Verdict.INTACT)
    if (changed.length > 0) await stamps.clear(buffer, changed)
  }

  #report(): void {
    const waiting = this.#progress
    this.#progress = []
    for (const resolve of waiting) resolve()
  }
}

/** What is due at each place; where nothing known came, what came nowhere else. */
function expected(sequences: readonly number[], order: readonly number[] | null): number[] {
  if (order === null) return [...sequences]
  const nowhere = sequences.filter((_, index) => !order.includes(index))
  return sequences.map((_, place) => {
    const index = order[place] ?? -1
    return (index < 0 ? nowhere.shift() : sequences[index]) ?? 0
  })
}

function failedError(failed: number, name: string): P2pdmaError {
  return new P2pdmaError(`${failed} operations of ${name} failed`, { code: 'ERR_SMOKE_FAILED' })
}

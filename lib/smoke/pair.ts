/** A source and a target, attached to one importer. */
import { Access } from '../move-notify/engine.js'
import type { Attachment } from '../move-notify/attachment.js'
import type { Exporter } from '../move-notify/backing.js'
import type { Importer } from '../move-notify/importer.js'
import { MovableBuffer } from '../move-notify/movable-buffer.js'
import { groupSlots, type Layout, loadSlots } from './layout.js'
import type { Stamps } from './stamp.js'
import type { Tally } from './tally.js'

/** A buffer with its only attachment. */
export interface Side {
  /** In messages: `source 0`. */
  name: string
  buffer: MovableBuffer
  attachment: Attachment
}

export class Pair {
  readonly source: Side
  readonly target: Side
  /** What the load area of both holds. */
  readonly #loadSequences: number[]

  private constructor(source: Side, target: Side, loadSequences: number[]) {
    this.source = source
    this.target = target
    this.#loadSequences = loadSequences
  }

  get sides(): Side[] {
    return [this.source, this.target]
  }

  static async open(
    index: number,
    size: number,
    importer: Importer,
    exporter: Exporter,
    layout: Layout,
    stamps: Stamps,
  ): Promise<Pair> {
    const opened: MovableBuffer[] = []
    try {
      const side = async (name: string, access: number): Promise<Side> => {
        const buffer = await MovableBuffer.create(size, exporter, { poison: true })
        opened.push(buffer)
        return { name, buffer, attachment: await importer.attach(buffer, { access }) }
      }
      const source = await side(`source ${index}`, Access.READ)
      const target = await side(`target ${index}`, Access.WRITE)
      const load = loadSlots(layout)
      // Guards first: a load operation copies whole slots, guards and all.
      await stamps.clear(source.buffer, load)
      const sequences = await stamps.stamp(source.buffer, load)
      await stamps.clear(target.buffer, [...stampedSlots(layout), ...load])
      return new Pair(source, target, sequences)
    } catch (error) {
      for (const buffer of opened) await buffer.close()
      throw error
    }
  }

  /** The last look: no verified slot has been written again, and the load is whole. */
  async check(layout: Layout, stamps: Stamps, tally: Tally, loaded: boolean): Promise<void> {
    const { buffer } = this.target
    const stamped = stampedSlots(layout)
    const none = stamped.map(() => 0)
    for (const verdict of await stamps.verify(buffer, stamped, none, false)) tally.settled(verdict)
    if (!loaded) return
    const load = loadSlots(layout)
    for (const verdict of await stamps.verify(buffer, load, this.#loadSequences, false)) {
      tally.arrived(verdict, layout.payload)
    }
  }

  async close(tally: Tally): Promise<void> {
    for (const { buffer } of this.sides) {
      try {
        // Closing looks for stray writes too, and tells nobody.
        tally.counts.strayWrites += await buffer.countStrayWrites()
      } finally {
        await buffer.close()
      }
    }
  }
}

function stampedSlots(layout: Layout): number[] {
  return Array.from({ length: layout.groups }, (_, group) => groupSlots(layout, group)).flat()
}

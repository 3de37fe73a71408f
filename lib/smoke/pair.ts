/** A source and a target, attached to one importer. */
import { Access } from '../move-notify/importer/engine.js'
import type { Attachment } from '../move-notify/importer/attachment.js'
import type { Exporter } from '../move-notify/exporter/backing.js'
import { MovableBuffer } from '../move-notify/exporter/movable-buffer.js'
import { groupSlots, type Layout, loadSlots } from './layout.js'
import type { Station } from './plant.js'
import type { Probe } from './probe.js'
import type { Stamps } from './stamp.js'
import type { Tally } from './tally.js'

/** Where a buffer is made, and where it moves, in turn. */
export interface Placement {
  from: Exporter
  to: readonly Exporter[]
}

/** A buffer with its only attachment. */
export interface Side {
  /** In messages: `source 0`. */
  name: string
  buffer: MovableBuffer
  attachment: Attachment
  /** Of the device that uses it. */
  probe: Probe
  /** Where it moves, in turn. */
  to: readonly Exporter[]
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
    station: Station,
    placements: { source: Placement; target: Placement },
    layout: Layout,
    stamps: Stamps,
  ): Promise<Pair> {
    const opened: MovableBuffer[] = []
    try {
      const side = async (which: 'source' | 'target', access: number): Promise<Side> => {
        const { from, to } = placements[which]
        const { importer, probe } = station[which]
        const buffer = await MovableBuffer.create(size, from, { poison: true })
        opened.push(buffer)
        const attachment = await importer.attach(buffer, { access })
        return { name: `${which} ${index}`, buffer, attachment, probe, to }
      }
      const source = await side('source', Access.READ)
      const target = await side('target', Access.WRITE)
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

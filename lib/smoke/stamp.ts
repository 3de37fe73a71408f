/**
 * Stamps and verifies blocks, off the event loop, in brackets of CPU access: by the CPU's mapping
 * of the memory; where it has none, in staging memory, from which and to which is copied.
 */
import { STAGING_BYTES, type Staging, withStaging } from '../exporters/staging.js'
import { callAsync } from '../kernel/call.js'
import type { Mapping } from '../kernel/mapping.js'
import type { CpuAccessMode } from '../kernel/cpu-access.js'
import type { Backing } from '../move-notify/exporter/backing.js'
import type { CopiedBy } from '../move-notify/exporter/copying.js'
import type { MovableBuffer } from '../move-notify/exporter/movable-buffer.js'
import { native, type NativeMapping } from '../native.js'
import { type Layout, LINE, payloadOffset } from './layout.js'

/** Expects the marker that a verified block leaves behind. */
export const CONSUMED = 0

/** Bytes that one job in the thread pool works on. */
const JOB_BYTES = 4 << 20

/** By whom stamps got into a placement, and back for the look at them; null where none was. */
export interface StampedBy {
  written: CopiedBy | 'mapping' | null
  read: CopiedBy | 'mapping' | null
}

export const NOT_STAMPED: StampedBy = { written: null, read: null }

/** What is done to blocks, wherever the CPU has them mapped. */
interface Job {
  mode: CpuAccessMode
  /** Of a slot, bytes from its start: what is written; null where nothing is. */
  written: { from: number; length: number } | null
  run: (mapping: NativeMapping, offsets: Float64Array, numbers: Float64Array) => Promise<void>
}

/** What one job works on. */
interface Part {
  slots: readonly number[]
  numbers: Float64Array
}

export class Stamps {
  readonly #layout: Layout
  readonly #seed: bigint
  readonly #header: Uint8Array
  readonly #by = new Map<string, StampedBy>()
  #sequence = 0

  /** `header`: what stands right before each block on its way, 64 bytes at most. */
  constructor(layout: Layout, seed: number, header: Uint8Array = new Uint8Array()) {
    this.#layout = layout
    this.#seed = BigInt(seed)
    this.#header = header
  }

  /** Writes a new stamp into each slot; the sequences. */
  async stamp(buffer: MovableBuffer, slots: readonly number[]): Promise<number[]> {
    const sequences = slots.map(() => ++this.#sequence)
    const { payload } = this.#layout
    const lead = this.#header.length === 0 ? 0 : LINE
    await this.#onSlots(buffer, slots, sequences, {
      mode: 'w',
      written: { from: LINE - lead, length: lead + payload },
      run: (mapping, offsets, numbers) =>
        native.stampBlocks(mapping, offsets, numbers, payload, this.#seed, this.#header),
    })
    return sequences
  }

  /** A verdict for each slot; with `consume`, marker and guards are (re)written. */
  async verify(
    buffer: MovableBuffer,
    slots: readonly number[],
    sequences: readonly number[],
    consume: boolean,
  ): Promise<number[]> {
    const verdicts: number[] = []
    const { payload } = this.#layout
    const [seed, header] = [this.#seed, this.#header]
    await this.#onSlots(buffer, slots, sequences, {
      mode: consume ? 'rw' : 'r',
      written: consume ? { from: 0, length: payload + 2 * LINE } : null,
      run: async (mapping, offsets, numbers) => {
        const found = native.verifyBlocks(mapping, offsets, numbers, payload, seed, consume, header)
        verdicts.push(...(await found))
      },
    })
    return verdicts
  }

  /** Leaves the marker and the guards in all slots. */
  async clear(buffer: MovableBuffer, slots: readonly number[]): Promise<void> {
    await this.verify(
      buffer,
      slots,
      slots.map(() => CONSUMED),
      true,
    )
  }

  /** By whom it was stamped there; nulls where it was not. */
  by(placement: string): StampedBy {
    return { ...(this.#by.get(placement) ?? NOT_STAMPED) }
  }

  /** The bracket keeps the buffer where it is, and with it the mapping. */
  async #onSlots(
    buffer: MovableBuffer,
    slots: readonly number[],
    sequences: readonly number[],
    job: Job,
  ): Promise<void> {
    for (let first = 0; first < slots.length;) {
      first += await buffer.inPlace(job.mode, async (backing) => {
        const { mapping } = backing
        const part = (bytes: number): Part => {
          const count = Math.max(1, Math.floor(bytes / this.#layout.slotSize))
          const numbers = Float64Array.from(sequences.slice(first, first + count))
          return { slots: slots.slice(first, first + count), numbers }
        }
        if (mapping !== null) return this.#mapped(backing, mapping, part(JOB_BYTES), job)
        return withStaging(backing, buffer.attachments, (staging) =>
          this.#staged(backing, staging, part(STAGING_BYTES), job),
        )
      })
    }
  }

  async #mapped(
    { offset, placement }: Backing,
    { handle }: Mapping,
    { slots, numbers }: Part,
    job: Job,
  ): Promise<number> {
    const offsets = slots.map((slot) => offset + payloadOffset(this.#layout, slot))
    await callAsync(() => job.run(handle, Float64Array.from(offsets), numbers))
    this.#by.set(placement, { written: 'mapping', read: 'mapping' })
    return slots.length
  }

  /** The slots stand in the staging memory one after the other. */
  async #staged(
    { placement }: Backing,
    { mapping, read, write }: Staging,
    { slots, numbers }: Part,
    { mode, written, run }: Job,
  ): Promise<number> {
    const { slotSize, payload } = this.#layout
    const by = this.by(placement)
    const each = <T>(range: (there: number, here: number) => T) =>
      slots.map((slot, i) => range(slot * slotSize, i * slotSize))
    if (mode !== 'w') {
      const length = payload + 2 * LINE
      by.read = await read(
        each((there, here) => ({ sourceOffset: there, targetOffset: here, length })),
      )
    }
    const offsets = slots.map((_, i) => payloadOffset(this.#layout, i))
    await callAsync(() => run(mapping.handle, Float64Array.from(offsets), numbers))
    if (written !== null) {
      // No more than that: the rest a device may have written meanwhile.
      const { from, length } = written
      by.written = await write(
        each((there, here) => ({
          sourceOffset: here + from,
          targetOffset: there + from,
          length,
        })),
      )
    }
    this.#by.set(placement, by)
    return slots.length
  }
}

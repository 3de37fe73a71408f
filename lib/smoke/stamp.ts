/** Stamps and verifies blocks, off the event loop, in brackets of CPU access. */
import { P2pdmaError } from '../errors.js'
import { callAsync } from '../kernel/call.js'
import type { CpuAccessMode } from '../kernel/cpu-access.js'
import type { MovableBuffer } from '../move-notify/exporter/movable-buffer.js'
import { native, type NativeMapping } from '../native.js'
import { type Layout, payloadOffset } from './layout.js'

/** Expects the marker that a verified block leaves behind. */
export const CONSUMED = 0

/** Bytes that one job in the thread pool works on. */
const JOB_BYTES = 4 << 20

export class Stamps {
  readonly #layout: Layout
  readonly #seed: bigint
  readonly #header: Uint8Array
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
    await this.#onSlots(buffer, 'w', slots, sequences, (mapping, offsets, numbers) =>
      native.stampBlocks(mapping, offsets, numbers, this.#layout.payload, this.#seed, this.#header),
    )
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
    const mode = consume ? 'rw' : 'r'
    await this.#onSlots(buffer, mode, slots, sequences, async (mapping, offsets, numbers) => {
      const { payload } = this.#layout
      const [seed, header] = [this.#seed, this.#header]
      const found = native.verifyBlocks(mapping, offsets, numbers, payload, seed, consume, header)
      verdicts.push(...(await found))
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

  /** The bracket keeps the buffer where it is, and with it the mapping. */
  async #onSlots(
    buffer: MovableBuffer,
    mode: CpuAccessMode,
    slots: readonly number[],
    sequences: readonly number[],
    job: (mapping: NativeMapping, offsets: Float64Array, numbers: Float64Array) => Promise<void>,
  ): Promise<void> {
    const step = Math.max(1, Math.floor(JOB_BYTES / this.#layout.slotSize))
    for (let first = 0; first < slots.length; first += step) {
      const part = slots.slice(first, first + step)
      const numbers = Float64Array.from(sequences.slice(first, first + step))
      await buffer.withCpuAccess(mode, () => {
        const { mapping, offset, placement } = buffer.backing
        if (mapping === null) throw unreachable(placement)
        const offsets = Float64Array.from(
          part,
          (slot) => offset + payloadOffset(this.#layout, slot),
        )
        return callAsync(() => job(mapping.handle, offsets, numbers))
      })
    }
  }
}

function unreachable(placement: string): P2pdmaError {
  return new P2pdmaError(`the CPU cannot stamp a buffer in ${placement}`, {
    code: 'ERR_UNSUPPORTED',
    hint: 'name placements that the CPU can map',
  })
}

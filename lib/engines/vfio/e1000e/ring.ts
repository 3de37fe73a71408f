/** What the two rings of the 82574 have in common: memory and four registers. */
import type { Mapping } from '../../../kernel/mapping.js'
import type { Registers } from '../../../kernel/vfio/index.js'
import type { DmaMemory } from '../dma-memory.js'
import type { DescriptorForm, RingMemory } from '../ring-slots.js'
import { DESCRIPTOR_BYTES, Ring } from './registers.js'

export class DescriptorRing implements RingMemory {
  readonly entries: number
  readonly form: DescriptorForm
  readonly registers: Registers
  readonly tail: number
  readonly #memory: DmaMemory
  readonly #base: number
  readonly #onClose: () => boolean

  /** `base`: RDBAL or TDBAL. `onClose`: whether the registers may be written. */
  constructor(
    registers: Registers,
    memory: DmaMemory,
    base: number,
    entries: number,
    form: DescriptorForm,
    onClose: () => boolean,
  ) {
    this.registers = registers
    this.#memory = memory
    this.#base = base
    this.entries = entries
    this.form = form
    this.tail = base + Ring.TAIL
    this.#onClose = onClose
  }

  get memory(): Mapping {
    return this.#memory.mapping
  }

  /** Empty, at slot 0. The head may only be written while the queue is off. */
  setUp(): void {
    const { iova } = this.#memory
    const { registers } = this
    new Uint32Array(this.#memory.view()).fill(0)
    registers.write32(this.#base + Ring.BASE_LOW, iova >>> 0)
    registers.write32(this.#base + Ring.BASE_HIGH, Math.floor(iova / 2 ** 32))
    registers.write32(this.#base + Ring.LENGTH, this.entries * DESCRIPTOR_BYTES)
    registers.write32(this.#base + Ring.HEAD, 0)
    registers.write32(this.#base + Ring.TAIL, 0)
  }

  /** Whether the device knows this ring still. */
  get isKnown(): boolean {
    return this.registers.read32(this.#base + Ring.BASE_LOW) === this.#memory.iova >>> 0
  }

  /** Whether the device has come to the end of what it was given. */
  get isEmpty(): boolean {
    return this.head === this.registers.read32(this.#base + Ring.TAIL)
  }

  get head(): number {
    return this.registers.read32(this.#base + Ring.HEAD)
  }

  tell(slot: number): void {
    this.registers.write32(this.tail, slot)
  }

  /** From then on the device has an empty ring, nowhere. */
  close(): void {
    if (this.#onClose()) this.registers.write32(this.#base + Ring.LENGTH, 0)
    this.#memory.close()
  }
}

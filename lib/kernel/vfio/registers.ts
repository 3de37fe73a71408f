/** A device's registers, over a mapped region. */
import { brand } from '../../brand.js'
import { native, type NativeMapping, type NativeRegisters } from '../../native.js'
import { call, translate } from '../call.js'
import type { Mapping } from '../mapping.js'

/**
 * Each call is one load or store of exactly that width. A store comes after
 * all that was written to memory before it, a load before all that is read
 * after it. Offsets in bytes; ERR_OUT_OF_RANGE unless aligned and inside.
 */
export class Registers {
  static {
    brand(this, (value) => #native in value)
  }

  readonly #native: NativeRegisters
  readonly #mapping: Mapping
  readonly #isOwned: boolean
  #closed = false

  /** `owned`: the mapping is unmapped by `close()`. */
  constructor(mapping: Mapping, { owned = false }: { owned?: boolean } = {}) {
    this.#native = call(() => new native.Registers(mapping.handle))
    this.#mapping = mapping
    this.#isOwned = owned
  }

  get closed(): boolean {
    return this.#closed
  }

  /** For native code that stores into one of them. @internal */
  get handle(): NativeMapping {
    return this.#mapping.handle
  }

  read8(offset: number): number {
    try {
      return this.#native.read8(offset)
    } catch (error) {
      throw translate(error)
    }
  }

  read16(offset: number): number {
    try {
      return this.#native.read16(offset)
    } catch (error) {
      throw translate(error)
    }
  }

  read32(offset: number): number {
    try {
      return this.#native.read32(offset)
    } catch (error) {
      throw translate(error)
    }
  }

  read64(offset: number): bigint {
    try {
      return this.#native.read64(offset)
    } catch (error) {
      throw translate(error)
    }
  }

  write8(offset: number, value: number): void {
    try {
      this.#native.write8(offset, value)
    } catch (error) {
      throw translate(error)
    }
  }

  write16(offset: number, value: number): void {
    try {
      this.#native.write16(offset, value)
    } catch (error) {
      throw translate(error)
    }
  }

  write32(offset: number, value: number): void {
    try {
      this.#native.write32(offset, value)
    } catch (error) {
      throw translate(error)
    }
  }

  write64(offset: number, value: bigint): void {
    try {
      this.#native.write64(offset, value)
    } catch (error) {
      throw translate(error)
    }
  }

  /** From then on, as after the mapping's `unmap()`, every access is ERR_CLOSED. Idempotent. */
  close(): void {
    this.#closed = true
    this.#native.close()
    if (this.#isOwned) this.#mapping.unmap()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

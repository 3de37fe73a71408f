/** Memory of our own that the device reaches: rings. */
import type { Mapping } from '../../kernel/mapping.js'
import { Memfd, roundUp } from '../../kernel/memfd.js'
import { DmaAccess, type IommuSpace } from '../../kernel/vfio/index.js'

export class DmaMemory {
  readonly iova: number
  readonly size: number
  readonly #mapping: Mapping
  readonly #space: IommuSpace
  #closed = false

  constructor(space: IommuSpace, size: number) {
    this.#space = space
    this.size = roundUp(size, space.pageSize)
    using memfd = Memfd.create(this.size, { name: 'p2pdma-rings' })
    this.#mapping = memfd.map()
    this.iova = space.iovas.allocate(this.size)
    try {
      space.mapNow(this.iova, this.#mapping, 0, this.size, DmaAccess.READ | DmaAccess.WRITE)
    } catch (error) {
      space.iovas.free(this.iova)
      this.#mapping.unmap()
      throw error
    }
  }

  /** Unmapped by `close()`. */
  get mapping(): Mapping {
    return this.#mapping
  }

  /** Detached by `close()`. */
  view(): ArrayBuffer {
    return this.#mapping.view()
  }

  /** The device must be off. Idempotent. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    // A space that is closed has taken every mapping away.
    if (!this.#space.closed) this.#space.unmapNow(this.iova, this.size)
    this.#space.iovas.free(this.iova)
    this.#mapping.unmap()
  }
}

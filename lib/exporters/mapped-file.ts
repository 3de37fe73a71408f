/** A file and its one mapping, as backings use them. */
import { DmaBuf } from '../kernel/dma-buf.js'
import type { Mapping } from '../kernel/mapping.js'
import type { Memfd } from '../kernel/memfd.js'

export class MappedFile {
  readonly placement: string
  /** What the descriptor is of. */
  readonly memory: Memfd | DmaBuf
  /** The memfd that a udmabuf's pages are of: an engine may register that. */
  readonly memfd: Memfd | null
  readonly mapping: Mapping

  constructor(placement: string, memory: Memfd | DmaBuf, memfd: Memfd | null = null) {
    this.placement = placement
    this.memory = memory
    this.memfd = memfd
    try {
      this.mapping = memory.map()
    } catch (error) {
      memory.close()
      memfd?.close()
      throw error
    }
  }

  get dmaBuf(): DmaBuf | null {
    return this.memory instanceof DmaBuf ? this.memory : null
  }

  /** The backing at `offset` is done with it. */
  release(_offset: number, _size: number): void {
    this.close()
  }

  close(): void {
    this.mapping.unmap()
    this.memory.close()
    this.memfd?.close()
  }
}

/** A file and its one mapping, as backings use them. */
import { callAsync } from '../kernel/call.js'
import { DmaBuf } from '../kernel/dma-buf.js'
import type { Mapping } from '../kernel/mapping.js'
import type { Memfd } from '../kernel/memfd.js'
import { native } from '../native.js'

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
  release(_offset: number, _size: number): Promise<void> {
    return this.close()
  }

  /** Gives the memory back, off the event loop. Called once. */
  async close(): Promise<void> {
    const files = this.memfd === null ? [this.memory] : [this.memory, this.memfd]
    const done = callAsync(() =>
      native.letGo(
        this.mapping.handle,
        files.filter((file) => !file.closed).map((file) => file.handle),
      ),
    )
    // The descriptors are closed by now; this rejects who waits on them.
    for (const file of files) file.close()
    await done
  }
}

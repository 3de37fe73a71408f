/** A file and its one mapping, as backings use them. */
import type { P2pdmaError } from '../errors.js'
import { callAsync } from '../kernel/call.js'
import { DmaBuf } from '../kernel/dma-buf.js'
import type { Mapping } from '../kernel/mapping.js'
import { Memfd } from '../kernel/memfd.js'
import type { BackingHolder } from '../move-notify/exporter/backing.js'
import { native } from '../native.js'

/** What backings that lie in one file, or in one BAR, share. */
export interface BackingFile {
  readonly placement: string
  /** What the descriptor is of; null where there is none. */
  readonly memory: Memfd | DmaBuf | null
  /** The memfd that a udmabuf's pages are of: an engine may register that. */
  readonly memfd: Memfd | null
  readonly mapping: Mapping
  readonly dmaBuf: DmaBuf | null
  /** What an IOMMU can be given, at the same offsets as `mapping`. */
  readonly dmaMapping: Mapping | null
  /**
   * Whether the CPU needs no bracket now: the kernel does nothing in one, and
   * nobody has to be waited for.
   */
  readonly isBracketless: boolean
  /** Is told of the CPU's work on the memory, where that can be taken away. */
  track?(work: Promise<unknown>): void
  /** Why the memory is no more; null or undefined while it is. */
  readonly lost?: P2pdmaError | null
  /** Whose the backing at `offset` is, where the memory can go away: `Backing.heldBy`. */
  heldBy?(offset: number, holder: BackingHolder | null): void
  /** The backing at `offset` is done with it. */
  release(offset: number, size: number): Promise<void>
}

export class MappedFile implements BackingFile {
  readonly placement: string
  readonly memory: Memfd | DmaBuf
  readonly memfd: Memfd | null
  readonly mapping: Mapping
  #pages: Mapping | null = null

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

  get isBracketless(): boolean {
    return this.dmaBuf === null
  }

  get dmaBuf(): DmaBuf | null {
    return this.memory instanceof DmaBuf ? this.memory : null
  }

  /** A udmabuf's own mapping is of bare frames, which type1 does not pin: its memfd's is not. */
  get dmaMapping(): Mapping | null {
    if (this.memory instanceof Memfd) return this.mapping
    if (this.memfd === null) return null
    this.#pages ??= this.memfd.map()
    return this.#pages
  }

  release(_offset: number, _size: number): Promise<void> {
    return this.close()
  }

  /** Gives the memory back, off the event loop. Called once. */
  async close(): Promise<void> {
    const pages = this.#pages
    const files = this.memfd === null ? [this.memory] : [this.memory, this.memfd]
    const done = callAsync(() =>
      native.letGo(
        this.mapping.handle,
        files.filter((file) => !file.closed).map((file) => file.handle),
      ),
    )
    // The descriptors are closed by now; this rejects who waits on them.
    for (const file of files) file.close()
    // One that cannot be given back does not keep the other.
    const others = pages === null ? [] : [callAsync(() => native.letGo(pages.handle, []))]
    for (const end of await Promise.allSettled([done, ...others])) {
      if (end.status === 'rejected') throw end.reason
    }
  }
}

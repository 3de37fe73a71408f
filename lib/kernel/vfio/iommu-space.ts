/** What a device sees of memory: an I/O address space whose page tables are ours. */
import type { Mapping } from '../mapping.js'
import type { IovaAllocator } from './iova-allocator.js'

/** What the device may do through a DMA mapping (bit mask), as in type1 and iommufd. */
export const DmaAccess = { READ: 1, WRITE: 2 } as const

export interface IommuSpace {
  /** `type1`: a container of /dev/vfio/vfio. `iommufd`: an IOAS of /dev/iommu. */
  readonly kind: 'type1' | 'iommufd'
  /** Whether its last user has closed it. */
  readonly closed: boolean
  /** The smallest page of the IOMMU, bytes: what addresses and sizes are multiples of. */
  readonly pageSize: number
  /** Hands out addresses within what the IOMMU can translate. */
  readonly iovas: IovaAllocator
  /**
   * Maps `size` bytes of `mapping` from `offset` at `iova`; EEXIST where
   * something is mapped there, EFAULT for memory that it cannot pin. The pages
   * are pinned: it holds when `mapping` is unmapped.
   */
  map(iova: number, mapping: Mapping, offset: number, size: number, access: number): Promise<void>
  /** As `map`, on the event loop: for what is short. */
  mapNow(iova: number, mapping: Mapping, offset: number, size: number, access: number): void
  /**
   * Takes a mapping away, whole; ENOENT where less was mapped. When it is done
   * the IOMMU's caches have been flushed: what the device still tries is a fault.
   */
  unmap(iova: number, size: number): Promise<void>
  /** As `unmap`, on the event loop. */
  unmapNow(iova: number, size: number): void
  /** One user less; the last one takes every mapping away. */
  close(): void
}

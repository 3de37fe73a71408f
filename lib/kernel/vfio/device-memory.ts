/**
 * Which device memory other devices reach. An IOMMU space that has mapped a
 * BAR goes on reaching it after its device is closed and somebody else's
 * (vfio_iommu_type1.c pins no page of it and is not told), so the device that
 * closes takes its memory out of every space of this process first.
 */
import type { NativeFd } from '../../native.js'
import type { Mapping } from '../mapping.js'

/** One DMA mapping of a region. */
export interface DeviceMemoryUse {
  /** Takes the mapping away; it never rejects. */
  revoke(): Promise<void>
}

export interface DeviceMemory {
  readonly uses: Set<DeviceMemoryUse>
  /** A dma-buf of the whole region; stays the device's. */
  dmaBuf(): NativeFd
}

const regions = new WeakMap<Mapping, DeviceMemory>()

/** Notes that a mapping is of a region. */
export function noteDeviceMemory(mapping: Mapping, memory: DeviceMemory): void {
  regions.set(mapping, memory)
}

/** The region that a mapping is of; undefined for one of system memory. */
export function deviceMemoryOf(mapping: Mapping): DeviceMemory | undefined {
  return regions.get(mapping)
}

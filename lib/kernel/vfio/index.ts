export { type InterruptKind, type Interrupts } from './interrupts.js'
export { CommandBit, Config, type Capability, type ConfigSpace } from './config-space.js'
export { DmaAccess, type IommuSpace } from './iommu-space.js'
export { IovaAllocator, type IovaRange } from './iova-allocator.js'
export type { Registers } from './registers.js'
export type { SpaceKind } from './open-device.js'
export type { RegionInfo } from './region.js'
export {
  type MemoryUser,
  VfioDevice,
  type VfioDeviceEvents,
  type VfioOpenOptions,
} from './device.js'

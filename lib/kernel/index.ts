/** Typed classes over the kernel's interfaces. */
export * from './constants.js'
export type { CpuAccessMode } from './cpu-access.js'
export { DmaBuf, type CpuAccessOptions } from './dma-buf.js'
export { DmaHeap } from './dma-heap.js'
export { type DrmBuffer, DrmDevice, type DrmSelector } from './drm.js'
export type { DmaBufInfo } from './fdinfo.js'
export { type DmaFault, parseDmarFault } from './dma-fault.js'
export { complaintIn, type KernelComplaint, KernelComplaints } from './kernel-complaints.js'
export { KernelLog, type KernelRecord } from './kmsg.js'
export { Mapping, MAX_VIEW, type MapOptions } from './mapping.js'
export { Memfd, type MemfdOptions } from './memfd.js'
export * from './pci/index.js'
export { OwnedFd } from './owned-fd.js'
export type { FdStat } from '../native.js'
export type { WaitOptions } from './poll.js'
export { SyncFile, type FenceInfo, type SyncFileInfo } from './sync-file.js'
export { Udmabuf, type UdmabufItem, type UdmabufLimits } from './udmabuf.js'
export {
  CommandBit as PciCommand,
  Config as PciConfig,
  DmaAccess,
  VfioDevice,
  type Capability,
  type ConfigSpace,
  type InterruptKind,
  type Interrupts,
  type IommuSpace,
  type IovaAllocator,
  type IovaRange,
  type RegionInfo,
  type Registers,
  type SpaceKind,
  type VfioDeviceEvents,
  type VfioOpenOptions,
} from './vfio/index.js'
export * from './verbs/index.js'

/** RDMA devices: typed classes over libibverbs and librdmacm. */
export { type AddressOptions, AddressHandle } from './address-handle.js'
export type { AsyncEvent, AsyncSubscription } from './async-events.js'
export { ReceiveBatch, SendBatch, WorkCompletions } from './columns.js'
export type { CmIdentifier } from './cm-id.js'
export { CompletionChannel } from './completion-channel.js'
export { CompletionQueue, type CompletionQueueOptions } from './completion-queue.js'
export { Connection, type CmConnectOptions } from './connection.js'
export {
  ConnectionManager,
  Listener,
  type CmListenOptions,
  type ResolveOptions,
} from './connection-manager.js'
export * from './constants.js'
export {
  type OdpCapabilities,
  type OdpOperations,
  VerbsDevice,
  verbsDevices,
  type VerbsAttributes,
  type VerbsDeviceEntry,
  type VerbsLimits,
} from './device.js'
export {
  Advice,
  type DmabufRegionOptions,
  MemoryRegion,
  type RegionOptions,
} from './memory-region.js'
export { MemoryWindow } from './memory-window.js'
export type { GidChoice, GidEntry, GidType, PortInfo, PortState } from './port.js'
export { ProtectionDomain } from './protection-domain.js'
export type { QpAttributes } from './qp-attributes.js'
export {
  type BindOptions,
  type PeerOptions,
  QueuePair,
  type QueuePairOptions,
  type QueuePairType,
  randomPsn,
  type SenderOptions,
} from './queue-pair.js'
export { SharedReceiveQueue } from './shared-receive-queue.js'
export type { VerbsObject } from './verbs-object.js'

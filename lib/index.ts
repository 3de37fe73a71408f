/** The public surface. */
export { P2pdmaError, type ErrorDetails } from './errors.js'
export { SoftwareEngine, VerbsEngine, openEngine } from './engines/index.js'
export { INTERFACE_VERSION, type Registered } from './registry.js'
export { type EngineFamily, type OpenedEngine, registerEngine } from './engines/registry.js'
export { registerDriver } from './engines/vfio/drivers.js'
export type {
  DeviceStorage,
  Driver,
  DriverDevice,
  DriverHost,
  NicDevice,
  NicDriver,
  NicHost,
  Health,
  QueueLimits,
  QueueOperation,
  RingQueue,
} from './engines/vfio/driver.js'
export type { DmaMemory } from './engines/vfio/dma-memory.js'
export type {
  CompletionForm,
  CompletionRing,
  DescriptorForm,
  RingMemory,
} from './engines/vfio/ring-slots.js'
export type { NativeCompletionForm, NativeDescriptorForm } from './native.js'
export type { QueueChannel, QueueState } from './engines/queue/channel.js'
export type { SoftwareChannel } from './engines/software/channel.js'
export type { SoftwareFault } from './engines/software/inject.js'
export type { SoftwareStats } from './native.js'
export type { VfioEngine } from './engines/vfio/engine.js'
export type { VfioEvents, VfioStats } from './engines/vfio/facts.js'
export type { VfioFault, VfioLink } from './engines/vfio/driver.js'
export type {
  ConnectOptions,
  ListenOptions,
  VerbsEngineOptions,
  VerbsFault,
  VerbsListener,
  VerbsStats,
} from './engines/verbs/engine.js'
export type { LocalPort, PortChoice } from './engines/verbs/local-port.js'
export type { Grant, GrantOptions } from './engines/verbs/grants.js'
export type { Offer, OfferedOptions } from './engines/verbs/offers.js'
export type { Peer, PeerEvents, QueueOptions } from './engines/verbs/peer.js'
export type { MoveOnCommand } from './engines/verbs/move-trial.js'
export type { Axes, Mover, Registration } from './engines/verbs/registrar.js'
export type { AnyAttachment, RemoteAttachment } from './move-notify/importer/remote-attachment.js'
export * from './exporters/index.js'
export * from './kernel/index.js'
export type { AttachOps } from './move-notify/exporter/attach-ops.js'
export { MovableBuffer } from './move-notify/exporter/movable-buffer.js'
export type { BufferOptions, Hint, Pin } from './move-notify/exporter/movable-buffer.js'
export type { MoveOptions, MoveResult } from './move-notify/exporter/move.js'
export type { CpuAccess } from './move-notify/exporter/cpu-access.js'
export { Importer } from './move-notify/importer/importer.js'
export type { AttachOptions, ImporterOptions } from './move-notify/importer/importer.js'
export type { Attachment, AttachmentState } from './move-notify/importer/attachment.js'
export type { Channel, ChannelOptions, ChannelStats } from './move-notify/importer/channel.js'
export { transitions } from './move-notify/importer/channel-states.js'
export type {
  ChannelEvent,
  ChannelState,
  ChannelTableState,
  TransitionTable,
} from './move-notify/importer/channel-states.js'
export type { Abortable } from './move-notify/reservation/deadline.js'
export type {
  Completion,
  CompletionsOptions,
  CompletionsSyncOptions,
  OperationOptions,
} from './move-notify/importer/operation.js'
export { Batch, Completions, Op, Status } from './move-notify/importer/batch.js'
export { Access } from './move-notify/importer/engine.js'
export type {
  Engine,
  EngineCapabilities,
  EngineChannel,
  EngineChannelOptions,
  MappingCapability,
  OperationCapability,
} from './move-notify/importer/engine.js'
export { PostError } from './move-notify/importer/post-error.js'
export type {
  Backing,
  BackingHolder,
  Copier,
  Copy,
  CopyRange,
  CpuWindow,
  Exporter,
} from './move-notify/exporter/backing.js'
export { Fence, type FenceWaitOptions } from './move-notify/reservation/fence.js'
export { Reservation, Usage, reservationClass } from './move-notify/reservation/reservation.js'
export { AcquireContext, WwClass, WwMutex, lockAll } from './move-notify/reservation/ww-mutex.js'
export type { LockOptions, WwAlgorithm } from './move-notify/reservation/ww-mutex.js'
export { evict } from './move-notify/exporter/evict.js'
export { ResidentSet } from './move-notify/exporter/residency/resident-set.js'
export type {
  ResidentSetOptions,
  ResidentSetStats,
} from './move-notify/exporter/residency/resident-set.js'
export type { ThrashOptions } from './move-notify/exporter/residency/thrash-detector.js'
export { quarantined } from './move-notify/exporter/quarantine.js'
export { trace } from './move-notify/trace.js'
export type {
  AttachmentRestore,
  BufferMove,
  ChannelTransition,
  MappingChange,
  PeerRefusal,
  ThrashChange,
} from './move-notify/trace.js'

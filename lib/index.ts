/** The public surface. */
export { P2pdmaError, type ErrorDetails } from './errors.js'
export { SoftwareEngine, VerbsEngine, openEngine } from './engines/index.js'
export type { SoftwareChannel } from './engines/software/channel.js'
export type { SoftwareFault } from './engines/software/inject.js'
export type { SoftwareStats } from './native.js'
export type { VfioEngine, VfioEvents, VfioStats } from './engines/vfio/engine.js'
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
export type { AnyAttachment, RemoteAttachment } from './move-notify/remote-attachment.js'
export * from './exporters/index.js'
export * from './kernel/index.js'
export { MovableBuffer } from './move-notify/movable-buffer.js'
export type { BufferOptions, Hint, Pin } from './move-notify/movable-buffer.js'
export type { MoveOptions, MoveResult } from './move-notify/move.js'
export type { CpuAccess } from './move-notify/cpu-access.js'
export { Importer } from './move-notify/importer.js'
export type { AttachOptions, ImporterOptions } from './move-notify/importer.js'
export type { Attachment, AttachmentState } from './move-notify/attachment.js'
export type { Channel, ChannelOptions, ChannelStats } from './move-notify/channel.js'
export { transitions } from './move-notify/channel-states.js'
export type { ChannelEvent, ChannelState, TransitionTable } from './move-notify/channel-states.js'
export type { Abortable } from './move-notify/deadline.js'
export type {
  Completion,
  CompletionsOptions,
  CompletionsSyncOptions,
  OperationOptions,
} from './move-notify/operation.js'
export { Batch, Completions, Op, Status } from './move-notify/batch.js'
export { Access } from './move-notify/engine.js'
export type { Engine, EngineChannel, EngineChannelOptions } from './move-notify/engine.js'
export type { Backing, BackingHolder, CpuWindow, Exporter } from './move-notify/backing.js'
export { Fence, type FenceWaitOptions } from './move-notify/fence.js'
export { Reservation, Usage, reservationClass } from './move-notify/reservation.js'
export { AcquireContext, WwClass, WwMutex, lockAll } from './move-notify/ww-mutex.js'
export type { LockOptions, WwAlgorithm } from './move-notify/ww-mutex.js'
export { evict } from './move-notify/evict.js'
export { ResidentSet } from './move-notify/residency/resident-set.js'
export type { ResidentSetOptions, ResidentSetStats } from './move-notify/residency/resident-set.js'
export type { ThrashOptions } from './move-notify/residency/thrash-detector.js'
export { quarantined } from './move-notify/quarantine.js'
export { trace } from './move-notify/trace.js'
export type {
  AttachmentRestore,
  BufferMove,
  ChannelTransition,
  MappingChange,
  PeerRefusal,
  ThrashChange,
} from './move-notify/trace.js'

/**
 * The only importer of the second addon, and the type of everything in it. It
 * is loaded on first use, and opens libibverbs then: it is not built where the
 * headers of that are missing, and may be on a machine without the library.
 */
import bindings from 'bindings'
import { fileURLToPath } from 'node:url'
import { buildCommand, rebuildCommand } from './build-command.js'
import { P2pdmaError } from './errors.js'
import { noRoomToLoad } from './failures/index.js'
import type {
  NativeColumns as NativeBatchColumns,
  NativeFd,
  NativeMapping,
  NativeWatch,
} from './native.js'

/** An object of libibverbs or librdmacm: the functions take it. Closed by the garbage collector too. */
export interface NativeVerbs {
  readonly closed: boolean
}

/** One kind of it; the others' are refused by type tag. */
interface Of<Kind extends string> extends NativeVerbs {
  readonly kind?: Kind
}

export type NativeDevice = Of<'device'>
export type NativePd = Of<'pd'>
export type NativeChannel = Of<'channel'>
export type NativeCmChannel = Of<'cm-channel'>

export interface NativeMr extends Of<'mr'> {
  readonly lkey: number
  readonly rkey: number
  readonly iova: number
}

export interface NativeMw extends Of<'mw'> {
  readonly rkey: number
}

export interface NativeAh extends Of<'ah'> {
  readonly id: number
}

export interface NativeCq extends Of<'cq'> {
  readonly capacity: number
}

export interface NativeSrq extends Of<'srq'> {
  readonly maxReceiveWr: number
}

export interface NativeQp extends Of<'qp'> {
  readonly qpNumber: number
  readonly maxSendWr: number
  readonly maxReceiveWr: number
  readonly maxInlineData: number
}

export interface NativeCmId extends Of<'cm-id'> {
  /** What its events are called. */
  readonly number: number
}

/** The native objects by their kinds. */
export interface NativeKinds {
  [kind: string]: NativeVerbs
  device: NativeDevice
  pd: NativePd
  channel: NativeChannel
  'cm-channel': NativeCmChannel
  mr: NativeMr
  mw: NativeMw
  ah: NativeAh
  cq: NativeCq
  srq: NativeSrq
  qp: NativeQp
  'cm-id': NativeCmId
}

export interface NativeDeviceEntry {
  name: string
  guid: bigint
  nodeType: number
  transport: number
}

/** What a device is and how much it takes: `ibv_device_attr`. */
export interface VerbsLimits {
  firmware: string
  nodeGuid: bigint
  systemImageGuid: bigint
  maxMrSize: number
  pageSizes: bigint
  vendorId: number
  vendorPartId: number
  hardwareVersion: number
  maxQp: number
  maxQpWr: number
  capabilities: bigint
  maxSge: number
  maxCq: number
  maxCqe: number
  maxMr: number
  maxPd: number
  maxQpRdAtomic: number
  maxQpInitRdAtomic: number
  maxMw: number
  maxAh: number
  maxSrq: number
  maxSrqWr: number
  maxPkeys: number
  ports: number
}

export interface NativeDeviceAttributes extends VerbsLimits {
  atomicity: number
  odp: { general: number; rc: number; uc: number; ud: number; xrc: number }
}

export interface NativePort {
  state: number
  physicalState: number
  /** An `ibv_mtu`. */
  maxMtu: number
  activeMtu: number
  linkLayer: number
  lid: number
  gidTableLength: number
  pkeyTableLength: number
  maxMessageSize: number
  activeWidth: number
  activeSpeed: number
}

export interface NativeGid {
  gid: Uint8Array
  index: number
  port: number
  type: number
  interface: number
}

export interface NativeAhAttributes {
  dlid?: number
  sl?: number
  srcPathBits?: number
  staticRate?: number
  portNum?: number
  /** 16 bytes; with it the address is global. */
  dgid?: Uint8Array
  flowLabel?: number
  sgidIndex?: number
  hopLimit?: number
  trafficClass?: number
}

/** A field that is there sets its bit of the mask. */
export interface NativeQpAttributes {
  qpState?: number
  curQpState?: number
  enSqdAsyncNotify?: number
  qpAccessFlags?: number
  pkeyIndex?: number
  portNum?: number
  qkey?: number
  pathMtu?: number
  timeout?: number
  retryCnt?: number
  rnrRetry?: number
  rqPsn?: number
  maxRdAtomic?: number
  minRnrTimer?: number
  sqPsn?: number
  maxDestRdAtomic?: number
  destQpNum?: number
  ahAttr?: NativeAhAttributes
}

declare const columns: unique symbol
export type NativeColumnsOf<Kind extends string> = { readonly [columns]: Kind }

type Make<Args extends unknown[], Made> = (...args: Args) => Promise<Made>

interface LibraryNative {
  /** Opens libibverbs, and with it librdmacm, where that has not been done. ERR_VERBS_MISSING. */
  verbsNeedIbv(): void
  verbsNeedRdma(): void
}

interface DeviceNative {
  verbsDevices(): NativeDeviceEntry[]
  verbsOpen(name: string): Promise<NativeDevice>
  verbsQueryDevice(device: NativeDevice): NativeDeviceAttributes
  verbsQueryPort(device: NativeDevice, port: number): NativePort
  verbsQueryGids(device: NativeDevice): NativeGid[]
  verbsAllocPd(device: NativeDevice): Promise<NativePd>
  /** EBUSY where a child of it is open, or a call of it under way. */
  verbsClose(handle: NativeVerbs): Promise<void>
  verbsCloseNow(handle: NativeVerbs): void
  /** Calls back with event + 256 * element, or once with a negative errno. */
  verbsWatchAsync(device: NativeDevice, callback: (value: number) => void): NativeWatch
}

type RegisterArgs = [
  pd: NativePd,
  mapping: NativeMapping,
  offset: number,
  length: number,
  /** -1: the CPU's own address. */
  iova: number,
  access: number,
]
type RegisterDmabufArgs = [
  pd: NativePd,
  fd: NativeFd,
  offset: number,
  length: number,
  iova: number,
  access: number,
  /** By the kernel's ioctl instead of the provider's library. */
  kernel: boolean,
]

interface MemoryNative {
  verbsRegister: Make<RegisterArgs, NativeMr>
  verbsRegisterNow(...args: RegisterArgs): NativeMr
  verbsRegisterDmabuf: Make<RegisterDmabufArgs, NativeMr>
  verbsRegisterDmabufNow(...args: RegisterDmabufArgs): NativeMr
  verbsAdvise(
    mr: NativeMr,
    address: number,
    length: number,
    advice: number,
    flags: number,
    kernel: boolean,
  ): Promise<void>
  verbsAllocMw(pd: NativePd, type: number): Promise<NativeMw>
  /** Returns the window's rkey once that has completed. */
  verbsBindMw(
    qp: NativeQp,
    mw: NativeMw,
    mr: NativeMr,
    address: number,
    length: number,
    access: number,
    rkey: number,
    wrId: number,
    flags: number,
  ): number
}

interface QueueNative {
  verbsCreateChannel(device: NativeDevice): Promise<NativeChannel>
  /** Calls back with the number of a queue, or once with a negative errno. */
  verbsWatchChannel(channel: NativeChannel, callback: (number: number) => void): NativeWatch
  verbsCreateCq(
    device: NativeDevice,
    capacity: number,
    channel: NativeChannel | null,
    number: number,
  ): Promise<NativeCq>
  verbsArmCq(cq: NativeCq, solicitedOnly: boolean): void
  verbsCreateSrq(pd: NativePd, maxReceiveWr: number, number: number): Promise<NativeSrq>
  verbsSetSrqLimit(srq: NativeSrq, limit: number): void
  verbsCreateQp(
    pd: NativePd,
    sendCq: NativeCq,
    receiveCq: NativeCq,
    srq: NativeSrq | null,
    type: number,
    maxSendWr: number,
    maxReceiveWr: number,
    maxInlineData: number,
    signalAll: boolean,
  ): Promise<NativeQp>
  verbsModifyQp(qp: NativeQp, attributes: NativeQpAttributes): Promise<void>
  verbsModifyQpNow(qp: NativeQp, attributes: NativeQpAttributes): void
  verbsQueryQp(qp: NativeQp): Required<NativeQpAttributes> & { sqDraining: boolean }
  verbsCreateAh(pd: NativePd, attributes: NativeAhAttributes): Promise<NativeAh>
}

type PostSend = NativeColumnsOf<'send'>
type PostReceive = NativeColumnsOf<'receive'>

/** Each: how many rows were accepted, or found. */
interface PostNative {
  verbsSendColumns(
    capacity: number,
    wrId: Float64Array,
    address: Float64Array,
    length: Float64Array,
    remoteAddress: Float64Array,
    compareAdd: Float64Array,
    swap: Float64Array,
    lkey: Uint32Array,
    rkey: Uint32Array,
    immediate: Uint32Array,
    addressHandle: Uint32Array,
    remoteQpn: Uint32Array,
    remoteQkey: Uint32Array,
    opcode: Uint8Array,
    flags: Uint8Array,
  ): PostSend
  verbsReceiveColumns(
    capacity: number,
    wrId: Float64Array,
    address: Float64Array,
    length: Float64Array,
    lkey: Uint32Array,
  ): PostReceive
  verbsCompletionColumns(
    capacity: number,
    wrId: Float64Array,
    status: Uint32Array,
    opcode: Uint32Array,
    byteLength: Uint32Array,
    immediate: Uint32Array,
    qpNumber: Uint32Array,
    sourceQp: Uint32Array,
    vendorError: Uint32Array,
    flags: Uint32Array,
  ): NativeColumnsOf<'completion'>
  verbsPostSend(qp: NativeQp, batch: PostSend, first: number, count: number): number
  verbsPostReceive(qp: NativeQp, batch: PostReceive, first: number, count: number): number
  verbsPostSrqReceive(srq: NativeSrq, batch: PostReceive, first: number, count: number): number
  verbsPollCq(cq: NativeCq, out: NativeColumnsOf<'completion'>, max: number): number
}

/** Columns of rows. */
export interface NativeRowColumns {
  readonly sourceOffset: Float64Array
  readonly targetOffset: Float64Array
  readonly length: Float64Array
  readonly operand: Float64Array
  readonly cookie: Float64Array
  readonly result: Float64Array
  readonly message: Float64Array
  readonly source: Uint32Array
  readonly target: Uint32Array
  readonly op: Uint8Array
  readonly stage: Uint8Array
  readonly status: Uint8Array
}

/** The work queues of a queue pair: native/verbs/rows/js.cc. */
export interface NativeWork extends NativeBatchColumns {
  /** In and out through the doorbell. */
  post(): void
  hand(): void
  poll(): void
  listen(): void
  wait(): void
  reap(): void
  /** Of rows that are there, of `WorkKind` SEND or RECEIVE; of others nothing happens. */
  finish(kind: number, position: number, status: number, result: number): void
  takeBack(kind: number, position: number): void
  /** Its errno is in the doorbell. */
  sendVoids(count: number): void
  useTable(
    capacity: number,
    ids: Uint32Array,
    states: Uint8Array,
    access: Uint8Array,
    iovas: Float64Array,
    sizes: Float64Array,
    keys: Uint32Array,
    queues: Uint32Array,
    lastOfSends: Uint32Array,
    lastOfReceives: Uint32Array,
  ): void
  close(): void
}

interface WorkNative {
  verbsOpenWork(
    qp: NativeQp,
    cq: NativeCq,
    depth: number,
    maxMessage: number,
    scratch: NativeMapping,
    scratchIova: number,
    scratchLkey: number,
    doorbell: Float64Array,
    counts: Float64Array,
    sends: NativeRowColumns,
    receives: NativeRowColumns,
    untold: Uint32Array,
  ): NativeWork
}

export interface NativeCmEvent {
  /** An `rdma_cm_event_type`. */
  event: number
  status: number
  /** The id that it is for; of a request: the listener. */
  number: number
  request: NativeCmId | null
  privateData: Uint8Array
  qpNumber: number
  responderResources: number
  initiatorDepth: number
}

export interface NativeCmInfo {
  /** null before one is resolved to. */
  device: string | null
  port: number
  localAddress: string
  localPort: number
  peerAddress: string
  peerPort: number
}

type ConnectArgs = [
  id: NativeCmId,
  qpNumber: number,
  hasSrq: boolean,
  privateData: Uint8Array,
  responderResources: number,
  initiatorDepth: number,
  retryCount: number,
  rnrRetryCount: number,
]

interface CmNative {
  verbsCmCreate(): Promise<NativeCmChannel>
  /** Calls back with 0 while there are events, or once with a negative errno. */
  verbsCmWatch(channel: NativeCmChannel, callback: (status: number) => void): NativeWatch
  verbsCmGetEvent(channel: NativeCmChannel): NativeCmEvent | null
  verbsCmCreateId(channel: NativeCmChannel): Promise<NativeCmId>
  verbsCmBind(id: NativeCmId, address: string, port: number): Promise<void>
  verbsCmListen(id: NativeCmId, backlog: number): Promise<void>
  verbsCmResolve(
    id: NativeCmId,
    source: string | null,
    address: string,
    port: number,
    timeoutMs: number,
  ): Promise<void>
  verbsCmResolveRoute(id: NativeCmId, timeoutMs: number): Promise<void>
  verbsCmConnect(...args: ConnectArgs): Promise<void>
  verbsCmAccept(...args: ConnectArgs): Promise<void>
  verbsCmEstablish(id: NativeCmId): Promise<void>
  verbsCmReject(id: NativeCmId, privateData: Uint8Array): Promise<void>
  verbsCmDisconnect(id: NativeCmId): Promise<void>
  verbsCmInitQpAttr(id: NativeCmId, qpState: number): NativeQpAttributes
  verbsCmInfo(id: NativeCmId): NativeCmInfo
}

export type VerbsNative = LibraryNative &
  DeviceNative &
  MemoryNative &
  QueueNative &
  PostNative &
  WorkNative &
  CmNative

let loaded: VerbsNative | undefined
let loadedCm: VerbsNative | undefined

/**
 * The addon, with libibverbs open, or ERR_VERBS_MISSING. What is installed, or built,
 * meanwhile is found the next time.
 */
export function nativeVerbs(): VerbsNative {
  loaded ??= withLibrary(load(), 'verbsNeedIbv')
  return loaded
}

/** The same with librdmacm open as well: for whoever makes the first object of that. */
export function nativeRdmaCm(): VerbsNative {
  loadedCm ??= withLibrary(load(), 'verbsNeedRdma')
  return loadedCm
}

const RUNS_WITH =
  '`apt-get install libibverbs1 librdmacm1 ibverbs-providers` (Debian, Ubuntu) or ' +
  '`dnf install libibverbs librdmacm` (Fedora, RHEL)'
const BUILT_WITH = '`apt-get install libibverbs-dev librdmacm-dev` or `dnf install rdma-core-devel`'

function withLibrary(addon: VerbsNative, need: keyof LibraryNative): VerbsNative {
  try {
    addon[need]()
    return addon
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ERR_VERBS_MISSING') throw cause
    const library = need === 'verbsNeedRdma' ? 'librdmacm.so.1' : 'libibverbs.so.1'
    const full = noRoomToLoad(cause, library)
    if (full !== null) throw full
    throw new P2pdmaError((cause as Error).message, {
      code: 'ERR_VERBS_MISSING',
      hint: `install the libraries for RDMA devices: ${RUNS_WITH}`,
      cause,
    })
  }
}

function load(): VerbsNative {
  try {
    return bindings({
      bindings: 'p2pdma_verbs',
      module_root: fileURLToPath(new URL('../..', import.meta.url)),
    }) as VerbsNative
  } catch (cause) {
    const full = noRoomToLoad(cause, 'p2pdma_verbs.node')
    if (full !== null) throw full
    const built = (cause as NodeJS.ErrnoException).code === 'ERR_DLOPEN_FAILED'
    throw new P2pdmaError(
      built
        ? 'The addon of p2pdma for RDMA devices could not be loaded'
        : 'p2pdma was built without support for RDMA devices',
      {
        code: 'ERR_VERBS_MISSING',
        hint: built
          ? `build it anew: \`${rebuildCommand}\``
          : `install what it is built with, ${BUILT_WITH}, and then build it: \`${buildCommand}\``,
        cause,
      },
    )
  }
}

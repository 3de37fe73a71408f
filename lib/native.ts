/**
 * The only importer of the addon, and the type of everything in it. Nothing
 * here decides: the typed classes of lib/kernel and lib/engines do.
 */
import bindings from 'bindings'
import { fileURLToPath } from 'node:url'
import { buildCommand, rebuildCommand } from './build-command.js'
import { P2pdmaError } from './errors.js'
import { noRoomToLoad } from './failures/index.js'

/** Owns one file descriptor, close-on-exec. Closed by the garbage collector too. */
export interface NativeFd {
  /** -1 after `close()`. */
  readonly number: number
  close(): void
}

/** Owns one CPU mapping; its range is kept until nobody can touch it any more. */
export interface NativeMapping {
  /** Bytes; 0 after `unmap()`. */
  readonly length: number
  view(offset: number, length: number): ArrayBuffer
  unmap(): boolean
}

export interface FdStat {
  type: 'dma-buf' | 'memfd' | 'file' | 'device' | 'other'
  size: number
  inode: number
  device: number
  /** The system's page size, or a hugetlb memfd's own. */
  pageSize: number
  /** null where the file cannot be sealed. */
  seals: number | null
}

interface FdNative {
  openFd(path: string, flags: number): NativeFd
  adoptFd(fd: number): NativeFd
  dupFd(fd: NativeFd | number): NativeFd
  /** A duplicate as a plain number, which nobody closes by itself. */
  giveFd(fd: NativeFd): number
  /** Closes it in the thread pool: for what the kernel takes its time for. */
  closeFd(fd: NativeFd): Promise<void>
  /** Moves the file's position to its end. */
  seekEnd(fd: NativeFd): number
  statFd(fd: NativeFd): FdStat
}

interface MappingNative {
  readonly pageSize: number
  mapFd(
    fd: NativeFd,
    offset: number,
    length: number,
    write: boolean,
    populate: boolean,
    lead: number,
    device: boolean,
  ): NativeMapping
  /** Closes them all now, and gives the memory back in the thread pool. */
  letGo(mapping: NativeMapping, fds: NativeFd[]): Promise<void>
  copySlice(
    target: NativeMapping,
    targetOffset: number,
    source: NativeMapping,
    sourceOffset: number,
    length: number,
  ): Promise<void>
  /** On the event loop; at most 64 KiB. `way`: an index of `wideCopies`. */
  copySliceNow(
    target: NativeMapping,
    targetOffset: number,
    source: NativeMapping,
    sourceOffset: number,
    length: number,
    way: number,
  ): void
  /** How this CPU can copy a device's memory, the best first. */
  readonly wideCopies: readonly string[]
  populateSlice(mapping: NativeMapping, offset: number, length: number): Promise<void>
  /** On the event loop; at most 64 KiB. */
  populateSliceNow(mapping: NativeMapping, offset: number, length: number): void
  /** `at`: in `source` and in `before`. */
  storeChangesSlice(
    target: NativeMapping,
    targetOffset: number,
    source: NativeMapping,
    before: NativeMapping,
    at: number,
    length: number,
  ): Promise<void>
  fillSlice(mapping: NativeMapping, offset: number, length: number, pattern: bigint): Promise<void>
  countRunsSlice(
    mapping: NativeMapping,
    offset: number,
    length: number,
    pattern: bigint,
    inRun: boolean,
  ): Promise<{ runs: number; inRun: boolean }>
}

interface MemfdNative {
  createMemfd(name: string, flags: number): NativeFd
  truncateFd(fd: NativeFd, size: number): void
  addSeals(fd: NativeFd, seals: number): void
  getSeals(fd: NativeFd): number
}

/** What the software engine's device has done since it was opened. */
export interface SoftwareStats {
  /** Operations completed. */
  operations: number
  bytes: number
  /** Pieces of at most 64 KiB. */
  chunks: number
  /** Accesses to mappings that were dead, all of them refused. */
  faults: number
  /** Deliberate faults that have taken effect. */
  injected: number
  /** Times the thread went to sleep for want of work. */
  sleeps: number
  /** Native memory of the table of attachments. */
  tableBytes: number
}

/** What takes rows and gives completions in columns: native/support/column_args.h. */
export interface NativeColumns {
  useBatch(
    capacity: number,
    sourceOffset: Float64Array,
    targetOffset: Float64Array,
    length: Float64Array,
    operand: Float64Array,
    cookie: Float64Array,
    source: Uint32Array,
    target: Uint32Array,
    op: Uint8Array,
  ): void
  useCompletions(
    capacity: number,
    cookie: Float64Array,
    result: Float64Array,
    status: Uint32Array,
    epoch: Uint32Array,
  ): void
}

/** A descriptor, in 32-bit words as the CPU has them. Indexes are of words. */
export interface NativeDescriptorForm {
  /** What each has when it is handed over; an even number. */
  readonly words: Uint32Array
  /** Even; and the next one: the IOVA, its low half first. */
  readonly addressWord: number
  /** The length is or'ed into it; without it, descriptors have none. */
  readonly lengthWord?: number
  /** What lengths, and places in the storage, are counted in, bytes; a power of two. Default 1. */
  readonly blockBytes?: number
  /** 1 where the device counts from 0, so that one block is 0. Default 0. */
  readonly lengthLess?: number
  /** Even; and the next one: where in the device's storage an operation is. */
  readonly storageWord?: number
  /** Even; and the next one: the IOVA of the second page that is reached; 0: there is none. */
  readonly secondPageWord?: number
  /** Bytes of such a page; a power of two. */
  readonly pageBytes?: number
  /** An operation's `code` is or'ed into it. Default 0. */
  readonly operationWord?: number
  /** The slot is or'ed into it, so many bits to the left, 16 at most: what a completion names. */
  readonly idWord?: number
  readonly idShift?: number
  /**
   * Or'ed into the last descriptor of each batch, which then reports for all
   * of it; without it, each reports for itself.
   */
  readonly lastWord?: number
  readonly lastBits?: number
  /**
   * Not 0 under `doneMask`: the device has finished it. This and what follows is left out where
   * completions have a ring of their own.
   */
  readonly doneWord?: number
  readonly doneMask?: number
  /** Of the same word: `goodValue`, or it went wrong. */
  readonly goodMask?: number
  readonly goodValue?: number
  /** The bytes transferred. */
  readonly resultWord?: number
  readonly resultMask?: number
}

/** What a ring does; of one address in memory of ours. */
export interface NativeRingOperation {
  /** SEND or RECEIVE; or COPY, with the storage at one side. */
  op: number
  /** Which side is the device's storage: 0 none, 1 the source, 2 the target. */
  storage: number
  /** Or'ed into the form's `operationWord`. */
  code: number
  minLength: number
  maxLength: number
  alignment: number
}

/**
 * Completions that the device writes into a ring of their own, in the order in which operations
 * end; in 32-bit words as the CPU has them.
 */
export interface NativeCompletionForm {
  /** Words of each; a power of two, up to 16. */
  readonly words: number
  /**
   * The phase, of one bit: 1 in what the device writes in its first round of the ring, which was
   * zeroed, 0 in the second, and so on.
   */
  readonly phaseWord: number
  readonly phaseMask: number
  /** Which slot it is of, so many bits to the left; one that is none's is dropped, and counted. */
  readonly idWord: number
  readonly idMask: number
  readonly idShift: number
  /** `goodValue`, or it went wrong. All of its bytes were transferred. */
  readonly goodWord: number
  readonly goodMask: number
  readonly goodValue: number
}

/** Such a ring. */
export interface NativeCompletionRing extends NativeCompletionForm {
  readonly memory: NativeMapping
  readonly entries: number
  /** Offset of the register that takes the next entry to be read. */
  readonly head: number
}

/** A ring of descriptors: native/ring/js.cc. */
export interface NativeRing extends NativeColumns {
  /** In and out through the doorbell. */
  post(): void
  reap(): void
  done(): void
  useTable(
    capacity: number,
    ids: Uint32Array,
    states: Uint8Array,
    access: Uint8Array,
    iovas: Float64Array,
    sizes: Float64Array,
    last: Uint32Array,
  ): void
  refill(): void
  rewind(): void
  close(): void
}

interface RingNative {
  openRing(
    descriptors: NativeMapping,
    entries: number,
    registers: NativeMapping,
    tail: number,
    form: NativeDescriptorForm,
    operations: readonly NativeRingOperation[],
    completions: NativeCompletionRing | undefined,
    cookies: Float64Array,
    offsets: Float64Array,
    lengths: Float64Array,
    ids: Uint32Array,
    places: Float64Array,
    kinds: Uint8Array,
    stages: Uint8Array,
    doorbell: Uint32Array,
    untold: Uint32Array,
  ): NativeRing
}

/** A channel of the software engine: native/software/software.cc. */
/** Nanoseconds; `cpu`: of the calling thread over all steps, its waiting left out. */
export interface PauseSplit {
  stop: number
  unmap: number
  copy: number
  map: number
  restart: number
  cpu: number
}

export interface NativeSoftwareChannel extends NativeColumns {
  readonly index: number
  /** In and out through the doorbell. */
  post(): void
  reap(): void
  arm(): void
  uses(id: number): boolean
  useUses(capacity: number, last: Uint32Array): void
  /** True: quiet already, else an event will say so. */
  stop(): boolean
  force(): number
  /** False: was not stopped. */
  restart(): boolean
  slow(nanosecondsPerChunk: number): void
  unstall(): void
  /** Nanoseconds, or -1. */
  bench(operations: number, batch: number, source: number, target: number): number
  /** Null where a step was refused. */
  benchPause(id: number, to: NativeMapping): PauseSplit | null
  close(): void
}

export interface NativeSoftwareEngine {
  openChannel(
    depth: number,
    owner: object,
    doorbell: Uint32Array,
    untold: Uint32Array,
  ): NativeSoftwareChannel
  /** Returns the generation. */
  map(id: number, mapping: NativeMapping, offset: number, size: number, access: number): number
  seal(id: number, sealed: boolean): void
  unmap(id: number): boolean
  isMapped(id: number): boolean
  inject(fault: number, channel: number, parameter: number, offset: number): void
  unstall(): void
  stats(): SoftwareStats
  close(): void
}

interface SoftwareNative {
  /** Nanoseconds of CPU that this thread has used. */
  threadCpuTime(): number
  openSoftwareEngine(dispatch: (owner: object, events: number) => void): NativeSoftwareEngine
}

interface PollNative {
  /**
   * Calls back once, with 0 or a negative errno, unless the function that it
   * returns is called first. Throws EPERM for a file that is always ready.
   */
  pollFd(fd: NativeFd, events: number, callback: (status: number) => void): () => void
  pollNow(fd: NativeFd, events: number): number
}

interface DmaBufNative {
  dmaBufSync(fd: NativeFd, flags: number): Promise<void>
  dmaBufSetName(fd: NativeFd, name: string): void
  dmaBufExportSyncFile(fd: NativeFd, flags: number): NativeFd
  dmaBufImportSyncFile(fd: NativeFd, flags: number, syncFile: NativeFd): void
}

export interface NativeFence {
  driver: string
  timeline: string
  status: number
  timestampNs: bigint
}

interface SyncFileNative {
  syncFileMerge(fd: NativeFd, other: NativeFd, name: string): NativeFd
  /** `fences` is empty where `capacity` is below `count`. */
  syncFileInfo(
    fd: NativeFd,
    capacity: number,
  ): { name: string; status: number; count: number; fences: NativeFence[] }
  syncFileSetDeadline(fd: NativeFd, deadlineNs: bigint, pad: number): void
}

interface UdmabufNative {
  udmabufCreate(device: NativeFd, memfd: NativeFd, offset: number, size: number): Promise<NativeFd>
  udmabufCreateList(
    device: NativeFd,
    memfds: NativeFd[],
    offsets: BigUint64Array,
    sizes: BigUint64Array,
  ): Promise<NativeFd>
}

interface DmaHeapNative {
  dmaHeapAlloc(
    heap: NativeFd,
    length: number,
    fdIn: number,
    fdFlags: number,
    heapFlags: number,
  ): Promise<NativeFd>
}

interface DrmNative {
  drmDriver(device: NativeFd): string
  drmDumbCreate(
    device: NativeFd,
    width: number,
    height: number,
    bitsPerPixel: number,
  ): { handle: number; pitch: number; size: number }
  drmDumbMap(device: NativeFd, handle: number): number
  drmGemClose(device: NativeFd, handle: number): void
  drmHandleToFd(device: NativeFd, handle: number): NativeFd
  drmFdToHandle(device: NativeFd, dmaBuf: NativeFd): number
  vgemAttach(device: NativeFd, handle: number, flags: number): number
  vgemSignal(device: NativeFd, fence: number): void
}

/** A device's registers; an offset is a multiple of the width. */
export interface NativeRegisters {
  read8(offset: number): number
  read16(offset: number): number
  read32(offset: number): number
  read64(offset: number): bigint
  write8(offset: number, value: number): void
  write16(offset: number, value: number): void
  write32(offset: number, value: number): void
  write64(offset: number, value: bigint): void
  close(): void
}

interface RegistersNative {
  Registers: new (mapping: NativeMapping) => NativeRegisters
}

/** A watch of an eventfd, on the event loop. */
export interface NativeWatch {
  stop(): void
  /** Whether it keeps the process alive; at first it does. */
  hold(hold: boolean): void
}

interface EventfdNative {
  createEventfd(): NativeFd
  /** Calls back with the count each time, or once with a negative errno. */
  watchEventfd(fd: NativeFd, callback: (count: number) => void): NativeWatch
}

interface VfioContainerNative {
  vfioApiVersion(container: NativeFd): number
  vfioCheckExtension(container: NativeFd, extension: number): boolean
  vfioSetIommu(container: NativeFd, type: number): void
  vfioGroupStatus(group: NativeFd): number
  vfioGroupSetContainer(group: NativeFd, container: NativeFd): void
  vfioGroupGetDevice(group: NativeFd, name: string): Promise<NativeFd>
  vfioIommuInfo(container: NativeFd): {
    pageSizes: bigint
    /** start, end, ..., both inclusive; null where the kernel names none. */
    ranges: bigint[] | null
    /** DMA mappings left; null where the kernel does not say. */
    mappings: number | null
  }
  vfioMapDma(
    container: NativeFd,
    iova: number,
    mapping: NativeMapping,
    offset: number,
    size: number,
    flags: number,
  ): void
  vfioStartMapDma(
    container: NativeFd,
    iova: number,
    mapping: NativeMapping,
    offset: number,
    size: number,
    flags: number,
  ): Promise<void>
  /** ENOENT where less than `size` was mapped. */
  vfioUnmapDma(container: NativeFd, iova: number, size: number): void
  vfioStartUnmapDma(container: NativeFd, iova: number, size: number): Promise<void>
}

export interface NativeRegionInfo {
  flags: number
  size: number
  offset: number
  /** offset, size, ... of what can be mapped, where that is not all of it. */
  areas: number[] | null
  type: number | null
  subtype: number | null
  msixMappable: boolean
}

interface VfioDeviceNative {
  vfioDeviceInfo(device: NativeFd): { flags: number; regions: number; interrupts: number }
  vfioRegionInfo(device: NativeFd, index: number): NativeRegionInfo
  vfioInterruptInfo(device: NativeFd, index: number): { flags: number; count: number }
  vfioSetInterrupts(
    device: NativeFd,
    index: number,
    start: number,
    count: number,
    flags: number,
    eventfds: readonly (NativeFd | null)[],
  ): void
  vfioReset(device: NativeFd): Promise<void>
  vfioExportDmaBuf(
    device: NativeFd,
    region: number,
    openFlags: number,
    ranges: BigUint64Array,
  ): NativeFd
  vfioStartExportDmaBuf(
    device: NativeFd,
    region: number,
    openFlags: number,
    ranges: BigUint64Array,
  ): Promise<NativeFd>
  vfioRead(device: NativeFd, offset: number, bytes: Uint8Array): number
  vfioWrite(device: NativeFd, offset: number, bytes: Uint8Array): number
}

type IommufdMap<Memory, Result> = (
  iommufd: NativeFd,
  space: number,
  iova: number,
  memory: Memory,
  offset: number,
  size: number,
  flags: number,
) => Result

interface IommufdNative {
  /** A new address space's id. */
  iommufdAllocate(iommufd: NativeFd): number
  /** Both ends inclusive. The alignment is 1 before a device is attached. */
  iommufdRanges(iommufd: NativeFd, space: number): { alignment: bigint; ranges: bigint[] }
  vfioBindIommufd(device: NativeFd, iommufd: NativeFd): Promise<void>
  vfioAttachIommufd(device: NativeFd, space: number): Promise<void>
  iommufdMap: IommufdMap<NativeMapping, void>
  iommufdStartMap: IommufdMap<NativeMapping, Promise<void>>
  /** Of a dma-buf. */
  iommufdMapFile: IommufdMap<NativeFd, void>
  iommufdStartMapFile: IommufdMap<NativeFd, Promise<void>>
  /** ENOENT where less than `size` was mapped. */
  iommufdUnmap(iommufd: NativeFd, space: number, iova: number, size: number): void
  iommufdStartUnmap(iommufd: NativeFd, space: number, iova: number, size: number): Promise<void>
}

/**
 * Stamped blocks (stamp.cc): payload offsets and sequences in Float64Arrays, length in bytes.
 * `header`: what stands right before each payload that has been stamped or has arrived.
 */
interface StampNative {
  stampBlocks(
    mapping: NativeMapping,
    offsets: Float64Array,
    sequences: Float64Array,
    length: number,
    seed: bigint,
    header?: Uint8Array,
  ): Promise<void>
  verifyBlocks(
    mapping: NativeMapping,
    offsets: Float64Array,
    sequences: Float64Array,
    length: number,
    seed: bigint,
    consume: boolean,
    header?: Uint8Array,
  ): Promise<Uint8Array>
}

export type Native = FdNative &
  MappingNative &
  MemfdNative &
  PollNative &
  DmaBufNative &
  SyncFileNative &
  UdmabufNative &
  DmaHeapNative &
  DrmNative &
  EventfdNative &
  RegistersNative &
  VfioContainerNative &
  VfioDeviceNative &
  IommufdNative &
  StampNative &
  SoftwareNative &
  RingNative

function load(): Native {
  try {
    return bindings({
      bindings: 'p2pdma',
      module_root: fileURLToPath(new URL('../..', import.meta.url)),
    }) as Native
  } catch (cause) {
    const full = noRoomToLoad(cause, 'p2pdma.node')
    if (full !== null) throw full
    const { code, message } = cause as NodeJS.ErrnoException
    if (code === 'ERR_DLOPEN_FAILED') {
      throw new P2pdmaError(`The native addon of p2pdma does not load: ${message}`, {
        code,
        hint: `it is of another machine, perhaps: build it anew: \`${rebuildCommand}\``,
        cause,
      })
    }
    throw new P2pdmaError('The native addon of p2pdma is not built: install scripts may be off', {
      code: 'ERR_DLOPEN_FAILED',
      hint: `build it: \`${buildCommand}\``,
      cause,
    })
  }
}

export const native = load()

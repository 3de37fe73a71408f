/**
 * What the heart asks of an exporter. It knows no device: a backing is memory
 * with a size that can be copied to and from another backing, poisoned and freed.
 */
import type { CpuAccessMode } from '../../kernel/cpu-access.js'
import type { P2pdmaError } from '../../errors.js'
import type { Mapping } from '../../kernel/mapping.js'

/** Whose bytes live in a backing: a buffer. */
export interface BackingHolder {
  /** The memory is no more; resolves when no device maps it. Never rejects. */
  loseMemory(error: P2pdmaError): Promise<void>
}

/** So many bytes from one backing to another; both offsets from their backing's start. */
export interface CopyRange {
  readonly sourceOffset: number
  readonly targetOffset: number
  readonly length: number
}

/**
 * Starts a copy of these ranges, one after the other; left out: of as many bytes as both have.
 * Settles once, when no byte will be read or written any more.
 */
export type Copy = (ranges?: readonly CopyRange[]) => Promise<void>

/** Somebody's device that may be able to copy: null where it cannot. */
export interface Copier {
  copyBetween(source: Backing, target: Backing): Copy | null
}

/** Where a buffer's bytes live now. One dma-buf may back many buffers. */
export interface Backing {
  /** The placement's name, as `--from` and `--to` spell it: `memfd`, `udmabuf`, `heap:system`. */
  readonly placement: string
  /** Usable bytes; a multiple of the page size. */
  readonly size: number
  /** The file descriptor behind it (a dma-buf where `isDmaBuf`), or -1. */
  readonly fd: number
  /** Offset of this backing in its file and in `mapping`, bytes. */
  readonly offset: number
  /**
   * Whether the fd is a dma-buf, which a kernel importer can be given. User
   * space cannot add the KERNEL-usage fences such an importer waits for, so
   * the copy into such a backing is finished before it is published.
   */
  readonly isDmaBuf: boolean
  /** The CPU's mapping of the file, or null where the CPU has none: see wayToCopy(). */
  readonly mapping: Mapping | null
  /**
   * A mapping, with this backing at the same `offset`, that an IOMMU can be
   * given: of memory with pages, or of a device's BAR. Null where there is
   * none; undefined: `mapping` is.
   */
  readonly dmaMapping?: Mapping | null
  /**
   * Starts copying into this backing, off the event loop: `range`, and no byte beside it, or
   * as many bytes as both have. Settles once, when no byte will be read or written any more.
   */
  copyFrom(source: Backing, range?: CopyRange): Promise<void>
  /** Whether `copyFrom()` can read there: asked before anything is stopped. Left out: it can. */
  canCopyFrom?(source: Backing): boolean
  /**
   * As `copyFrom`, the other way round: for memory that its exporter writes elsewhere.
   * Asked where the target does not read here. Optional.
   */
  copyTo?(target: Backing, range?: CopyRange): Promise<void>
  /** Whether `copyTo()` can write there. Left out: it can. */
  canCopyTo?(target: Backing): boolean
  /**
   * Makes its pages present, where that is left to the first access. A move
   * calls it before anything is stopped, so that no pause pays for page faults.
   */
  populate?(): Promise<void>
  /**
   * As `copyFrom`, here and now, where that is short and nobody has to be
   * waited for: the hop to a thread would take longer. False, and nothing
   * done, elsewhere. Optional.
   */
  copyNow?(source: Backing): boolean
  /** Opens the CPU's access, for as long as nothing moves it; rejects where the CPU has none. */
  openCpuWindow(mode: CpuAccessMode): Promise<CpuWindow>
  /**
   * Overwrites every byte with the poison pattern, off the event loop. `copiers`: the devices
   * of whoever uses the buffer, where the memory is reached by copies only: poisonByCopy().
   */
  poison(copiers?: readonly Copier[]): Promise<void>
  /** Counts the stray writes (runs of changed bytes) since `poison()`. */
  countStrayWrites(copiers?: readonly Copier[]): Promise<number>
  /**
   * Says whose bytes live here; null: nobody's any more. For memory that can go away
   * under its holder, which is told then, or at once where it has gone. Optional.
   */
  heldBy?(holder: BackingHolder | null): void
  /** Gives the memory back. Idempotent. */
  free(): Promise<void>
}

/** The CPU's access to a backing; DMA_BUF_IOCTL_SYNC brackets it where it is a dma-buf. */
export interface CpuWindow {
  /** A view of `length` bytes from `offset`, bytes from the backing's start. */
  view(offset: number, length: number): Uint8Array
  /** Detaches the views and ends the access. */
  end(): Promise<void>
}

/** What makes memory into backings: a placement. */
export interface Exporter {
  /** The placement's name, as in `Backing.placement`. */
  readonly placement: string
  /** `kernel`: a kernel exporter made it a dma-buf. `embedded`: plain shared memory. */
  readonly kind: 'kernel' | 'embedded'
  /** Allocates zeroed memory for at least `size` bytes; rejects with a typed error. */
  allocate(size: number): Promise<Backing>
}

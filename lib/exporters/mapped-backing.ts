/** A backing that the CPU has mapped: all of lib/exporters' are. */
import { brand } from '../brand.js'
import { P2pdmaError, checkInteger, closedError, rangeError, typeError } from '../errors.js'
import type { CpuAccessMode } from '../kernel/cpu-access.js'
import { DmaBuf } from '../kernel/dma-buf.js'
import { Mapping } from '../kernel/mapping.js'
import type { Memfd } from '../kernel/memfd.js'
import type {
  Backing,
  BackingHolder,
  CopyRange,
  CpuWindow,
} from '../move-notify/exporter/backing.js'
import { rangeToCopy } from '../move-notify/exporter/copying.js'
import { HeldBacking } from '../move-notify/exporter/residency/held-backing.js'
import type { BackingFile } from './mapped-file.js'
import { POISON } from './poison.js'
import { StagedWindow } from './staged-window.js'

/** Small on purpose: there may be a hundred thousand. No closures, everything shared in the file. */
export class MappedBacking implements Backing {
  static {
    brand(this, (value) => #placement in value, {
      promising: ['copyFrom', 'populate', 'poison', 'fill', 'countStrayWrites'],
    })
  }

  readonly offset: number
  readonly size: number
  #file: BackingFile | null
  readonly #placement: string
  /** Work on the memory that has not settled; the memory is given back after it. */
  #busy: Promise<unknown> | null = null
  #windows: Set<MappedWindow | StagedWindow> | null = null

  /** @internal */
  constructor(file: BackingFile, offset: number, size: number) {
    this.#file = file
    this.#placement = file.placement
    this.offset = offset
    this.size = size
  }

  get placement(): string {
    return this.#placement
  }

  get fd(): number {
    return this.#file?.memory?.fd ?? -1
  }

  get isDmaBuf(): boolean {
    return this.#file !== null && this.#file.dmaBuf !== null
  }

  /** Null once freed. */
  get mapping(): Mapping | null {
    return this.#file?.mapping ?? null
  }

  /** Null for memory that an IOMMU's type1 cannot pin, and once freed. */
  get dmaMapping(): Mapping | null {
    return this.#file?.dmaMapping ?? null
  }

  /** The dma-buf, where it is one. */
  get dmaBuf(): DmaBuf | null {
    return this.#file?.dmaBuf ?? null
  }

  /** The memfd whose pages a udmabuf shares, at the same offset; null for other placements. */
  get memfd(): Memfd | null {
    return this.#file?.memfd ?? null
  }

  /** The file it is part of; ERR_CLOSED once freed. @internal */
  get file(): BackingFile {
    if (this.#file === null) throw closedError('Backing')
    return this.#file
  }

  copyFrom(source: Backing, range?: CopyRange): Promise<void> {
    return this.#track(this.#copy(source, range))
  }

  /** What the CPU has mapped. */
  canCopyFrom(source: Backing): boolean {
    // What is no backing at all is copyFrom()'s to refuse.
    return (source as Partial<Backing> | null)?.mapping !== null
  }

  copyNow(source: Backing): boolean {
    if (source instanceof HeldBacking) return this.copyNow(source.inner)
    if (!(source instanceof MappedBacking)) return false
    const from = source.file
    const { file } = this
    if (!from.isBracketless || !file.isBracketless) return false
    const length = Math.min(this.size, source.size)
    return file.mapping.copyNow(from.mapping, source.offset, this.offset, length)
  }

  populate(): Promise<void> {
    return this.#track(this.file.mapping.populate(this.offset, this.size))
  }

  poison(): Promise<void> {
    return this.fill(POISON)
  }

  /** Overwrites all of it with a 64-bit pattern. @internal */
  fill(pattern: bigint): Promise<void> {
    return this.#track(
      this.#bracket('w', (file) => file.mapping.fill(pattern, this.offset, this.size)),
    )
  }

  countStrayWrites(): Promise<number> {
    return this.#track(
      this.#bracket('r', (file) => file.mapping.countRuns(POISON, this.offset, this.size)),
    )
  }

  async openCpuWindow(mode: CpuAccessMode): Promise<CpuWindow> {
    const { file } = this
    const { memory } = file
    const window =
      file.mapping.isDevice || memory === null
        ? await this.#track(StagedWindow.open(file, this.offset, this.size, mode))
        : await MappedWindow.open(memory, this.offset, this.size, mode)
    // Freed while this waited.
    if (this.#file === null) {
      await window.end()
      throw closedError('Backing')
    }
    this.#windows ??= new Set()
    for (const other of this.#windows) if (other.ended) this.#windows.delete(other)
    this.#windows.add(window)
    return window
  }

  heldBy(holder: BackingHolder | null): void {
    this.#file?.heldBy?.(this.offset, holder)
  }

  async free(): Promise<void> {
    const file = this.#file
    if (file === null) return
    this.#file = null
    try {
      for (const window of this.#windows ?? []) await window.end()
    } finally {
      this.#windows = null
      await this.#busy
      await file.release(this.offset, this.size)
    }
  }

  async #copy(source: Backing, range?: CopyRange): Promise<void> {
    if (source instanceof HeldBacking) return this.#copy(source.inner, range)
    const { mapping } = (source ?? {}) as Partial<Backing>
    if (mapping === undefined) throw typeError('source', 'a Backing', source)
    if (mapping === null) {
      throw new P2pdmaError('The CPU cannot read the source backing', {
        code: 'ERR_UNSUPPORTED',
        argument: 'source',
      })
    }
    const { sourceOffset, targetOffset, length } = rangeToCopy(source, this, range)
    const [from, to] = [source.offset + sourceOffset, this.offset + targetOffset]
    const copy = () =>
      this.#bracket('w', (file) => file.mapping.copyFrom(mapping, from, to, length))
    if (source instanceof MappedBacking) await source.#track(source.#bracket('r', copy))
    else if (source.isDmaBuf && !mapping.isDevice) await bracketFd(source.fd, copy)
    else await copy()
  }

  /** Runs `work` between begin and end of the CPU's access, where that means anything. */
  async #bracket<T>(mode: CpuAccessMode, work: (file: BackingFile) => Promise<T>): Promise<T> {
    const { file } = this
    const done = this.#bracketed(file, mode, work)
    file.track?.(done)
    try {
      return await done
    } catch (error) {
      throw file.lost ?? error
    }
  }

  async #bracketed<T>(
    file: BackingFile,
    mode: CpuAccessMode,
    work: (file: BackingFile) => Promise<T>,
  ): Promise<T> {
    const { dmaBuf } = file
    if (dmaBuf === null || file.isBracketless) return work(file)
    await dmaBuf.beginCpuAccess(mode)
    try {
      return await work(file)
    } finally {
      await dmaBuf.endCpuAccess(mode)
    }
  }

  #track<T>(work: Promise<T>): Promise<T> {
    const before = this.#busy
    const busy = Promise.allSettled([before, work]).then(() => {
      if (this.#busy === busy) this.#busy = null
    })
    this.#busy = busy
    return work
  }
}

/** The CPU's window onto a backing: a mapping of its own, so that it can be taken away alone. */
class MappedWindow implements CpuWindow {
  readonly #mapping: Mapping
  readonly #memory: Memfd | DmaBuf
  readonly #mode: CpuAccessMode

  constructor(mapping: Mapping, memory: Memfd | DmaBuf, mode: CpuAccessMode) {
    this.#mapping = mapping
    this.#memory = memory
    this.#mode = mode
  }

  static async open(
    memory: Memfd | DmaBuf,
    offset: number,
    size: number,
    mode: CpuAccessMode,
  ): Promise<MappedWindow> {
    const held = memory.dup()
    let mapping: Mapping | null = null
    try {
      mapping = Mapping.ofHandle(held.handle, { offset, length: size })
      if (held instanceof DmaBuf) await held.beginCpuAccess(mode)
      return new MappedWindow(mapping, held, mode)
    } catch (error) {
      mapping?.unmap()
      held.close()
      throw error
    }
  }

  get ended(): boolean {
    return this.#mapping.closed
  }

  view(offset: number, length: number): Uint8Array {
    if (this.ended) throw closedError('CpuWindow')
    checkInteger('offset', offset)
    checkInteger('length', length)
    if (offset + length > this.#mapping.length) {
      throw rangeError('length', `within the ${this.#mapping.length} bytes`, offset + length)
    }
    return new Uint8Array(this.#mapping.view(offset, length))
  }

  async end(): Promise<void> {
    if (this.ended) return
    this.#mapping.unmap()
    try {
      if (this.#memory instanceof DmaBuf) await this.#memory.endCpuAccess(this.#mode)
    } finally {
      this.#memory.close()
    }
  }
}

async function bracketFd(fd: number, work: () => Promise<void>): Promise<void> {
  using dmaBuf = DmaBuf.ofDuplicate(fd)
  await dmaBuf.beginCpuAccess('r')
  try {
    await work()
  } finally {
    await dmaBuf.endCpuAccess('r')
  }
}

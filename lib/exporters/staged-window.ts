/**
 * The CPU's window onto a device's memory, which has no views: the bytes are
 * read into ordinary memory, and at the end the words that have changed there
 * are written back. The others are left alone: a device may have written them
 * meanwhile. What it writes while the window is open is not seen in it.
 */
import { checkInteger, closedError, rangeError } from '../errors.js'
import type { CpuAccessMode } from '../kernel/cpu-access.js'
import type { Mapping } from '../kernel/mapping.js'
import { Memfd } from '../kernel/memfd.js'
import type { CpuWindow } from '../move-notify/exporter/backing.js'
import type { BackingFile } from './mapped-file.js'

export class StagedWindow implements CpuWindow {
  readonly #device: BackingFile
  readonly #offset: number
  readonly #size: number
  /** The same memory twice, so that the views can go before it is read. */
  readonly #views: Mapping
  readonly #staged: Mapping
  /** What was there at first; null where nothing is to be written. */
  readonly #before: Mapping | null
  #ending: Promise<void> | null = null

  private constructor(device: BackingFile, offset: number, size: number, mode: CpuAccessMode) {
    this.#device = device
    this.#offset = offset
    this.#size = size
    using memfd = Memfd.create(size, { name: 'p2pdma-window' })
    const made: Mapping[] = []
    const kept = (mapping: Mapping) => (made.push(mapping), mapping)
    try {
      this.#views = kept(memfd.map())
      this.#staged = kept(memfd.map())
      this.#before = mode === 'r' ? null : kept(ordinary(size))
    } catch (error) {
      for (const mapping of made) mapping.unmap()
      throw error
    }
  }

  static async open(
    device: BackingFile,
    offset: number,
    size: number,
    mode: CpuAccessMode,
  ): Promise<StagedWindow> {
    const window = new StagedWindow(device, offset, size, mode)
    try {
      await window.#tracked((mapping) => window.#staged.copyFrom(mapping, offset, 0, size))
      await window.#before?.copyFrom(window.#staged, 0, 0, size)
      return window
    } catch (error) {
      window.#unmap()
      throw error
    }
  }

  get ended(): boolean {
    return this.#ending !== null
  }

  view(offset: number, length: number): Uint8Array {
    if (this.ended) throw closedError('CpuWindow')
    checkInteger('offset', offset)
    checkInteger('length', length)
    if (offset + length > this.#size) {
      throw rangeError('length', `within the ${this.#size} bytes`, offset + length)
    }
    return new Uint8Array(this.#views.view(offset, length))
  }

  end(): Promise<void> {
    this.#ending ??= this.#end()
    return this.#ending
  }

  async #end(): Promise<void> {
    this.#views.unmap()
    try {
      if (this.#before === null) return
      const [staged, before] = [this.#staged, this.#before]
      await this.#tracked((mapping) =>
        mapping.storeChanges(this.#offset, staged, before, this.#size),
      )
    } finally {
      this.#unmap()
    }
  }

  /** By the mapping of this moment: another one may take its place. */
  async #tracked(work: (mapping: Mapping) => Promise<void>): Promise<void> {
    const done = work(this.#device.mapping)
    this.#device.track?.(done)
    return done
  }

  #unmap(): void {
    this.#views.unmap()
    this.#staged.unmap()
    this.#before?.unmap()
  }
}

function ordinary(size: number): Mapping {
  using memfd = Memfd.create(size)
  return memfd.map()
}

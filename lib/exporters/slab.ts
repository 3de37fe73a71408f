/**
 * Many small backings that share one big file and one mapping: the limits of
 * open files and of memory maps are far below the number of buffers.
 */
import { brand } from '../brand.js'
import { checkInteger, checkOptions, P2pdmaError } from '../errors.js'
import { roundUp } from '../kernel/memfd.js'
import { native } from '../native.js'
import type { Backing, BackingHolder, Exporter } from '../move-notify/exporter/backing.js'
import { checkExporter } from '../move-notify/exporter/exporting.js'
import { MappedBacking } from './mapped-backing.js'
import type { BackingFile } from './mapped-file.js'

export interface SlabOptions {
  /** Bytes of one shared file. Default 16 MiB. */
  slabSize?: number
}

const DEFAULT_SLAB_SIZE = 16 << 20

/** An exporter whose backings are of lib/exporters, so that they can be divided. */
export interface MappedExporter extends Exporter {
  allocate(size: number): Promise<MappedBacking>
}

interface Slot {
  backing: MappedBacking
  /** Whether it was used before, and is not zero. */
  dirty: boolean
}

/** One shared file, divided into slots of one size. */
class Slab implements BackingFile {
  readonly placement: string
  readonly memory: BackingFile['memory']
  readonly memfd: BackingFile['memfd']
  readonly #backing: MappedBacking
  readonly #class: SizeClass
  /** Offsets of slots that were used and given back: not zero any more. */
  readonly #returned: number[] = []
  /** Where the slots begin that were never used. */
  #fresh: number
  #used = 0

  constructor(backing: MappedBacking, sizeClass: SizeClass) {
    const { placement, memory, memfd } = backing.file
    this.placement = placement
    this.memory = memory
    this.memfd = memfd
    this.#backing = backing
    this.#class = sizeClass
    this.#fresh = backing.offset
  }

  get mapping(): BackingFile['mapping'] {
    return this.#backing.file.mapping
  }

  get dmaBuf(): BackingFile['dmaBuf'] {
    return this.#backing.dmaBuf
  }

  get dmaMapping(): BackingFile['dmaMapping'] {
    return this.#backing.file.dmaMapping
  }

  get isBracketless(): boolean {
    return this.#backing.file.isBracketless
  }

  track(work: Promise<unknown>): void {
    this.#backing.file.track?.(work)
  }

  heldBy(offset: number, holder: BackingHolder | null): void {
    this.#backing.file.heldBy?.(offset, holder)
  }

  get lost(): P2pdmaError | null {
    return this.#backing.file.lost ?? null
  }

  get full(): boolean {
    const end = this.#backing.offset + this.#backing.size
    return this.#returned.length === 0 && this.#fresh + this.#class.slotSize > end
  }

  /** Takes a slot; the caller has seen that it is not full. */
  take(): Slot {
    const returned = this.#returned.pop()
    const offset = returned ?? this.#fresh
    if (returned === undefined) this.#fresh += this.#class.slotSize
    this.#used++
    const backing = new MappedBacking(this, offset, this.#class.slotSize)
    return { backing, dirty: returned !== undefined }
  }

  async release(offset: number): Promise<void> {
    this.heldBy(offset, null)
    this.#returned.push(offset)
    this.#used--
    if (this.#used > 0) {
      this.#class.partial.add(this)
    } else {
      this.#class.partial.delete(this)
      await this.close()
    }
  }

  close(): Promise<void> {
    return this.#backing.free()
  }
}

class SizeClass {
  readonly slotSize: number
  /** Slabs with a slot free. */
  readonly partial = new Set<Slab>()
  growing: Promise<void> | null = null

  constructor(slotSize: number) {
    this.slotSize = slotSize
  }
}

export class SlabExporter implements MappedExporter {
  static {
    brand(this, (value) => #classes in value)
  }

  readonly placement: string
  readonly kind: Exporter['kind']
  readonly #exporter: MappedExporter
  readonly #slabSize: number
  readonly #classes = new Map<number, SizeClass>()

  constructor(exporter: MappedExporter, options: SlabOptions = {}) {
    checkExporter(exporter)
    const { slabSize = DEFAULT_SLAB_SIZE } = checkOptions(options)
    this.#slabSize = checkInteger('slabSize', slabSize, native.pageSize)
    this.#exporter = exporter
    this.placement = exporter.placement
    this.kind = exporter.kind
  }

  async allocate(size: number): Promise<MappedBacking> {
    checkInteger('size', size, 1)
    const slotSize = roundUp(size, native.pageSize)
    if (slotSize * 2 > this.#slabSize) return this.#exporter.allocate(size)
    let sizeClass = this.#classes.get(slotSize)
    if (sizeClass === undefined) {
      sizeClass = new SizeClass(slotSize)
      this.#classes.set(slotSize, sizeClass)
    }
    const { backing, dirty } = await this.#take(sizeClass)
    if (dirty) {
      try {
        await backing.fill(0n)
      } catch (error) {
        await backing.free()
        throw error
      }
    }
    return backing
  }

  /** A free slot, taken in the turn in which it is found. One slab grows for all who wait. */
  async #take(sizeClass: SizeClass): Promise<Slot> {
    for (;;) {
      for (const slab of sizeClass.partial) {
        if (!slab.full) return slab.take()
        sizeClass.partial.delete(slab)
      }
      sizeClass.growing ??= this.#grow(sizeClass).finally(() => {
        sizeClass.growing = null
      })
      await sizeClass.growing
    }
  }

  async #grow(sizeClass: SizeClass): Promise<void> {
    const backing = await this.#exporter.allocate(this.#slabSize)
    if (!(backing instanceof MappedBacking)) {
      await (backing as Backing).free()
      throw new P2pdmaError('A slab needs an exporter of this package', {
        code: 'ERR_INVALID_ARG_VALUE',
        argument: 'exporter',
      })
    }
    sizeClass.partial.add(new Slab(backing, sizeClass))
  }
}

/** Divides what `exporter` allocates among many small backings. Same placement. */
export function slab(exporter: MappedExporter, options: SlabOptions = {}): SlabExporter {
  return new SlabExporter(exporter, options)
}

/** A dma-heap. */
import { brand } from '../brand.js'
import { checkInteger, typeError } from '../errors.js'
import { DmaHeap } from '../kernel/dma-heap.js'
import type { Exporter } from '../move-notify/exporter/backing.js'
import { MappedBacking } from './mapped-backing.js'
import { MappedFile } from './mapped-file.js'

export class HeapExporter implements Exporter {
  static {
    brand(this, (value) => #name in value)
  }

  readonly kind = 'kernel'
  readonly placement: string
  readonly #name: string

  constructor(name: string) {
    if (typeof name !== 'string') throw typeError('name', 'a string', name)
    this.#name = name
    this.placement = `heap:${name}`
  }

  async allocate(size: number): Promise<MappedBacking> {
    checkInteger('size', size, 1)
    using heap = DmaHeap.open(this.#name)
    const file = new MappedFile(this.placement, await heap.alloc(size))
    return new MappedBacking(file, 0, file.mapping.length)
  }
}

/** Allocates from a dma-heap, by its name under /dev/dma_heap. */
export function heap(name = 'system'): HeapExporter {
  return new HeapExporter(name)
}

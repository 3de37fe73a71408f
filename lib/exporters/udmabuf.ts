/** udmabuf: a memfd's pages as a dma-buf. */
import { brand } from '../brand.js'
import { checkInteger, checkOptions } from '../errors.js'
import { Memfd } from '../kernel/memfd.js'
import { Udmabuf } from '../kernel/udmabuf.js'
import type { Exporter } from '../move-notify/exporter/backing.js'
import { MappedBacking } from './mapped-backing.js'
import { MappedFile } from './mapped-file.js'
import type { MemfdExporterOptions } from './memfd.js'

export class UdmabufExporter implements Exporter {
  static {
    brand(this, (value) => #options in value)
  }

  readonly kind = 'kernel'
  readonly placement: string
  readonly #options: MemfdExporterOptions

  constructor(options: MemfdExporterOptions = {}) {
    this.#options = checkOptions(options)
    this.placement = (options.hugetlb ?? false) === false ? 'udmabuf' : 'udmabuf:hugetlb'
  }

  /** The backing keeps its memfd open, as `memfd`. */
  async allocate(size: number): Promise<MappedBacking> {
    checkInteger('size', size, 1)
    const memfd = Memfd.create(size, this.#options)
    try {
      const dmaBuf = await Udmabuf.create(memfd, 0, memfd.size)
      const file = new MappedFile(this.placement, dmaBuf, memfd)
      return new MappedBacking(file, 0, file.mapping.length)
    } catch (error) {
      memfd.close()
      throw error
    }
  }
}

/** Allocates udmabufs. */
export function udmabuf(options: MemfdExporterOptions = {}): UdmabufExporter {
  return new UdmabufExporter(options)
}

/** Plain shared memory: the embedded default, where the kernel exports nothing. */
import { brand } from '../brand.js'
import { checkInteger, checkOptions } from '../errors.js'
import { Memfd } from '../kernel/memfd.js'
import { checkFitsMachine } from '../kernel/memory-limit.js'
import type { Exporter } from '../move-notify/exporter/backing.js'
import { MappedBacking } from './mapped-backing.js'
import { MappedFile } from './mapped-file.js'

export interface MemfdExporterOptions {
  /** Huge pages: true for the system's default size, or a size in bytes. Default false. */
  hugetlb?: boolean | number
}

export class MemfdExporter implements Exporter {
  static {
    brand(this, (value) => #options in value, { promising: ['allocate'] })
  }

  readonly kind = 'embedded'
  readonly placement: string
  readonly #options: MemfdExporterOptions

  constructor(options: MemfdExporterOptions = {}) {
    this.#options = checkOptions(options)
    this.placement = (options.hugetlb ?? false) === false ? 'memfd' : 'memfd:hugetlb'
  }

  allocate(size: number): Promise<MappedBacking> {
    return new Promise((resolve) => {
      checkInteger('size', size, 1)
      checkFitsMachine(size)
      const file = new MappedFile(this.placement, Memfd.create(size, this.#options))
      resolve(new MappedBacking(file, 0, file.mapping.length))
    })
  }
}

/** Allocates memfds. */
export function memfd(options: MemfdExporterOptions = {}): MemfdExporter {
  return new MemfdExporter(options)
}

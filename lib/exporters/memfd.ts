/** Plain shared memory: the embedded default, where the kernel exports nothing. */
import { totalmem } from 'node:os'
import { P2pdmaError, checkInteger, checkOptions } from '../errors.js'
import { Memfd } from '../kernel/memfd.js'
import type { Exporter } from '../move-notify/backing.js'
import { MappedBacking } from './mapped-backing.js'
import { MappedFile } from './mapped-file.js'

export interface MemfdExporterOptions {
  /** Huge pages: true for the system's default size, or a size in bytes. Default false. */
  hugetlb?: boolean | number
}

export class MemfdExporter implements Exporter {
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
      // The kernel would find out page by page, and then kill some process.
      if (size > totalmem()) {
        throw new P2pdmaError(`size is more than this machine's ${totalmem()} bytes`, {
          code: 'ENOMEM',
          argument: 'size',
        })
      }
      const file = new MappedFile(this.placement, Memfd.create(size, this.#options))
      resolve(new MappedBacking(file, 0, file.mapping.length))
    })
  }
}

/** Allocates memfds. */
export function memfd(options: MemfdExporterOptions = {}): MemfdExporter {
  return new MemfdExporter(options)
}

/** DRM PRIME: dumb buffers of a graphics driver, exported as dma-bufs. */
import { brand } from '../brand.js'
import { checkInteger, checkOptions, typeError } from '../errors.js'
import { DrmDevice } from '../kernel/drm.js'
import type { Exporter } from '../move-notify/exporter/backing.js'
import { MappedBacking } from './mapped-backing.js'
import { MappedFile } from './mapped-file.js'

export class DrmExporter implements Exporter {
  static {
    brand(this, (value) => #driver in value, { promising: ['allocate'] })
  }

  readonly kind = 'kernel'
  readonly placement: string
  readonly #driver: string

  constructor(driver: string) {
    if (typeof driver !== 'string') throw typeError('driver', 'a string', driver)
    this.#driver = driver
    this.placement = `drm:${driver}`
  }

  /** The dma-buf keeps the memory; the device and its handle are let go of. */
  allocate(size: number): Promise<MappedBacking> {
    return new Promise((resolve) => {
      checkInteger('size', size, 1)
      using device = DrmDevice.open({ driver: this.#driver })
      using buffer = device.createBuffer(size)
      const file = new MappedFile(this.placement, buffer.exportDmaBuf())
      resolve(new MappedBacking(file, 0, file.mapping.length))
    })
  }
}

/** Allocates dumb buffers of the first card of a DRM driver. */
export function drm(options: { driver: string } = { driver: 'vgem' }): DrmExporter {
  return new DrmExporter(checkOptions(options).driver)
}

/** What makes memory into backings. */
export { drm, DrmExporter } from './drm.js'
export { heap, HeapExporter } from './heap.js'
export type { MappedBacking } from './mapped-backing.js'
export { memfd, MemfdExporter, type MemfdExporterOptions } from './memfd.js'
export { availableExporters, exporterByName, type ExporterStatus } from './names.js'
export { POISON } from './poison.js'
export { slab, SlabExporter, type MappedExporter, type SlabOptions } from './slab.js'
export { udmabuf, UdmabufExporter } from './udmabuf.js'

/** Exporters by name, as the command line spells them, and what this machine has. */
import { accessSync, closeSync, constants, openSync } from 'node:fs'
import { P2pdmaError, typeError } from '../errors.js'
import { type Doing, explain, Machine } from '../failures/index.js'
import { DmaHeap } from '../kernel/dma-heap.js'
import { DrmDevice } from '../kernel/drm.js'
import { drm } from './drm.js'
import { heap } from './heap.js'
import { memfd } from './memfd.js'
import type { MappedExporter } from './slab.js'
import { memoryDevices } from './memory-devices.js'
import { udmabuf } from './udmabuf.js'
import { vfioBar } from './vfio-bar.js'

/** What there is, or could be, on this machine. */
export interface ExporterStatus {
  /** As `exporterByName` takes it. */
  readonly placement: string
  readonly kind: 'kernel' | 'embedded'
  readonly available: boolean
  /** What would make it available. */
  readonly hint?: string
}

const NAMES = [
  'memfd',
  'memfd:hugetlb',
  'udmabuf',
  'udmabuf:hugetlb',
  'heap:NAME',
  'drm:DRIVER',
  'vfio-bar[:ADDRESS[/BAR]]',
]

const BAR_NAME = /^vfio-bar:([0-9a-f]{4,}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7])(?:\/([0-5]))?$/

/**
 * `memfd`, `udmabuf`, `heap:system`, `drm:vgem`, `vfio-bar:0000:03:00.0/2`, ...;
 * `vfio-bar` alone: the first device with memory that is bound to vfio-pci. ERR_INVALID_ARG_VALUE
 * for another name.
 */
export function exporterByName(name: string): MappedExporter {
  if (typeof name !== 'string') throw typeError('exporter', 'a string', name)
  switch (name) {
    case 'memfd':
      return memfd()
    case 'memfd:hugetlb':
      return memfd({ hugetlb: true })
    case 'udmabuf':
      return udmabuf()
    case 'udmabuf:hugetlb':
      return udmabuf({ hugetlb: true })
    case 'vfio-bar':
      return vfioBar(firstMemoryDevice())
  }
  const [, kind, parameter = ''] = /^(heap|drm):([\w.,+@-]+)$/.exec(name) ?? []
  if (kind === 'heap') return heap(parameter)
  if (kind === 'drm') return drm({ driver: parameter })
  const [, address, bar] = BAR_NAME.exec(name) ?? []
  if (address !== undefined) {
    return vfioBar(address, bar === undefined ? {} : { region: Number(bar) })
  }
  throw new P2pdmaError(`Unknown exporter ${JSON.stringify(name)}; there are ${NAMES.join(', ')}`, {
    code: 'ERR_INVALID_ARG_VALUE',
    argument: 'exporter',
  })
}

function firstMemoryDevice(): string {
  const [address] = memoryDevices()
  if (address !== undefined) return address
  throw new P2pdmaError('No device with memory is bound to vfio-pci', {
    code: 'ERR_NO_DEVICE',
    argument: 'exporter',
    hint: 'name one, as vfio-bar:0000:03:00.0, and `p2pdma bind` it',
  })
}

/** Looks at what can be opened; allocates nothing. */
export function availableExporters(): ExporterStatus[] {
  const heaps = listHeaps()
  return [
    { placement: 'memfd', kind: 'embedded', available: true },
    status('memfd:hugetlb', 'embedded', hugePages()),
    status('udmabuf', 'kernel', opened('/dev/udmabuf', 'udmabuf.open')),
    ...heaps.map((name) =>
      status(`heap:${name}`, 'kernel', opened(`/dev/dma_heap/${name}`, 'heap.open')),
    ),
    status('drm:vgem', 'kernel', vgem()),
    ...DrmDevice.drivers()
      .filter((driver) => driver !== 'vgem')
      .map((driver) => status(`drm:${driver}`, 'kernel', null)),
    ...memoryDevices().map((address) =>
      status(`vfio-bar:${address}`, 'kernel', access('/dev/vfio/vfio', 'vfio.container')),
    ),
  ]
}

function status(
  placement: string,
  kind: ExporterStatus['kind'],
  missing: string | null,
): ExporterStatus {
  if (missing === null) return { placement, kind, available: true }
  return { placement, kind, available: false, hint: missing }
}

function listHeaps(): string[] {
  try {
    const names = DmaHeap.list()
    return names.length > 0 ? names : ['system']
  } catch {
    return ['system']
  }
}

/** Null where the file can be read and written, else what would help. */
function access(path: string, doing: Doing): string | null {
  return tried(path, doing, () => accessSync(path, constants.R_OK | constants.W_OK))
}

/**
 * The same by opening it, of what does nothing then: its driver may be gone, or a container
 * may not have it, whatever the file's mode says.
 */
function opened(path: string, doing: Doing): string | null {
  return tried(path, doing, () => closeSync(openSync(path, constants.O_RDWR)))
}

function tried(path: string, doing: Doing, work: () => void): string | null {
  try {
    work()
    return null
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? ''
    return explain({ code, syscall: 'open', path, doing }).hint ?? (error as Error).message
  }
}

function vgem(): string | null {
  try {
    DrmDevice.open({ driver: 'vgem' }).close()
    return null
  } catch (error) {
    if (error instanceof P2pdmaError) return error.hint ?? error.message
    throw error
  }
}

function hugePages(): string | null {
  const machine = new Machine()
  const pages = machine.hugePages()
  if (pages === null) return 'this kernel has no huge pages (CONFIG_HUGETLBFS)'
  if (pages.free > 0) return null
  return explain({ code: 'ENOMEM', syscall: 'mmap', hugePage: pages.size }, machine).hint ?? null
}

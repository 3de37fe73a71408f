/** Exporters by name, as the command line spells them, and what this machine has. */
import { accessSync, closeSync, constants, openSync } from 'node:fs'
import { P2pdmaError, typeError } from '../errors.js'
import { type Doing, explain, Machine } from '../failures/index.js'
import { DmaHeap } from '../kernel/dma-heap.js'
import { DrmDevice } from '../kernel/drm.js'
import { drm } from './drm.js'
import type { Exporter } from '../move-notify/exporter/backing.js'
import { heap } from './heap.js'
import { memfd } from './memfd.js'
import type { MappedExporter } from './slab.js'
import { memoryDevices } from './memory-devices.js'
import {
  type ExporterFamily,
  exporters,
  type ExporterStatus,
  registerExporter,
} from './registry.js'
import { udmabuf } from './udmabuf.js'
import { vfioBar } from './vfio-bar.js'

/** The families of this package, in the order in which they are told of. */
const ours: readonly ExporterFamily[] = [
  {
    interfaceVersion: 1,
    name: 'memfd',
    spelling: 'memfd, memfd:hugetlb',
    open: (parameter) => pages(parameter, memfd),
    list: () => [
      { placement: 'memfd', kind: 'embedded', available: true },
      status('memfd:hugetlb', 'embedded', hugePages()),
    ],
  },
  {
    interfaceVersion: 1,
    name: 'udmabuf',
    spelling: 'udmabuf, udmabuf:hugetlb',
    open: (parameter) => pages(parameter, udmabuf),
    list: () => [status('udmabuf', 'kernel', opened('/dev/udmabuf', 'udmabuf.open'))],
  },
  {
    interfaceVersion: 1,
    name: 'heap',
    spelling: 'heap:NAME',
    open: (heapName) => (isNode(heapName) ? heap(heapName) : null),
    list: () =>
      listHeaps().map((name) =>
        status(`heap:${name}`, 'kernel', opened(`/dev/dma_heap/${name}`, 'heap.open')),
      ),
  },
  {
    interfaceVersion: 1,
    name: 'drm',
    spelling: 'drm:DRIVER',
    open: (driver) => (isNode(driver) ? drm({ driver }) : null),
    list: () => [
      status('drm:vgem', 'kernel', vgem()),
      ...DrmDevice.drivers()
        .filter((driver) => driver !== 'vgem')
        .map((driver) => status(`drm:${driver}`, 'kernel', null)),
    ],
  },
  {
    interfaceVersion: 1,
    name: 'vfio-bar',
    spelling: 'vfio-bar[:ADDRESS[/BAR]]',
    open: bar,
    list: () =>
      memoryDevices().map((address) =>
        status(`vfio-bar:${address}`, 'kernel', access('/dev/vfio/vfio', 'vfio.container')),
      ),
  },
]
for (const each of ours) registerExporter(each)

function pages<T>(parameter: string | null, make: (options?: { hugetlb: boolean }) => T): T | null {
  if (parameter === null) return make()
  return parameter === 'hugetlb' ? make({ hugetlb: true }) : null
}

function isNode(parameter: string | null): parameter is string {
  return parameter !== null && /^[\w.,+@-]+$/.test(parameter)
}

const BAR = /^([0-9a-f]{4,}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7])(?:\/([0-5]))?$/

function bar(parameter: string | null): MappedExporter | null {
  if (parameter === null) return vfioBar(firstMemoryDevice())
  const [, address, region] = BAR.exec(parameter) ?? []
  if (address === undefined) return null
  return vfioBar(address, region === undefined ? {} : { region: Number(region) })
}

/** What this package names itself. */
export type ExporterName =
  | `${'memfd' | 'udmabuf'}${'' | ':hugetlb'}`
  | `${'heap' | 'drm' | 'vfio-bar'}:${string}`
  | 'vfio-bar'

/**
 * `memfd`, `udmabuf`, `heap:system`, `drm:vgem`, `vfio-bar:0000:03:00.0/2`, ...;
 * `vfio-bar` alone: the first device with memory that is bound to vfio-pci; or one that
 * `registerExporter()` has made known. ERR_INVALID_ARG_VALUE for another name.
 */
export function exporterByName(name: ExporterName): MappedExporter
export function exporterByName(name: string): Exporter
export function exporterByName(name: string): Exporter {
  if (typeof name !== 'string') throw typeError('exporter', 'a string', name)
  const found = exporters.find(name)
  const exporter = found?.one.open(found.parameter) ?? null
  if (exporter !== null) return exporter
  const spellings = exporters.all.map(({ spelling }) => spelling).join(', ')
  throw new P2pdmaError(`Unknown exporter ${JSON.stringify(name)}; there are ${spellings}`, {
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
  return exporters.all.flatMap((family) => family.list?.() ?? [])
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

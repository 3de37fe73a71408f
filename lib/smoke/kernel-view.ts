/** What the kernel says of the memory that the buffers were made of. */
import { fstatSync, readFileSync } from 'node:fs'
import { parseFdinfo } from '../kernel/fdinfo.js'
import type { Backing, Exporter } from '../move-notify/exporter/backing.js'
import type { StampedBy } from './stamp.js'

export interface ExporterReport {
  name: string
  /** `kernel`: its memory is a dma-buf of the kernel's. `embedded`: plain shared memory. */
  kind: 'kernel' | 'embedded'
  /** The exporter's own name, from the fdinfo of a dma-buf in use; null where there is none. */
  kernelName: string | null
  /** How many of our dma-bufs its list showed, by inode; null where the list cannot be read. */
  seenByKernel: number | null
  /** By whom stamps got there and back; `mapping`: by nobody, the CPU has it mapped. */
  stamped: StampedBy
}

type Seen = Omit<ExporterReport, 'stamped'> & { inodes: Set<number>; looks: number }

const BUFINFO = '/sys/kernel/debug/dma_buf/bufinfo'
/** Looks at one exporter's backings: the list is long to print for the kernel. */
const MAX_LOOKS = 8

export class KernelView {
  readonly #reports = new Map<string, Seen>()

  constructor(exporters: readonly Exporter[]) {
    for (const { placement, kind } of exporters) {
      this.#reports.set(placement, {
        name: placement,
        kind,
        kernelName: null,
        seenByKernel: null,
        inodes: new Set(),
        looks: 0,
      })
    }
  }

  /** Looks a live backing up; in one turn, so that nobody frees it meanwhile. */
  look(backing: Backing): void {
    const report = this.#reports.get(backing.placement)
    if (report === undefined || !backing.isDmaBuf || backing.fd < 0) return
    if (report.looks++ >= MAX_LOOKS) return
    const inode = fstatSync(backing.fd).ino
    report.kernelName =
      parseFdinfo(readFileSync(`/proc/self/fdinfo/${backing.fd}`, 'utf8'))?.exporter ?? null
    const listed = listedInodes()
    if (listed === null) return
    if (listed.has(inode)) report.inodes.add(inode)
    report.seenByKernel = report.inodes.size
  }

  reports(stamped: (placement: string) => StampedBy): ExporterReport[] {
    return [...this.#reports.values()].map(({ name, kind, kernelName, seenByKernel }) => ({
      name,
      kind,
      kernelName,
      seenByKernel,
      stamped: stamped(name),
    }))
  }
}

/** The inodes in the kernel's list of dma-bufs; null where it cannot be read. */
function listedInodes(): Set<number> | null {
  try {
    return parseBufinfo(readFileSync(BUFINFO, 'utf8'))
  } catch {
    return null
  }
}

/** drivers/dma-buf/dma-buf.c, dma_buf_debug_show(): size, flags, mode, count, exp_name, ino, name. */
export function parseBufinfo(text: string): Set<number> {
  const inodes = new Set<number>()
  for (const [, inode] of text.matchAll(/^\d+\t[\da-f]+\t[\da-f]+\t\d+\t[^\t]+\t(\d+)\t/gm)) {
    inodes.add(Number(inode))
  }
  return inodes
}

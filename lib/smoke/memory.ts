/** The memory of this process: what it had at most, and a cap on it. */
import { readFileSync } from 'node:fs'
import { P2pdmaError } from '../errors.js'

/** How often it is looked at, ms: a buffer takes longer to be filled. */
const LOOK_MS = 100

/** VmHWM, bytes: the most that was resident at any time, shared memory that is mapped included. */
export function peakMemory(): number {
  const text = readFileSync('/proc/self/status', 'utf8')
  return Number(/^VmHWM:\s+(\d+) kB/m.exec(text)?.[1] ?? 0) * 1024
}

/**
 * What is pinned for devices, bytes: VmLck by vfio_iommu_type1.c (vfio_lock_acct()), VmPin by
 * RDMA (ib_umem_get()) and by iommufd (pages.c, do_update_pinned()).
 */
export function pinnedBytes(): number {
  const text = readFileSync('/proc/self/status', 'utf8')
  const found = text.matchAll(/^Vm(?:Lck|Pin):\s+(\d+) kB/gm)
  return [...found].reduce((sum, [, kibibytes]) => sum + Number(kibibytes) * 1024, 0)
}

export function mebibytes(bytes: number): string {
  return `${Math.ceil(bytes / 2 ** 20)} MiB`
}

/** What the process comes to have beside what it has now and its buffers, bytes: measured. */
const GROWTH = 64 << 20

/** What it takes beside its buffers, about. */
export function ownBytes(): number {
  return process.memoryUsage.rss() + GROWTH
}

/** Ends the run when the process has more than it may. */
export class MemoryCap {
  readonly #limit: number
  readonly #abort = new AbortController()
  readonly #timer: NodeJS.Timeout | null

  /** `limit`: bytes; null for none. */
  constructor(limit: number | null) {
    this.#limit = limit ?? Infinity
    this.#timer = limit === null ? null : setInterval(() => this.#look(), LOOK_MS)
  }

  #look(): void {
    if (process.memoryUsage.rss() > this.#limit) this.#abort.abort()
  }

  /** Aborted when it had more. */
  get signal(): AbortSignal {
    return this.#abort.signal
  }

  /** Null as long as it never had more. */
  get error(): P2pdmaError | null {
    const peak = peakMemory()
    if (peak <= this.#limit) return null
    return new P2pdmaError(
      `the process had ${mebibytes(peak)} of memory, of ${mebibytes(this.#limit)} that it may have`,
      {
        code: 'ERR_OUT_OF_RANGE',
        argument: 'max-memory',
        hint: 'a smaller --size, fewer --buffers',
      },
    )
  }

  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer)
  }
}

/** What this process may have, and has, as /proc and /sys tell at this moment. */
import { closeSync, openSync, readFileSync, readSync } from 'node:fs'
import { join } from 'node:path'

/** Made beforehand: without a mapping left there may be no memory for the text of them all. */
const piece = Buffer.alloc(1 << 16)
const NEWLINE = 10

/** include/uapi/linux/capability.h. */
const CAP_IPC_LOCK = 14n

export interface HugePages {
  /** Bytes of one. */
  size: number
  total: number
  /** Those that nobody has reserved. */
  free: number
}

export class Machine {
  readonly root: string
  readonly env: Readonly<Record<string, string | undefined>>

  /** Another root and another environment: in tests. */
  constructor(root = '/', env: Readonly<Record<string, string | undefined>> = process.env) {
    this.root = root
    this.env = env
  }

  /** Null where it cannot be read: without a descriptor left, not even this can. */
  read(path: string): string | null {
    try {
      return readFileSync(join(this.root, path), 'utf8')
    } catch {
      return null
    }
  }

  #find(path: string, pattern: RegExp): string | null {
    return pattern.exec(this.read(path) ?? '')?.[1] ?? null
  }

  #number(path: string, pattern: RegExp): number | null {
    const found = this.#find(path, pattern)
    return found === null ? null : Number(found)
  }

  /** A soft limit by its name in /proc/self/limits; null where there is none. */
  limit(name: string): number | null {
    return this.#number('proc/self/limits', new RegExp(`^${name}\\s+(\\d+)`, 'm'))
  }

  /** Bytes, of a line of /proc/self/status that counts kB: fs/proc/task_mmu.c, task_mem(). */
  memory(line: 'VmData' | 'VmLck' | 'VmPin' | 'VmSize'): number {
    return (this.#number('proc/self/status', new RegExp(`^${line}:\\s+(\\d+)`, 'm')) ?? 0) * 1024
  }

  /** Bytes, of a line of /proc/meminfo; null where it is not there. */
  meminfo(line: string): number | null {
    const kilobytes = this.#number('proc/meminfo', new RegExp(`^${line}:\\s+(\\d+) kB`, 'm'))
    return kilobytes === null ? null : kilobytes * 1024
  }

  sysctl(name: string): number | null {
    return this.#number(`proc/sys/${name.replaceAll('.', '/')}`, /^(\d+)/)
  }

  /** Memory mappings of this process: the kernel lists the vsyscall page beside them. */
  get mappings(): number {
    let count = 0
    try {
      const fd = openSync(join(this.root, 'proc/self/maps'), 'r')
      try {
        for (let bytes = 1; bytes > 0;) {
          bytes = readSync(fd, piece, 0, piece.length, null)
          for (let i = 0; i < bytes; i++) if (piece[i] === NEWLINE) count++
        }
      } finally {
        closeSync(fd)
      }
    } catch {
      // As `read`.
    }
    return count
  }

  /** Whether a seccomp filter is in force: include/uapi/linux/seccomp.h, SECCOMP_MODE_FILTER. */
  get isFiltered(): boolean {
    return this.#number('proc/self/status', /^Seccomp:\s+(\d)/m) === 2
  }

  /** Whether no limit of locked memory holds: capable(CAP_IPC_LOCK), which is of the first user namespace. */
  get mayLockAll(): boolean {
    const has = BigInt(`0x${this.#find('proc/self/status', /^CapEff:\s+([0-9a-f]+)/m) ?? '0'}`)
    const isFirst = /^\s*0\s+0\s+4294967295\s*$/.test(this.read('proc/self/uid_map') ?? '')
    return isFirst && ((has >> CAP_IPC_LOCK) & 1n) === 1n
  }

  /** Of a size, or of the default one; null where this kernel has none. */
  hugePages(size?: number): HugePages | null {
    const bytes = size ?? this.meminfo('Hugepagesize')
    if (bytes === null) return null
    const folder = hugeFolder(bytes)
    const count = (name: string) => this.#number(`${folder}/${name}`, /^(\d+)/)
    const total = count('nr_hugepages')
    if (total === null) return null
    const free = (count('free_hugepages') ?? 0) - (count('resv_hugepages') ?? 0)
    // What the kernel would make at once: mm/hugetlb.c, hugetlb_acct_memory().
    const more = (count('nr_overcommit_hugepages') ?? 0) - (count('surplus_hugepages') ?? 0)
    return { size: bytes, total, free: Math.max(0, free + Math.max(0, more)) }
  }
}

/** Where the kernel is told how many huge pages of a size there shall be. */
export const hugeFolder = (size: number) => `/sys/kernel/mm/hugepages/hugepages-${size / 1024}kB`

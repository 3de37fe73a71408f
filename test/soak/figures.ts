/** What a process has, after a collection, as V8 and the kernel count it. */
import { readdirSync, readFileSync } from 'node:fs'
import { getHeapStatistics, setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { Allowed } from './judge.js'
import { parseBufinfo } from '../../lib/smoke/kernel-view.js'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

export interface Figure extends Allowed {
  unit: 'B' | ''
  what: string
}

/**
 * For each move: no object of V8's takes less than 16 bytes, and no piece of malloc's less
 * than 32. Of the others 10^7 moves, a day and a night of a hundred in a second, take 1,000
 * of 1,024 descriptors (RLIMIT_NOFILE) and 10,000 of 65,530 mappings (vm.max_map_count).
 *
 * Once: seen in the first ten thousand moves of runs without a leak, and doubled. V8 keeps
 * what it learns of the code, and the memory of its compilers' threads.
 */
export const FIGURES = {
  rss: { unit: 'B', eachMove: 31, once: 8 << 20, what: 'resident memory (VmRSS)' },
  fds: { unit: '', eachMove: 1e-4, once: 4, what: 'open files (/proc/self/fd)' },
  maps: { unit: '', eachMove: 1e-3, once: 32, what: 'mappings (/proc/self/maps)' },
  heap: { unit: 'B', eachMove: 15, once: 1 << 20, what: 'V8’s heap after a collection' },
  external: { unit: 'B', eachMove: 15, once: 1 << 16, what: 'V8’s buffers outside of its heap' },
  handles: {
    unit: 'B',
    eachMove: 15,
    once: 1 << 14,
    what: 'V8’s global handles, two for a native object',
  },
  threads: { unit: '', eachMove: 1e-4, once: 4, what: 'threads' },
  pinned: { unit: 'B', eachMove: 0, once: 0, what: 'memory pinned for devices (VmPin)' },
  dmaBufs: { unit: '', eachMove: 1e-4, once: 4, what: 'dma-bufs of this machine' },
} as const satisfies Record<string, Figure>

export type Name = keyof typeof FIGURES

/** Null: this machine does not say. */
export type Sample = Record<Name, number | null>

function dmaBufs(): number | null {
  try {
    return parseBufinfo(readFileSync('/sys/kernel/debug/dma_buf/bufinfo', 'utf8')).size
  } catch {
    return null
  }
}

export function sample(): Sample {
  // What one collection lets go of, by a finaliser, the next one takes.
  collect()
  collect()
  const status = readFileSync('/proc/self/status', 'utf8')
  const ofStatus = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1])
  const { heapUsed, external } = process.memoryUsage()
  return {
    rss: ofStatus('VmRSS') * 1024,
    // Not the one that reads them.
    fds: readdirSync('/proc/self/fd').length - 1,
    maps: readFileSync('/proc/self/maps', 'latin1').split('\n').length - 1,
    heap: heapUsed,
    external,
    handles: getHeapStatistics().used_global_handles_size,
    threads: ofStatus('Threads'),
    pinned: ofStatus('VmPin') * 1024,
    dmaBufs: dmaBufs(),
  }
}

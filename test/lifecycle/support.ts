/** What the lifecycle tests share. */
import { readdirSync, readFileSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'

export const PAGE = 4096

export const turn = (ms = 2) => new Promise<void>((resolve) => setTimeout(resolve, ms))

setFlagsFromString('--expose-gc')
export const collect = runInNewContext('gc') as () => void

/** `ok`, or the code of the error it rejects with; what is no typed error shows as it is. */
export async function outcome(work: Promise<unknown>): Promise<string> {
  try {
    await work
    return 'ok'
  } catch (error) {
    const { code } = error as { code?: string }
    return code ?? String(error)
  }
}

export async function firstByte(buffer: MovableBuffer): Promise<number | undefined> {
  return buffer.withCpuAccess('r', (cpu) => cpu.view()[0])
}

/** What can leak: descriptors, threads, mappings of memfds and reserved ranges of them. */
export interface Usage {
  fds: number
  threads: number
  mappings: number
}

export function usage(): Usage {
  return {
    fds: readdirSync('/proc/self/fd').length,
    threads: readdirSync('/proc/self/task').length,
    mappings: readFileSync('/proc/self/maps', 'utf8').split('/memfd:p2pdma').length - 1,
  }
}

/** Collects garbage until `usage()` is back where it was; the test's own timeout ends it. */
export async function back(to: Usage): Promise<Usage> {
  for (;;) {
    collect()
    await turn()
    const now = usage()
    if (now.fds <= to.fds && now.threads <= to.threads && now.mappings <= to.mappings) return now
  }
}

/** Leaks made on purpose, to see them found. */
import { openSync } from 'node:fs'
import { Memfd } from '../../lib/kernel/index.js'

const kept: unknown[] = []

export const LEAKS = {
  fd: () => kept.push(openSync('/dev/null', 'r')),
  map: () => {
    const memfd = Memfd.create(4096)
    kept.push(memfd.map())
    memfd.close()
  },
  /** Outside of V8's heap, and written to, so that it is resident. */
  memory: () => kept.push(new Uint8Array(4096).fill(1)),
  heap: () => kept.push({ since: performance.now() }),
} as const

export type Leak = keyof typeof LEAKS

/** `fd`, or `fd:100` for one at each hundredth move; null for what is neither. */
export function parseLeak(text: string): { leak: Leak; every: number } | null {
  const [, name = '', every = '1'] = /^(\w+)(?::([1-9]\d*))?$/.exec(text) ?? []
  const leak = (Object.keys(LEAKS) as Leak[]).find((each) => each === name)
  return leak === undefined ? null : { leak, every: Number(every) }
}

/** Finds what an error means, and what helps, in the one table of it. */
import type { Failure } from './failure.js'
import { Machine } from './machine.js'
import type { Symptom } from './symptom.js'
import { symptoms } from './table.js'

export interface Explanation {
  hint: string | undefined
  /** The kernel lacks the call. */
  isUnsupported: boolean
}

/** Looks at the machine as it is now: right after the call has failed. */
export function explain(failure: Failure, machine = new Machine()): Explanation {
  const found: { row: Symptom; hint: string | undefined }[] = []
  for (const row of symptoms) {
    if (!row.codes.includes(failure.code)) continue
    if (row.doing !== undefined && !row.doing.includes(failure.doing ?? ('' as never))) continue
    if (row.syscall !== undefined && !row.syscall.test(failure.syscall ?? '')) continue
    const is = row.when?.(failure, machine) ?? true
    if (is === false || is === '') continue
    const own = typeof row.hint === 'function' ? row.hint(failure, machine) : row.hint
    const hint = typeof is === 'string' ? is : own
    if (row.certain === true) return { hint, isUnsupported: row.unsupported === true }
    found.push({ row, hint })
  }
  const hints = new Set(found.flatMap(({ hint }) => (hint === undefined ? [] : [hint])))
  return {
    hint: hints.size === 0 ? undefined : [...hints].join('; or '),
    isUnsupported: found.some(({ row }) => row.unsupported === true),
  }
}

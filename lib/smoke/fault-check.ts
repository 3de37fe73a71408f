/** Whether the fault that was asked for was made, and seen. */
import type { FaultName } from './options.js'
import type { Check } from './scenarios.js'
import type { RunCounts } from './tally.js'

const COUNTED_AS: Readonly<Record<FaultName, keyof RunCounts>> = {
  lost: 'lost',
  doubled: 'doubled',
  torn: 'torn',
  stray: 'strayWrites',
}

/** `made`: how many the device has made. A run that was to make one, and did not, has shown nothing. */
export function checkFault(inject: FaultName, made: number, counts: RunCounts): Check {
  if (made === 0) return { ok: false, name: `the fault was not made: ${inject}` }
  const seen = counts[COUNTED_AS[inject]]
  const name = `the fault was made, and ${seen} ${inject} counted`
  return seen > 0 ? { ok: true, name } : { ok: false, name: `${name}: one would go unnoticed` }
}

/** Turns what the native side found wrong with a row into a typed error. */
import type { Batch } from '../../move-notify/importer/batch.js'
import { PostError } from '../../move-notify/importer/post-error.js'
import type { RegionTable } from './region-table.js'

type Column = 'op' | 'source' | 'target' | 'sourceOffset' | 'targetOffset' | 'length' | 'operand'

/** In the order of `Defect` in native/verbs/rows/check.h. */
const defects: readonly (readonly [column: Column, what: string])[] = [
  ['op', ''],
  ['op', ''],
  ['op', 'must be a known Op'],
  ['length', 'must be a whole number up to MAX, one message'],
  ['sourceOffset', 'must leave LENGTH of the SIZE bytes'],
  ['source', 'must name an attachment that may be read'],
  ['source', 'must name what the peer has granted on this queue'],
  ['targetOffset', 'must leave LENGTH of the SIZE bytes'],
  ['target', 'must name an attachment that may be written'],
  ['target', 'must name what the peer has granted on this queue'],
  ['target', 'and the source: exactly one of them must be a peer’s'],
  ['target', 'must be a peer’s'],
  ['length', 'must be 8'],
  ['targetOffset', 'must be a multiple of 8'],
  ['operand', 'must be a whole number'],
  ['source', 'must be ours'],
  ['target', 'must be ours'],
]
const UNSUPPORTED = 1

/** `defect` is not 0; rows `first` to `first + accepted - 1` have been posted. */
export function rowError(
  table: RegionTable,
  maxMessage: number,
  batch: Batch,
  defect: number,
  first: number,
  accepted: number,
): PostError {
  const row = first + accepted
  const [column, text] = defects[defect] ?? ['op', 'is malformed']
  const argument = `batch.${column}[${row}]`
  if (defect === UNSUPPORTED) {
    return new PostError(
      `${argument}: a NIC neither fills nor does nothing`,
      { code: 'ERR_UNSUPPORTED', argument, hint: 'it does COPY, FETCH_ADD, SEND and RECEIVE' },
      accepted,
    )
  }
  const side = column === 'sourceOffset' ? batch.source : batch.target
  const what = text
    .replace('MAX', String(maxMessage))
    .replace('LENGTH', String(batch.length[row]))
    .replace('SIZE', String(table.sizeOf(side[row] ?? 0)))
  return new PostError(
    `${argument} ${what}, is ${String(batch[column][row])}`,
    { code: 'ERR_INVALID_ARG_VALUE', argument },
    accepted,
  )
}

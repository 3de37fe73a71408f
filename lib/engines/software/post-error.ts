/** Turns what the native `post()` found wrong with a row into a typed error. */
import { type Batch, Op } from '../../move-notify/importer/batch.js'
import { PostError } from '../../move-notify/importer/post-error.js'

/** In the order of `ColumnName` in native/software/channel.h. */
const columnNames = [
  'op',
  'source',
  'target',
  'sourceOffset',
  'targetOffset',
  'length',
  'operand',
] as const

/** In the order of `Defect` in native/software/channel.h. */
const defects = [
  null,
  'must be a known Op',
  'must be a whole number from 0 to 2^53 - 1',
  'with length reaches beyond the end of the attachment',
  'names an attachment without the right to do this',
  'of FETCH_ADD must be a multiple of 8',
  'of FETCH_ADD must be 8',
  'of FILL must be a byte, 0 to 255',
  'with length overlaps the source range of the same attachment',
] as const

/** `defect` is not 0. */
export function postError(
  batch: Batch,
  defect: number,
  columnIndex: number,
  row: number,
  accepted: number,
): PostError {
  const column = columnNames[columnIndex] ?? 'op'
  const argument = `batch.${column}[${row}]`
  const op = batch.op[row]
  if (column === 'op' && (op === Op.SEND || op === Op.RECEIVE)) {
    return new PostError(
      `${argument}: the software engine neither sends nor receives`,
      { code: 'ERR_UNSUPPORTED', argument, hint: 'it does COPY, FILL and FETCH_ADD' },
      accepted,
    )
  }
  const message = `${argument} ${defects[defect] ?? 'is malformed'}, is ${String(batch[column][row])}`
  return new PostError(message, { code: 'ERR_INVALID_ARG_VALUE', argument }, accepted)
}

/** Turns what the native `post()` found wrong with a row into a typed error. */
import { type Batch, Op } from '../../move-notify/importer/batch.js'
import { PostError } from '../../move-notify/importer/post-error.js'
import type { MappingTable } from './mapping-table.js'
import type { RingUse } from './ring-slots.js'

/** In the order of `ColumnName` in native/ring/ring.h. */
const columnNames = ['', 'op', 'id', 'offset', 'length'] as const

/** `column` is not 0; rows `first` to `first + accepted - 1` have been posted. */
export function rowError(
  use: RingUse,
  table: MappingTable,
  batch: Batch,
  column: number,
  first: number,
  accepted: number,
): PostError {
  const row = first + accepted
  const sends = use.op === Op.SEND
  const side = sends ? 'source' : 'target'
  const name = columnNames[column]
  if (name === 'op') return opError(use, row, accepted)
  const { minLength, maxLength } = use.limits
  const length = batch.length[row] ?? NaN
  let argument: string = side
  let what = `must name an attachment that may be ${sends ? 'read' : 'written'}`
  if (name === 'length') {
    argument = 'length'
    what = `must be a whole number from ${minLength} to ${maxLength}, is ${length}`
  } else if (name === 'offset') {
    const size = table.sizes[table.find(batch[side][row] ?? 0)] ?? 0
    argument = `${side}Offset`
    what = `must leave ${length} of the ${size} bytes, is ${batch[`${side}Offset`][row] ?? NaN}`
  }
  argument = `batch.${argument}[${row}]`
  const code = 'ERR_INVALID_ARG_VALUE'
  return new PostError(`${argument} ${what}`, { code, argument }, accepted)
}

function opError({ op, queue }: RingUse, row: number, accepted: number): PostError {
  const argument = `batch.op[${row}]`
  return new PostError(
    `${argument} must be ${op}: the queue ${queue} ${op === Op.SEND ? 'sends' : 'receives'}`,
    { code: 'ERR_UNSUPPORTED', argument, hint: `open a channel on another queue than ${queue}` },
    accepted,
  )
}

/** Turns what the native side found wrong with a row (native/queue/check.h) into a typed error. */
import { RowDefect } from '../../abi.js'
import type { Batch } from '../../move-notify/importer/batch.js'
import { PostError } from '../../move-notify/importer/post-error.js'

/** What a row may be in one engine's queue. */
export interface RowRules {
  /** Of an operation that is not done there. */
  readonly unsupported: { readonly text: string; readonly hint: string }
  /** What lengths may be, as in "must be a whole number from 64 to 1518". */
  readonly lengths: string
  /** What offsets and lengths are a multiple of, bytes; left out: nothing. */
  readonly alignment?: number
  /** Bytes of what an id names; left out: they are not known here. */
  sizeOf?(id: number): number
}

type Column = 'op' | 'source' | 'target' | 'sourceOffset' | 'targetOffset' | 'length' | 'operand'

const WHOLE = 'must be a whole number from 0 to 2^53 - 1'

const texts: Record<number, readonly [column: Column, text: string]> = {
  [RowDefect.UNKNOWN_OP]: ['op', 'must be a known Op'],
  [RowDefect.LENGTH]: ['length', 'must be a whole number LENGTHS'],
  [RowDefect.SOURCE_OFFSET]: ['sourceOffset', WHOLE],
  [RowDefect.TARGET_OFFSET]: ['targetOffset', WHOLE],
  [RowDefect.OPERAND]: ['operand', WHOLE],
  [RowDefect.SOURCE_ACCESS]: ['source', 'must name an attachment that may be read'],
  [RowDefect.SOURCE_BOUNDS]: ['sourceOffset', 'BOUNDS'],
  [RowDefect.TARGET_ACCESS]: ['target', 'must name an attachment that may be written'],
  [RowDefect.TARGET_BOUNDS]: ['targetOffset', 'BOUNDS'],
  [RowDefect.ATOMIC_LENGTH]: ['length', 'of FETCH_ADD must be 8'],
  [RowDefect.ATOMIC_OFFSET]: ['targetOffset', 'of FETCH_ADD must be a multiple of 8'],
  [RowDefect.FILL_OPERAND]: ['operand', 'of FILL must be a byte, 0 to 255'],
  [RowDefect.OVERLAP]: [
    'targetOffset',
    'with length overlaps the source range of the same attachment',
  ],
  [RowDefect.SOURCE_QUEUE]: ['source', 'must name what the peer has granted on this queue'],
  [RowDefect.TARGET_QUEUE]: ['target', 'must name what the peer has granted on this queue'],
  [RowDefect.REMOTES]: ['target', 'and the source: exactly one of them must be a peer’s'],
  [RowDefect.TARGET_OURS]: ['target', 'must be a peer’s'],
  [RowDefect.SOURCE_THEIRS]: ['source', 'must be ours'],
  [RowDefect.TARGET_THEIRS]: ['target', 'must be ours'],
  [RowDefect.SOURCE_ALIGNMENT]: ['sourceOffset', 'must be a multiple of ALIGNMENT'],
  [RowDefect.TARGET_ALIGNMENT]: ['targetOffset', 'must be a multiple of ALIGNMENT'],
  [RowDefect.LENGTH_ALIGNMENT]: ['length', 'must be a multiple of ALIGNMENT'],
  [RowDefect.STORAGE]: ['target', 'or the source, and only one, must be the device’s storage'],
}

/** `defect` is none of `RowDefect.NONE`; rows `first` to `first + accepted - 1` have been posted. */
export function rowError(
  rules: RowRules,
  batch: Batch,
  defect: number,
  first: number,
  accepted: number,
): PostError {
  const row = first + accepted
  if (defect === RowDefect.UNSUPPORTED_OP) {
    const { text, hint } = rules.unsupported
    const argument = `batch.op[${row}]`
    return new PostError(
      `${argument}${text}`,
      { code: 'ERR_UNSUPPORTED', argument, hint },
      accepted,
    )
  }
  const [column, text] = texts[defect] ?? ['op', 'is malformed']
  const argument = `batch.${column}[${row}]`
  const what = text
    .replace('LENGTHS', rules.lengths)
    .replace('ALIGNMENT', String(rules.alignment ?? 1))
    .replace('BOUNDS', bounds(rules, batch, column, row))
  return new PostError(
    `${argument} ${what}, is ${String(batch[column][row])}`,
    { code: 'ERR_INVALID_ARG_VALUE', argument },
    accepted,
  )
}

function bounds(rules: RowRules, batch: Batch, column: Column, row: number): string {
  const side = column === 'sourceOffset' ? batch.source : batch.target
  const size = rules.sizeOf?.(side[row] ?? 0)
  if (size === undefined) return 'with length reaches beyond the end of the attachment'
  return `must leave ${String(batch.length[row])} of the ${size} bytes`
}

/** What a row of a batch may be on a queue pair. */
import { type Batch, Op } from '../../move-notify/batch.js'
import { Access } from '../../move-notify/engine.js'
import { PostError } from '../../move-notify/post-error.js'
import { Reach, type Region, type Regions } from './regions.js'

export interface RowLimits {
  regions: Regions
  queue: object
  /** Bytes. */
  maxMessage: number
}

function malformed(batch: Batch, column: keyof Batch, row: number, accepted: number, what: string) {
  const argument = `batch.${column}[${row}]`
  const value = (batch[column] as Float64Array)[row]
  return new PostError(
    `${argument} ${what}, is ${String(value)}`,
    { code: 'ERR_INVALID_ARG_VALUE', argument },
    accepted,
  )
}

/**
 * True: it can be accepted. False: what it names is not mapped for the moment,
 * or gone, which the heart knows. Throws where it never can.
 */
export function checkRow(limits: RowLimits, batch: Batch, row: number, accepted: number): boolean {
  const op = batch.op[row] ?? 0
  const fail = (column: keyof Batch, what: string) => malformed(batch, column, row, accepted, what)
  if (op === Op.NOP || op === Op.FILL) {
    const argument = `batch.op[${row}]`
    throw new PostError(
      `${argument}: a NIC neither fills nor does nothing`,
      { code: 'ERR_UNSUPPORTED', argument, hint: 'it does COPY, FETCH_ADD, SEND and RECEIVE' },
      accepted,
    )
  }
  if (op > Op.RECEIVE) throw fail('op', 'must be a known Op')
  const length = batch.length[row] ?? NaN
  if (!(Number.isSafeInteger(length) && length >= 0 && length <= limits.maxMessage)) {
    throw fail('length', `must be a whole number up to ${limits.maxMessage}, one message`)
  }
  const { regions } = limits
  const source = op === Op.COPY || op === Op.SEND ? regions.get(batch.source[row] ?? 0) : null
  const target = op === Op.SEND ? null : regions.get(batch.target[row] ?? 0)
  if (source === undefined || target === undefined) return false
  for (const side of [source, target]) if (side !== null && side.reach < Reach.OPEN) return false
  const check = (side: Region, which: 'source' | 'target', wanted: number) => {
    const offset = batch[`${which}Offset`][row] ?? NaN
    if (!(Number.isSafeInteger(offset) && offset >= 0 && offset + length <= side.size)) {
      throw fail(`${which}Offset`, `must leave ${length} of the ${side.size} bytes`)
    }
    if ((side.access & wanted) === 0) {
      throw fail(
        which,
        `must name an attachment that may be ${wanted === Access.READ ? 'read' : 'written'}`,
      )
    }
    if (side.queue !== null && side.queue !== limits.queue) {
      throw fail(which, 'must name what the peer has granted on this queue')
    }
  }
  if (source !== null) check(source, 'source', Access.READ)
  if (target !== null) check(target, 'target', Access.WRITE)
  const remotes =
    (source !== null && source.queue !== null ? 1 : 0) +
    (target !== null && target.queue !== null ? 1 : 0)
  if (op === Op.COPY && remotes !== 1) {
    throw fail('target', 'and the source: exactly one of them must be a peer’s')
  }
  if (op === Op.FETCH_ADD) {
    if (remotes !== 1) throw fail('target', 'must be a peer’s')
    if (length !== 8) throw fail('length', 'must be 8')
    if ((batch.targetOffset[row] ?? 0) % 8 !== 0)
      throw fail('targetOffset', 'must be a multiple of 8')
    const operand = batch.operand[row] ?? NaN
    if (!(Number.isSafeInteger(operand) && operand >= 0))
      throw fail('operand', 'must be a whole number')
  }
  if ((op === Op.SEND || op === Op.RECEIVE) && remotes !== 0) {
    throw fail(op === Op.SEND ? 'source' : 'target', 'must be ours')
  }
  return true
}

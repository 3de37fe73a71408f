/**
 * From rows to descriptors: the part of a channel that runs once per
 * operation. What is the same for all rows is looked up once, and numbers that
 * fit are worked on as 32-bit integers: V8 makes a loop of it that is a few
 * times faster than one over doubles.
 */
import type { Batch } from '../../move-notify/batch.js'
import { Access } from '../../move-notify/engine.js'
import { PostError } from '../../move-notify/post-error.js'
import type { RingQueue } from './driver.js'
import { MappingState, type MappingTable } from './mapping-table.js'

/** By slot of a ring: what was posted there. */
export class RingRows {
  readonly cookies: Float64Array
  readonly ids: Uint32Array
  readonly offsets: Float64Array
  readonly lengths: Float64Array

  constructor(entries: number) {
    this.cookies = new Float64Array(entries)
    this.ids = new Uint32Array(entries)
    this.offsets = new Float64Array(entries)
    this.lengths = new Float64Array(entries)
  }

  move(from: number, to: number): void {
    this.cookies[to] = this.cookies[from] ?? 0
    this.ids[to] = this.ids[from] ?? 0
    this.offsets[to] = this.offsets[from] ?? 0
    this.lengths[to] = this.lengths[from] ?? 0
  }

  /** Moves `count` rows from `head` on, round the end, to the slots from 0 on. */
  rewind(head: number, count: number): void {
    const end = this.ids.length
    const first = Math.min(count, end - head)
    for (const column of [this.cookies, this.ids, this.offsets, this.lengths]) {
      const wrapped = column.slice(0, count - first)
      column.copyWithin(0, head, head + first)
      column.set(wrapped, first)
    }
  }
}

/** Where the rows of a batch are written to. */
export interface RowTarget {
  readonly queue: RingQueue
  readonly rows: RingRows
  readonly table: MappingTable
  readonly isSend: boolean
  /** The ring's entries, less one. */
  readonly mask: number
}

/** How far `writeRows` has come, also when it throws. */
export interface RowsWritten {
  count: number
}

/** Writes the descriptors of rows from `slot` on, until one has to wait; throws at a malformed one. */
export function writeRows(
  target: RowTarget,
  batch: Batch,
  first: number,
  count: number,
  slot: number,
  written: RowsWritten,
): void {
  const { queue, table, isSend, mask } = target
  const { op, limits } = queue
  const { op: ops, length: lengths, cookie: cookies } = batch
  const ids = isSend ? batch.source : batch.target
  const offsets = isSend ? batch.sourceOffset : batch.targetOffset
  const kept = target.rows
  const { ids: keptIds, offsets: keptOffsets, lengths: keptLengths, cookies: keptCookies } = kept
  let id = -1
  let place = 0
  let base = 0
  let size = 0
  let wideLength = NaN
  let length = 0
  for (let i = 0; i < count; i++) {
    const row = first + i
    if (ops[row] !== op) throw opError(queue, isSend, row, i)
    if (ids[row] !== id) {
      id = ids[row] ?? 0
      place = table.find(id)
      if (place < 0 || table.states[place] !== MappingState.OPEN) return
      // Beyond 31 bits, and where it may not be used at all, each row goes the long way.
      size = quickSize(table, place, isSend)
      base = size > 0 ? (table.iovas[place] ?? 0) : 0
    }
    if (lengths[row] !== wideLength) {
      wideLength = lengths[row] ?? NaN
      const fits = wideLength >= limits.minLength && wideLength <= limits.maxLength
      length = fits && Number.isInteger(wideLength) ? wideLength : 0x7fffffff
    }
    const wide = offsets[row] ?? NaN
    const offset = wide | 0
    if (offset === wide && offset >= 0 && offset <= size - length) {
      queue.write(slot, base + offset, length)
    } else {
      checkRow(target, row, i, wide, wideLength, place)
      queue.write(slot, (table.iovas[place] ?? 0) + wide, wideLength)
    }
    keptIds[slot] = id
    keptOffsets[slot] = wide
    keptLengths[slot] = wideLength
    keptCookies[slot] = cookies[row] ?? 0
    slot = (slot + 1) & mask
    written.count = i + 1
  }
}

/** The mapping's size, where all of it lies below 2 GiB and may be used so; else 0. */
function quickSize(table: MappingTable, place: number, isSend: boolean): number {
  const size = table.sizes[place] ?? 0
  const isNear = (table.iovas[place] ?? 0) + size < 2 ** 31
  return isNear && mayUse(table, place, isSend) ? size : 0
}

function mayUse(table: MappingTable, place: number, isSend: boolean): boolean {
  return ((table.access[place] ?? 0) & (isSend ? Access.READ : Access.WRITE)) !== 0
}

function checkRow(
  { queue, table, isSend }: RowTarget,
  row: number,
  accepted: number,
  offset: number,
  length: number,
  place: number,
): void {
  const { minLength, maxLength } = queue.limits
  const side = isSend ? 'source' : 'target'
  const size = table.sizes[place] ?? 0
  let column: string = side
  let what = `must name an attachment that may be ${isSend ? 'read' : 'written'}`
  if (!(Number.isInteger(length) && length >= minLength && length <= maxLength)) {
    column = 'length'
    what = `must be a whole number from ${minLength} to ${maxLength}, is ${length}`
  } else if (!(Number.isInteger(offset) && offset >= 0 && offset + length <= size)) {
    column = `${side}Offset`
    what = `must leave ${length} of the ${size} bytes, is ${offset}`
  } else if (mayUse(table, place, isSend)) return
  const argument = `batch.${column}[${row}]`
  const code = 'ERR_INVALID_ARG_VALUE'
  throw new PostError(`${argument} ${what}`, { code, argument }, accepted)
}

function opError(queue: RingQueue, isSend: boolean, row: number, accepted: number): PostError {
  const argument = `batch.op[${row}]`
  return new PostError(
    `${argument} must be ${queue.op}: the queue ${queue.name} ${isSend ? 'sends' : 'receives'}`,
    {
      code: 'ERR_UNSUPPORTED',
      argument,
      hint: `open a channel on another queue than ${queue.name}`,
    },
    accepted,
  )
}

/** A row of a batch as an object, for devices of tests that keep their work so. */
import { Batch } from '../lib/move-notify/importer/batch.js'

export interface BatchRow {
  readonly op: number
  readonly source: number
  readonly sourceOffset: number
  readonly target: number
  readonly targetOffset: number
  readonly length: number
  readonly operand: number
  readonly cookie: number
}

export function rowOf(batch: Batch, at: number): BatchRow {
  return {
    op: batch.op[at] ?? 0,
    source: batch.source[at] ?? 0,
    sourceOffset: batch.sourceOffset[at] ?? 0,
    target: batch.target[at] ?? 0,
    targetOffset: batch.targetOffset[at] ?? 0,
    length: batch.length[at] ?? 0,
    operand: batch.operand[at] ?? 0,
    cookie: batch.cookie[at] ?? 0,
  }
}

/** These rows, what they leave out being 0; the cookie of each is its place. */
export function batchOf(rows: readonly Partial<BatchRow>[]): Batch {
  const batch = new Batch(rows.length)
  rows.forEach((row, i) => {
    for (const [column, value] of Object.entries({ cookie: i, ...row })) {
      batch[column as keyof BatchRow][i] = value
    }
  })
  return batch
}

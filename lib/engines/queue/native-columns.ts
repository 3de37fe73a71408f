/**
 * Batches and completions as native code knows them: pointers into their
 * columns, handed over when another one is used than the last time.
 */
import { typeError } from '../../errors.js'
import { call } from '../../kernel/call.js'
import { Batch, Completions } from '../../move-notify/importer/batch.js'
import type { NativeColumns } from '../../native.js'

/** None yet; unlike null, nobody can hand it in. */
const NONE = Symbol('none')

export class ColumnsInUse {
  readonly #native: NativeColumns
  #batch: Batch | typeof NONE = NONE
  #completions: Completions | typeof NONE = NONE
  /** Keeps alive the columns that the native side has pointers into. */
  #kept: (readonly NodeJS.TypedArray[])[] = [[], []]

  constructor(native: NativeColumns) {
    this.#native = native
  }

  useBatch(batch: Batch): void {
    if (batch !== this.#batch) this.#handOverBatch(batch)
  }

  #handOverBatch(batch: Batch): void {
    if (!(batch instanceof Batch)) throw typeError('batch', 'a Batch', batch)
    const { capacity, sourceOffset, targetOffset, length, operand, cookie } = batch
    const { source, target, op } = batch
    const columns = [sourceOffset, targetOffset, length, operand, cookie, source, target, op]
    checkColumns('batch', columns)
    call(() =>
      this.#native.useBatch(
        capacity,
        sourceOffset,
        targetOffset,
        length,
        operand,
        cookie,
        source,
        target,
        op,
      ),
    )
    this.#batch = batch
    this.#kept[0] = columns
  }

  useCompletions(out: Completions): void {
    if (out !== this.#completions) this.#handOverCompletions(out)
  }

  #handOverCompletions(out: Completions): void {
    if (!(out instanceof Completions)) throw typeError('out', 'Completions', out)
    const { capacity, cookie, result, status, epoch } = out
    const columns = [cookie, result, status, epoch]
    checkColumns('out', columns)
    call(() => this.#native.useCompletions(capacity, cookie, result, status, epoch))
    this.#completions = out
    this.#kept[1] = columns
  }

  /** The native side is closed, and uses them no more. */
  forget(): void {
    this.#batch = NONE
    this.#completions = NONE
    this.#kept = [[], []]
  }
}

/**
 * Columns lie over one SharedArrayBuffer: the native side keeps pointers into
 * it, so it must be memory that cannot be detached or shrunk. (`buffer` can be
 * overwritten; native/support/column_args.cc, ColumnArg, looks at the memory.)
 */
export function checkColumns(argument: string, columns: readonly NodeJS.TypedArray[]): void {
  const memory: unknown = columns[0]?.buffer
  if (
    !(memory instanceof SharedArrayBuffer) ||
    columns.some((column) => !ArrayBuffer.isView(column) || column.buffer !== memory)
  ) {
    throw typeError(argument, 'columns over one SharedArrayBuffer', memory)
  }
}

import { typeError } from '../../errors.js'

/**
 * Columns lie over one SharedArrayBuffer: the native side keeps pointers into
 * it, so it must be memory that cannot be detached or shrunk. (`buffer` can be
 * overwritten; native/software/software.cc, ColumnArg, looks at the memory.)
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

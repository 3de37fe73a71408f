import { typeError } from '../../errors.js'

/**
 * The one SharedArrayBuffer under all of these columns. The native side keeps
 * pointers into it, so it must be memory that cannot be detached or shrunk.
 */
export function sharedColumns(
  argument: string,
  columns: readonly NodeJS.TypedArray[],
): SharedArrayBuffer {
  const memory: unknown = columns[0]?.buffer
  if (
    !(memory instanceof SharedArrayBuffer) ||
    columns.some((column) => !ArrayBuffer.isView(column) || column.buffer !== memory)
  ) {
    throw typeError(argument, 'columns over one SharedArrayBuffer', memory)
  }
  return memory
}

/** Columns that native code has pointers into: memory that cannot be detached. */
import { sharedMemory } from '../../shared-memory.js'

export type SharedColumn = Float64Array | Uint32Array | Uint8Array

interface ColumnType<T extends SharedColumn> {
  new (memory: SharedArrayBuffer): T
  readonly BYTES_PER_ELEMENT: number
}

export function sharedColumn<T extends SharedColumn>(length: number, type: ColumnType<T>): T {
  return new type(sharedMemory(length * type.BYTES_PER_ELEMENT))
}

/** A copy with room for `length` elements. */
export function grownColumn<T extends SharedColumn>(
  column: T,
  length: number,
  type: ColumnType<T>,
): T {
  const grown = sharedColumn(length, type)
  grown.set(column)
  return grown
}

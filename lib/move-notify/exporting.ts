/** What the heart gets from an exporter, which may be anybody's. */
import { P2pdmaError, checkInteger, typeError } from '../errors.js'
import type { Backing, Exporter } from './backing.js'

export function checkExporter(exporter: unknown): void {
  if (typeof (exporter as Partial<Exporter> | null | undefined)?.allocate !== 'function') {
    throw typeError('exporter', 'an Exporter', exporter)
  }
}

/** Allocates; ERR_INVALID_RETURN_VALUE where that gave no backing of at least `size` bytes. */
export async function allocate(exporter: Exporter, size: number): Promise<Backing> {
  checkExporter(exporter)
  checkInteger('size', size, 1)
  const backing = await exporter.allocate(size)
  const { copyFrom, free, size: bytes } = (backing ?? {}) as Partial<Backing>
  const isBacking = typeof copyFrom === 'function' && typeof free === 'function'
  if (isBacking && typeof bytes === 'number' && bytes >= size) return backing
  if (isBacking) await backing.free()
  throw new P2pdmaError(`the exporter gave no backing of ${size} bytes`, {
    code: 'ERR_INVALID_RETURN_VALUE',
    argument: 'exporter',
  })
}

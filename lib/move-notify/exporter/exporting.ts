/** What the heart gets from an exporter, which may be anybody's. */
import { P2pdmaError, checkInteger, looksLike, typeError } from '../../errors.js'
import type { Backing, Exporter } from './backing.js'

/** What the heart asks of one without asking whether it is there. */
const BACKING = {
  placement: 'string',
  size: 'number',
  copyFrom: 'function',
  openCpuWindow: 'function',
  poison: 'function',
  countStrayWrites: 'function',
  free: 'function',
} as const

export function checkExporter(exporter: unknown): void {
  if (!looksLike(exporter, { placement: 'string', allocate: 'function' })) {
    throw typeError('exporter', 'an Exporter', exporter)
  }
}

export function checkBacking(argument: string, backing: unknown): void {
  if (!looksLike(backing, BACKING)) throw typeError(argument, 'a Backing', backing)
}

/** Allocates; ERR_INVALID_RETURN_VALUE where that gave no backing of at least `size` bytes. */
export async function allocate(exporter: Exporter, size: number): Promise<Backing> {
  checkExporter(exporter)
  checkInteger('size', size, 1)
  const backing = await exporter.allocate(size)
  if (looksLike(backing, BACKING) && backing.size >= size) return backing
  if (looksLike(backing, { free: 'function' })) await backing.free()
  throw new P2pdmaError(`the exporter gave no backing of ${size} bytes`, {
    code: 'ERR_INVALID_RETURN_VALUE',
    argument: 'exporter',
  })
}

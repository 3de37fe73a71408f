import type { Exporter } from './backing.js'
import { checkArray, checkInteger, typeError } from '../../errors.js'
import { checkExporter } from './exporting.js'
import { isRefusal } from './refusal.js'
import { MovableBuffer } from './movable-buffer.js'

/**
 * Moves buffers to `exporter` until `bytes` bytes have been made free, in the
 * order given (least recently used first). Pinned ones stay, and those that an
 * importer could not map there; hinted ones go only when the others are not enough. Returns the bytes made free.
 */
export async function evict(
  candidates: readonly MovableBuffer[],
  exporter: Exporter,
  bytes: number,
): Promise<number> {
  for (const each of checkArray('candidates', candidates)) {
    if (!(each instanceof MovableBuffer)) throw typeError('candidates', 'MovableBuffers', each)
  }
  checkExporter(exporter)
  checkInteger('bytes', bytes)
  let freed = 0
  for (const hinted of [false, true]) {
    for (const buffer of candidates) {
      if (freed >= bytes) return freed
      if (buffer.isHinted !== hinted || buffer.isPinned || buffer.isClosed) continue
      if (buffer.placement === exporter.placement) continue
      try {
        await buffer.move(exporter)
      } catch (error) {
        // Pinned in the meantime, or an importer cannot follow: it stays.
        if ((error as { code?: unknown }).code === 'EBUSY' && buffer.isPinned) continue
        if (isRefusal(error)) continue
        throw error
      }
      freed += buffer.size
    }
  }
  return freed
}

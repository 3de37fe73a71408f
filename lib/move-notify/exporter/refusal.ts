/** Where a buffer may live: only where every device that has it mapped can map it. */
import { constants } from 'node:os'
import { P2pdmaError } from '../../errors.js'
import type { AttachOps } from './attach-ops.js'
import type { Backing } from './backing.js'

/** By the error alone one could not tell a refused place from memory that cannot be had there. */
const refusals = new WeakSet<object>()

/**
 * The answer of the first importer that would lose its mapping, or null. The code is that
 * of xe_dma_buf_attach() and xe_dma_buf_map() (drivers/gpu/drm/xe/xe_dma_buf.c), where an
 * importer does not reach the place.
 */
export function refusalOf(attachments: readonly AttachOps[], backing: Backing): P2pdmaError | null {
  for (const attachment of attachments) {
    // One that has none has none to lose.
    if (attachment.isGone) continue
    const reason = attachment.refusal(backing)
    if (reason !== null) return cannotMap(attachment, backing, reason)
  }
  return null
}

export function cannotMap(
  { importer }: AttachOps,
  { placement }: Backing,
  reason: string,
): P2pdmaError {
  const error = new P2pdmaError(
    `${importer.name} cannot map the buffer in ${placement}: ${reason}`,
    {
      code: 'EOPNOTSUPP',
      errno: -constants.errno.EOPNOTSUPP,
      argument: 'exporter',
      hint: 'move it elsewhere, or close that attachment, or move with { force: true }: then the attachment fails until a later move',
    },
  )
  refusals.add(error)
  return error
}

/** Whether an importer cannot follow, and nothing has been stopped or tried. */
export function isRefusal(error: unknown): boolean {
  return typeof error === 'object' && error !== null && refusals.has(error)
}

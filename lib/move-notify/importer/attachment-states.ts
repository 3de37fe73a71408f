/**
 * The attachment's states and events, as one table. What is not in it is illegal.
 */
import type { Transitions } from './state-table.js'

export type AttachmentState =
  /** Its mapping is live. */
  | 'mapped'
  /** Its mapping is gone or going: on the invalid list until it is remapped. */
  | 'invalid'
  /**
   * It could not be remapped: work that names it is rejected with the reason. Tried again
   * after the buffer's next move, unless the importer itself has failed.
   */
  | 'failed'
  /** Its exporter took the memory back for good. */
  | 'revoked'
  | 'closed'

/** `idle`: invalid, and no channel stopped for it, so that it is remapped by itself. */
export type AttachmentTableState = AttachmentState | 'idle'

export type AttachmentEvent =
  /**
   * Step 1, and channels stop for it: they will remap it (3.2). Of one that has failed: the
   * buffer has moved, and what could not be mapped where it was may be here.
   */
  | 'invalidate'
  /** As that, and nobody uses it; or those that stopped for it are no more. */
  | 'idle'
  /** Its new mapping is live, and the move fences have signalled (3.2). */
  | 'validate'
  | 'fail'
  | 'revoke'
  | 'close'

export const attachmentTransitions: Transitions<AttachmentTableState, AttachmentEvent> = {
  idle: { validate: 'mapped', fail: 'failed', revoke: 'revoked', close: 'closed' },
  mapped: {
    invalidate: 'invalid',
    idle: 'idle',
    fail: 'failed',
    revoke: 'revoked',
    close: 'closed',
  },
  invalid: {
    validate: 'mapped',
    idle: 'idle',
    fail: 'failed',
    revoke: 'revoked',
    close: 'closed',
  },
  // The first reason stays.
  failed: {
    invalidate: 'invalid',
    idle: 'idle',
    fail: 'failed',
    revoke: 'failed',
    close: 'closed',
  },
  revoked: { fail: 'revoked', revoke: 'revoked', close: 'closed' },
  closed: { fail: 'closed', revoke: 'closed', close: 'closed' },
}

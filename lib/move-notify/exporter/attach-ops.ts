import type { P2pdmaError } from '../../errors.js'
import type { Backing, Copy } from './backing.js'

/**
 * An attachment as its buffer sees it: the importer's `Attachment`. What the buffer asks of it
 * is the kernel's dma_buf_attach_ops (include/linux/dma-buf.h), and all of it is asked under
 * the buffer's reservation. The exporter's side knows no more of an importer.
 */
export interface AttachOps {
  readonly importer: { readonly name: string }
  /** What a `Batch` names it by. */
  readonly id: number
  /** Bytes. */
  readonly size: number
  /** `Access` bits. */
  readonly access: number
  /** `mapped`, `invalid`, `failed`, `revoked` or `closed`; see `AttachmentState`. */
  readonly state: string
  /** The generation of the buffer that the device sees; 0 while it sees none. */
  readonly generation: number
  /** Why it is failed, revoked or closed; null otherwise. */
  readonly error: P2pdmaError | null
  /** Whether it is failed, revoked or closed: nothing is under way that would map it. */
  readonly isGone: boolean
  /** Lets go of the buffer. */
  close(): Promise<void>

  /** Next in the buffer's list. @internal */
  next: AttachOps | null
  /** Why the device cannot map `backing`, ever; null where it can (peer2peer, and more). @internal */
  refusal(backing: Backing): string | null
  /** How the device copies from one backing to another; null where it cannot. @internal */
  copyBetween(source: Backing, target: Backing): Copy | null
  /**
   * The mapping must go (invalidate_mappings, formerly move_notify). Done, at once (undefined)
   * or when it resolves, when the device reaches the old backing no more. Waits for nothing but
   * the device and its deadline; rejects where even that cannot be had. @internal
   */
  invalidate(): Promise<void> | undefined
  /** The buffer has moved: what could not be mapped where it was may be here. @internal */
  retry(): void
  /** There will be no mapping until the next move, for this reason. @internal */
  fail(error: P2pdmaError): void
  /** Invalidates it with no way back. @internal */
  detach(event: 'revoke' | 'close', error: P2pdmaError): Promise<void>
}

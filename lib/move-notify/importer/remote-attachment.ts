import { brand, notOwn } from '../../brand.js'
import type { P2pdmaError } from '../../errors.js'
import { closedError } from '../../errors.js'
import type { Attachment } from './attachment.js'
import type { Importer } from './importer.js'

/**
 * A peer's buffer that we hold a key to. Work names it as it names an
 * attachment; the device reaches it through the peer's, by a key that dies when
 * the peer moves the buffer. While it does, the engine holds back what names it.
 * Or what the device has itself, a drive's storage: that moves never.
 */
export class RemoteAttachment {
  static {
    brand(this, RemoteAttachment.is, { hot: ['state', 'error'], promising: ['close'] })
  }

  /** As `instanceof`, for the path of each operation. @internal */
  static is(this: void, value: unknown): value is RemoteAttachment {
    return typeof value === 'object' && value !== null && #state in value
  }

  readonly importer: Importer
  /** What a `Batch` names it by; never names another one later. */
  readonly id: number
  /** Bytes. */
  readonly size: number
  /** `Access` bits: what the peer lets us do. */
  readonly access: number
  #state: 'mapped' | 'revoked' | 'closed' = 'mapped'
  #error: P2pdmaError | null = null
  readonly #onClose: () => void

  /** @internal Use the engine's. */
  constructor(importer: Importer, id: number, options: RemoteOptions) {
    this.importer = importer
    this.id = id
    this.size = options.size
    this.access = options.access
    this.#onClose = options.onClose
  }

  get state(): 'mapped' | 'revoked' | 'closed' {
    if (!RemoteAttachment.is(this)) throw notOwn('RemoteAttachment', this)
    return this.#state
  }

  /** Why it is revoked or closed; null while it can be used. */
  get error(): P2pdmaError | null {
    if (!RemoteAttachment.is(this)) throw notOwn('RemoteAttachment', this)
    return this.#error
  }

  /** @internal */
  get lastError(): P2pdmaError | null {
    return this.#error
  }

  /** There is no key any more; work that names it and waits is rejected. @internal */
  end(state: 'revoked' | 'closed', error: P2pdmaError): void {
    if (this.#state === 'closed') return
    this.#error ??= error
    this.#state = state
    this.importer.attachmentChanged(this)
    if (state !== 'closed') return
    this.importer.forgetRemote(this)
    this.#onClose()
  }

  /** Work in flight completes; work that waits is rejected with ERR_CLOSED. Idempotent. */
  close(): Promise<void> {
    this.end('closed', closedError('the attachment'))
    return Promise.resolve()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

/** What an operation may name. */
export type AnyAttachment = Attachment | RemoteAttachment

/** @internal */
export interface RemoteOptions {
  size: number
  access: number
  /** Called once, after the close. */
  onClose: () => void
}

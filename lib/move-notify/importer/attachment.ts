import { brand, notOwn } from '../../brand.js'
import type { P2pdmaError } from '../../errors.js'
import { closedError } from '../../errors.js'
import type { Channel } from './channel.js'
import type { Importer } from './importer.js'
import type { MovableBuffer } from '../exporter/movable-buffer.js'
import { trace } from '../trace.js'
import type { AttachmentRestore } from '../trace.js'

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

/** One importer's hold on one buffer. Work names it and an offset, never an address. */
export class Attachment {
  static {
    brand(this, Attachment.is, {
      hot: ['size', 'state', 'error', 'generation'],
      promising: ['close'],
    })
  }

  /** As `instanceof`, for the path of each operation. @internal */
  static is(this: void, value: unknown): value is Attachment {
    return typeof value === 'object' && value !== null && #state in value
  }

  readonly importer: Importer
  readonly buffer: MovableBuffer
  /** What a `Batch` names it by; never names another attachment later. */
  readonly id: number
  /** `Access` bits. */
  readonly access: number
  #state: AttachmentState = 'invalid'
  #generation = 0
  #error: P2pdmaError | null = null
  #lastError: P2pdmaError | null = null
  /** The channels that stopped for it, while it is invalid. */
  #blocked: Channel[] | null = null
  #isOutOfReach = true
  /** Next in the buffer's list. @internal */
  next: Attachment | null = null

  /** @internal */
  constructor(importer: Importer, buffer: MovableBuffer, id: number, access: number) {
    this.importer = importer
    this.buffer = buffer
    this.id = id
    this.access = access
  }

  /** Bytes. */
  get size(): number {
    if (!Attachment.is(this)) throw notOwn('Attachment', this)
    return this.buffer.size
  }

  get state(): AttachmentState {
    if (!Attachment.is(this)) throw notOwn('Attachment', this)
    return this.#state
  }

  /** The generation of the buffer that the device sees; 0 while it sees none. */
  get generation(): number {
    if (!Attachment.is(this)) throw notOwn('Attachment', this)
    return this.#generation
  }

  /** Why it is failed, revoked or closed; null otherwise. */
  get error(): P2pdmaError | null {
    if (!Attachment.is(this)) throw notOwn('Attachment', this)
    return this.#error
  }

  /** Why it was without a mapping last: for work that the device held meanwhile. @internal */
  get lastError(): P2pdmaError | null {
    return this.#lastError
  }

  /** Whether it is failed, revoked or closed: nothing is under way that would map it. */
  get isGone(): boolean {
    return this.#error !== null
  }

  /**
   * Whether every channel could be stopped for it. If not, some device may
   * reach its memory for ever, though its own importer be sound.
   * @internal
   */
  get isOutOfReach(): boolean {
    return this.#isOutOfReach
  }

  /**
   * Step 1 of the mail, as the exporter's call; under the buffer's reservation.
   * Seals the mapping, stops the channels that use it and unmaps. Waits for
   * nothing but the drain of those channels. Undefined when done at once.
   * @internal
   */
  invalidate(): Promise<void> | undefined {
    if (this.#state !== 'mapped') return undefined
    const { importer } = this
    importer.engine.seal(this.id)
    this.#state = 'invalid'
    const stopping = this.#stopUsers()
    if (stopping === null) {
      const unmapped = this.#unmap()
      importer.restoreIdle(this)
      return unmapped
    }
    if (stopping.length === 0) return this.#unmap()
    return Promise.all(stopping).then(
      () => this.#unmap(),
      (error: unknown) => {
        this.#isOutOfReach = false
        throw error
      },
    )
  }

  /** What is waited for until they are quiet; null where nobody uses it. */
  #stopUsers(): Promise<void>[] | null {
    const users = this.importer.usersOf(this)
    if (users.length === 0) return null
    this.#blocked = users
    const stopping: Promise<void>[] = []
    for (const channel of users) {
      const stopped = channel.stopFor(this)
      if (stopped !== undefined) stopping.push(stopped)
    }
    return stopping
  }

  #unmap(): Promise<void> | undefined {
    this.#generation = 0
    return this.importer.unmap(this.id)
  }

  /** The buffer has moved: what could not be mapped where it was may be here. @internal */
  retry(): void {
    if (this.#state !== 'failed' || this.importer.error !== null) return
    this.#state = 'invalid'
    this.#error = null
    // A channel that is stopped still holds work that names it: restarted now, it would do
    // that work by the new mapping, whose move fence is outstanding.
    if (this.#stopUsers() === null) this.importer.restoreIdle(this)
  }

  /** The mapping of `generation` is live and its fences have signalled. @internal */
  validate(generation: number): void {
    this.#generation = generation
    this.#state = 'mapped'
    this.importer.engine.unseal(this.id)
    this.#release()
    this.#publish(null)
  }

  /** There will be no mapping any more; work that names it is rejected. @internal */
  end(state: 'failed' | 'revoked' | 'closed', error: P2pdmaError): void {
    if (this.#error !== null) {
      // The first reason stays; only a close still changes the state.
      if (state === 'closed') this.#state = state
      return
    }
    this.#state = state
    this.#error = error
    this.#lastError = error
    this.#release()
    if (state === 'failed') this.#publish(error)
  }

  #release(): void {
    const blocked = this.#blocked
    this.#blocked = null
    if (blocked !== null) for (const channel of blocked) channel.unblock(this)
    this.importer.attachmentChanged(this)
  }

  /** A channel that stopped for it is no more; somebody else has to remap it. @internal */
  abandonedBy(channel: Channel): void {
    const others = this.#blocked?.filter((each) => each !== channel) ?? []
    this.#blocked = others.length > 0 ? others : null
    if (others.length === 0 && this.#state === 'invalid') this.importer.restoreIdle(this)
  }

  #publish(error: Error | null): void {
    if (!trace.restore.hasSubscribers) return
    trace.restore.publish({
      importer: this.importer.name,
      attachment: this.id,
      generation: this.#generation,
      error,
    } satisfies AttachmentRestore)
  }

  /**
   * Lets go: stops the channels that use it, unmaps, and restarts them.
   * Work in flight completes; work that waits is rejected with ERR_CLOSED.
   */
  close(): Promise<void> {
    return this.importer.detach(this)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

export function attachmentClosed(): P2pdmaError {
  return closedError('the attachment')
}

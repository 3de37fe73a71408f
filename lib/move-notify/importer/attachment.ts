import { brand, notOwn } from '../../brand.js'
import { P2pdmaError, closedError } from '../../errors.js'
import {
  type AttachmentEvent,
  type AttachmentState,
  type AttachmentTableState,
  attachmentTransitions,
} from './attachment-states.js'
import type { Channel } from './channel.js'
import type { Importer } from './importer.js'
import type { AttachOps } from '../exporter/attach-ops.js'
import type { Backing, Copy } from '../exporter/backing.js'
import { copyOf } from './engine-copy.js'
import type { MovableBuffer } from '../exporter/movable-buffer.js'
import { invalidate, restoreIdle, retry } from './restart.js'
import { follow } from './state-table.js'
import { trace } from '../trace.js'
import type { AttachmentRestore } from '../trace.js'

export type { AttachmentState } from './attachment-states.js'

/** One importer's hold on one buffer. Work names it and an offset, never an address. */
export class Attachment implements AttachOps {
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
  #state: AttachmentTableState = 'idle'
  #generation = 0
  #error: P2pdmaError | null = null
  #lastError: P2pdmaError | null = null
  /** The channels that stopped for it, while it is invalid. */
  #blocked: Channel[] | null = null
  /**
   * Whether every channel could be stopped for it. If not, some device may
   * reach its memory for ever, though its own importer be sound.
   * @internal
   */
  isOutOfReach = true
  /** Next in the buffer's list. @internal */
  next: AttachOps | null = null

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
    return this.#state === 'idle' ? 'invalid' : this.#state
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

  /** @internal */
  refusal(backing: Backing): string | null {
    return this.importer.engine.capabilities.canMap?.(backing, this.access) ?? null
  }

  /** @internal */
  copyBetween(source: Backing, target: Backing): Copy | null {
    const { engine, shared, error } = this.importer
    return error === null ? copyOf(engine, shared.ids, source, target) : null
  }

  /** @internal */
  invalidate(): Promise<void> | undefined {
    return invalidate(this)
  }

  /** Steps 0 and 1: it has no mapping any more; `users` stop for it. @internal */
  invalidated(users: Channel[]): void {
    if (users.length === 0) return this.#transition('idle')
    this.#transition('invalidate')
    this.#blocked = users
  }

  /** Step 1.3: its generation is dead. @internal */
  unmapped(): void {
    this.#generation = 0
  }

  /** The buffer has moved: what could not be mapped where it was may be here. Under its reservation. @internal */
  retry(): void {
    this.#assertHeld('a mapping is tried again')
    if (this.#state !== 'failed' || this.importer.error !== null) return
    this.#error = null
    retry(this)
  }

  /** The mapping of `generation` is live and its fences have signalled. Under the reservation. @internal */
  validate(generation: number): void {
    this.#assertHeld('a mapping is made valid')
    const isIdle = this.#state === 'idle'
    this.#transition('validate')
    this.#generation = generation
    this.importer.engine.unseal(this.id)
    this.#release()
    this.#publish(isIdle, null)
  }

  /** There will be no mapping any more; work that names it is rejected. @internal */
  end(event: 'fail' | 'revoke' | 'close', error: P2pdmaError): void {
    const isIdle = this.#state === 'idle'
    this.#transition(event)
    // The first reason stays.
    if (this.#error !== null) return
    this.#error = error
    this.#lastError = error
    this.#release()
    if (event === 'fail') this.#publish(isIdle, error)
  }

  /** @internal */
  fail(error: P2pdmaError): void {
    this.end('fail', error)
  }

  /** Under the buffer's reservation. @internal */
  async detach(event: 'revoke' | 'close', error: P2pdmaError): Promise<void> {
    this.#assertHeld('an attachment is detached')
    if (this.#state === 'closed') return
    try {
      await this.invalidate()
    } finally {
      this.end(event, error)
      if (event === 'close') {
        this.buffer.unlink(this)
        this.importer.forget(this)
      }
    }
  }

  #assertHeld(what: string): void {
    this.buffer.reservation.assertHeld(what)
  }

  #release(): void {
    const blocked = this.#blocked
    this.#blocked = null
    if (blocked !== null) for (const channel of blocked) channel.machine.unblock(this)
    this.importer.attachmentChanged(this)
  }

  /** A channel that stopped for it is no more; somebody else has to remap it. @internal */
  abandonedBy(channel: Channel): void {
    const others = this.#blocked?.filter((each) => each !== channel) ?? []
    this.#blocked = others.length > 0 ? others : null
    if (others.length > 0 || this.#state !== 'invalid') return
    this.#transition('idle')
    restoreIdle(this)
  }

  #transition(event: AttachmentEvent): void {
    this.#state = follow('attachment', attachmentTransitions, this.#state, event)
  }

  #publish(idle: boolean, error: Error | null): void {
    if (!trace.restore.hasSubscribers) return
    trace.restore.publish({
      importer: this.importer.name,
      attachment: this.id,
      generation: this.#generation,
      idle,
      error,
    } satisfies AttachmentRestore)
  }

  /**
   * Lets go: stops the channels that use it, unmaps, and restarts them.
   * Work in flight completes; work that waits is rejected with ERR_CLOSED.
   */
  async close(): Promise<void> {
    const { reservation } = this.buffer
    await reservation.lock()
    try {
      await this.detach('close', attachmentClosed())
    } finally {
      reservation.unlock()
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

export function attachmentClosed(): P2pdmaError {
  return closedError('the attachment')
}

/** Why it could not be mapped again. */
export function remapError(cause: unknown): P2pdmaError {
  const { message, code } = cause as { message?: string; code?: string }
  if (code === 'ERR_FENCE_FAILED' || code === 'ETIMEDOUT') return cause as P2pdmaError
  return new P2pdmaError(`the attachment could not be mapped again: ${message}`, {
    code: 'ERR_REMAP_FAILED',
    hint: 'the buffer is whole; it is tried again after its next move, or attach it again',
    cause,
  })
}

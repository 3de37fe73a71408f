import { brand, notOwn } from '../../brand.js'
import {
  P2pdmaError,
  isDeviceLost,
  checkInteger,
  checkOptions,
  checkSignal,
  closedError,
  looksLike,
  typeError,
} from '../../errors.js'
import { Attachment, attachmentClosed } from './attachment.js'
import { Channel } from './channel.js'
import type { ChannelOptions, ChannelStats } from './channel.js'
import { engineMap, engineUnmap } from './engine-mapping.js'
import { Access } from './engine.js'
import type { Engine } from './engine.js'
import { MovableBuffer } from '../exporter/movable-buffer.js'
import type { Completion, OperationOptions } from './operation.js'
import { quarantine } from '../exporter/quarantine.js'
import { Usage } from '../reservation/reservation.js'
import { type AnyAttachment, RemoteAttachment, type RemoteOptions } from './remote-attachment.js'
import { Slice } from '../reservation/slice.js'
import { type ImporterOptions, type ImporterLimits, checkImporterLimits } from './limits.js'
import { type Shared, sharedOf } from './shared.js'

export type { ImporterOptions } from './limits.js'

export interface AttachOptions {
  /** What the device may do: `Access` bits. Default both. */
  access?: number
  signal?: AbortSignal | undefined
}

/** What an importer asks of one without asking whether it is there. */
const ENGINE = {
  name: 'string',
  capabilities: 'object',
  openChannel: 'function',
  map: 'function',
  seal: 'function',
  unseal: 'function',
  unmap: 'function',
} as const

let importers = 0

/** A device's side of the sharing. Owns its channels and attachments. */
export class Importer {
  static {
    brand(this, Importer.is, {
      hot: ['error', 'checkAttachment', 'checkRange', 'attachmentNamed'],
      promising: ['copy', 'fill', 'fetchAdd', 'send', 'receive', 'close'],
    })
  }

  /** As `instanceof`, for the path of each operation. @internal */
  static is(this: void, value: unknown): value is Importer {
    return typeof value === 'object' && value !== null && #channels in value
  }

  readonly engine: Engine
  /** In diagnostics: the engine's name and a number. */
  readonly name: string
  /** @internal */
  readonly limits: ImporterLimits
  /** With the other importers of the engine. @internal */
  readonly shared: Shared<AnyAttachment, Importer, Channel>
  #channels: Channel[] = []
  #nextChannel = 0
  /** Its own channels, one for each queue of its device, opened when first used. */
  readonly #defaults = new Map<string | undefined, Channel>()
  #error: Error | null = null
  #closing: Promise<void> | null = null
  #attached = 0

  constructor(engine: Engine, options: ImporterOptions = {}) {
    if (!looksLike(engine, ENGINE)) throw typeError('engine', 'an Engine', engine)
    this.limits = checkImporterLimits(options)
    this.engine = engine
    this.shared = sharedOf(engine) as Shared<AnyAttachment, Importer, Channel>
    this.name = `${engine.name}#${importers++}`
    this.shared.importers.add(this)
  }

  /** Attachments alive. */
  get size(): number {
    return this.#attached
  }

  /** Why it failed or is closed; null while it works. */
  get error(): Error | null {
    if (!Importer.is(this)) throw notOwn('Importer', this)
    return this.#error ?? (this.#closing === null ? null : closedError('the importer'))
  }

  get channels(): readonly Channel[] {
    return this.#channels
  }

  /** Opens one more channel. */
  channel(options: ChannelOptions = {}): Channel {
    this.#checkUsable()
    const channel = new Channel(this, this.#nextChannel, options, this.limits)
    this.#nextChannel++
    this.#channels.push(channel)
    return channel
  }

  #defaultChannel(queue?: string): Channel {
    this.#checkUsable()
    const known = this.#defaults.get(queue)
    if (known !== undefined && known.state !== 'closed') return known
    const channel = this.channel({ queue })
    this.#defaults.set(queue, channel)
    return channel
  }

  /** The channels' counters, added up over those open now. */
  get stats(): ChannelStats {
    const total: ChannelStats = {
      stops: 0,
      forcedStops: 0,
      parked: 0,
      waiting: 0,
      inFlight: 0,
      staleCompletions: 0,
      unmatchedCompletions: 0,
    }
    for (const channel of this.#channels) {
      const stats = channel.stats
      for (const key of Object.keys(total) as (keyof ChannelStats)[]) total[key] += stats[key]
    }
    return total
  }

  /** `Channel.copy` on the importer's default channel. */
  copy(
    source: AnyAttachment,
    sourceOffset: number,
    target: AnyAttachment,
    targetOffset: number,
    length: number,
    options?: OperationOptions,
  ): Promise<Completion> {
    const channel = this.#defaultChannel()
    return channel.copy(source, sourceOffset, target, targetOffset, length, options)
  }

  /** `Channel.fill` on the importer's default channel. */
  fill(
    target: AnyAttachment,
    targetOffset: number,
    length: number,
    byte: number,
    options?: OperationOptions,
  ): Promise<Completion> {
    return this.#defaultChannel().fill(target, targetOffset, length, byte, options)
  }

  /** `Channel.fetchAdd` on the importer's default channel. */
  fetchAdd(
    target: AnyAttachment,
    targetOffset: number,
    value: number,
    options?: OperationOptions,
  ): Promise<Completion> {
    return this.#defaultChannel().fetchAdd(target, targetOffset, value, options)
  }

  /** `Channel.send` on the importer's default channel of the queue `tx`. */
  send(
    source: Attachment,
    offset: number,
    length: number,
    options?: OperationOptions,
  ): Promise<Completion> {
    return this.#defaultChannel('tx').send(source, offset, length, options)
  }

  /** `Channel.receive` on the importer's default channel of the queue `rx`. */
  receive(
    target: Attachment,
    offset: number,
    length: number,
    options?: OperationOptions,
  ): Promise<Completion> {
    return this.#defaultChannel('rx').receive(target, offset, length, options)
  }

  /** Attaches a buffer and maps it (dma_buf_dynamic_attach, dma_buf_map_attachment). */
  async attach(buffer: MovableBuffer, options: AttachOptions = {}): Promise<Attachment> {
    if (!(buffer instanceof MovableBuffer)) throw typeError('buffer', 'a MovableBuffer', buffer)
    checkSignal(checkOptions(options).signal)
    const access = checkInteger('access', options.access ?? Access.READ | Access.WRITE, 1, 3)
    this.#checkUsable()
    await lockBuffer(buffer, options.signal)
    try {
      this.#checkUsable()
      buffer.checkUsable()
      if (!buffer.reservation.isIdle(Usage.KERNEL)) {
        const timeoutMs = this.limits.fenceTimeoutMs
        await buffer.reservation.wait(Usage.KERNEL, { signal: options.signal, timeoutMs })
      }
      return await this.#attachLocked(buffer, access)
    } finally {
      buffer.reservation.unlock()
    }
  }

  /** Under the buffer's reservation. */
  async #attachLocked(buffer: MovableBuffer, access: number): Promise<Attachment> {
    buffer.reservation.assertHeld('a buffer is attached')
    this.#checkUsable()
    const attachment = this.shared.ids.allocate((id) => new Attachment(this, buffer, id, access))
    try {
      const mapped = engineMap(this, attachment)
      if (mapped !== undefined) await mapped
      this.#checkUsable()
    } catch (error) {
      await engineUnmap(this, attachment.id)
      attachment.end('close', attachmentClosed())
      this.#releaseId(attachment)
      throw error
    }
    this.#attached++
    buffer.link(attachment)
    attachment.validate(buffer.generation)
    return attachment
  }

  /** A peer's buffer that the engine has a key to; for engines with peers. @internal */
  attachRemote(options: RemoteOptions): RemoteAttachment {
    this.#checkUsable()
    return this.shared.ids.allocate((id) => new RemoteAttachment(this, id, options))
  }

  /** @internal */
  forgetRemote(attachment: RemoteAttachment): void {
    this.shared.ids.release(attachment.id)
  }

  /** The attachment of this importer that has this id; undefined once it has been closed. */
  attachmentById(id: number): Attachment | undefined {
    checkInteger('id', id)
    const attachment = this.shared.ids.get(id)
    return attachment instanceof Attachment && attachment.importer === this ? attachment : undefined
  }

  /** What a batch's row names, which the engine does not keep to one importer. @internal */
  attachmentNamed(id: number): AnyAttachment | undefined {
    if (!Importer.is(this)) throw notOwn('Importer', this)
    return this.shared.ids.get(id)
  }

  /** Out of those of all importers of the engine. @internal */
  async attachmentList(which: (attachment: Attachment) => boolean): Promise<Attachment[]> {
    const slice = new Slice()
    const found: Attachment[] = []
    for (const attachment of this.shared.ids) {
      if (attachment instanceof Attachment && which(attachment)) found.push(attachment)
      const turn = slice.next()
      if (turn !== undefined) await turn
    }
    return found
  }

  /** The channel has, from now on, to do with what the id names. @internal */
  addUser(id: number, channel: Channel): void {
    this.shared.users.add(id, channel)
  }

  /** @internal */
  attachmentChanged(attachment: AnyAttachment): void {
    for (const channel of this.shared.users.of(attachment)) channel.attachmentChanged(attachment)
  }

  /** It has been closed. @internal */
  forget(attachment: Attachment): void {
    this.#attached--
    this.#releaseId(attachment)
  }

  /** A device that has failed may have the mapping still: then nobody gets its slot. */
  #releaseId({ id, isOutOfReach }: Attachment): void {
    const reuse = this.#error === null && isOutOfReach
    this.shared.ids.release(id, reuse)
    if (reuse) this.engine.release?.(id)
  }

  /** @internal */
  checkAttachment(argument: string, attachment: Attachment): void {
    if (!Importer.is(this)) throw notOwn('Importer', this)
    if (!Attachment.is(attachment)) throw typeError(argument, 'an Attachment', attachment)
    this.#checkOurs(argument, attachment)
  }

  #checkOurs(argument: string, attachment: AnyAttachment): void {
    if (attachment.importer !== this) {
      throw new P2pdmaError(`${argument} is attached to another importer`, {
        code: 'ERR_INVALID_ARG_VALUE',
        argument,
      })
    }
  }

  /** Checks an operation's side. @internal */
  checkRange(
    argument: string,
    attachment: AnyAttachment,
    offset: number,
    length: number,
    offsetName = `${argument}Offset`,
  ): void {
    if (!Importer.is(this)) throw notOwn('Importer', this)
    if (!Attachment.is(attachment) && !RemoteAttachment.is(attachment)) {
      throw typeError(argument, 'an Attachment', attachment)
    }
    this.#checkOurs(argument, attachment)
    const { size } = attachment
    checkInteger(offsetName, offset, 0, size)
    checkInteger('length', length, 0, size - offset)
  }

  /**
   * The device can be neither stopped nor forced: whatever it maps it may
   * still reach, so that memory is never used again; unless it is known to be
   * out of its reach (`loseDevice()`).
   * @internal
   */
  fail(error: Error, isOutOfReach = false): void {
    if (this.#error !== null) return
    this.#error = error
    const failed = isDeviceLost(error)
      ? error
      : new P2pdmaError(`the importer has failed: ${error.message}`, {
          code: 'ERR_IMPORTER_FAILED',
          cause: error,
        })
    for (const channel of this.#channels) channel.fail(failed)
    for (const attachment of this.shared.ids) {
      if (attachment.importer !== this) continue
      if (attachment instanceof Attachment) {
        if (!isOutOfReach) quarantine(attachment.buffer.backing)
        attachment.end('fail', failed)
      } else attachment.end('revoked', failed)
    }
  }

  /** @internal */
  forgetChannel(channel: Channel): void {
    this.#channels = this.#channels.filter((each) => each !== channel)
    this.shared.users.forget(channel)
  }

  #checkUsable(): void {
    const error = this.error
    if (error !== null) throw error
  }

  /** Closes channels and attachments, in that order. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    for (const channel of [...this.#channels]) await channel.close()
    const slice = new Slice()
    let failure: { error: unknown } | null = null
    for (const attachment of await this.attachmentList((each) => each.importer === this)) {
      // One that cannot be closed does not keep the others open.
      await attachment.close().catch((error: unknown) => void (failure ??= { error }))
      const turn = slice.next()
      if (turn !== undefined) await turn
    }
    for (const each of this.shared.ids) {
      if (each instanceof RemoteAttachment && each.importer === this) await each.close()
    }
    this.shared.importers.delete(this)
    if (failure !== null) throw (failure as { error: unknown }).error
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

/**
 * Takes the reservation, or rejects without it. The lock itself listens to the
 * signal: an abort that raced its promise would leave it held by nobody.
 */
async function lockBuffer(buffer: MovableBuffer, signal: AbortSignal | undefined): Promise<void> {
  if (!buffer.reservation.tryLock()) {
    await buffer.reservation.lock(undefined, signal && { signal })
  }
}

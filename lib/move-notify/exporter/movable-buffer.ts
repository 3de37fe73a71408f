import { brand } from '../../brand.js'
import {
  P2pdmaError,
  isDeviceLost,
  checkBoolean,
  checkInteger,
  checkOptions,
  checkSignal,
  closedError,
  looksLike,
  typeError,
} from '../../errors.js'
import type { CpuAccessMode } from '../../kernel/cpu-access.js'
import type { AttachOps } from './attach-ops.js'
import type { Backing, Exporter } from './backing.js'
import { type CpuAccess, CpuBrackets } from './cpu-access.js'
import { type Abortable, checkAbortable, throwIfAborted } from '../reservation/deadline.js'
import { allocate, checkExporter } from './exporting.js'
import { checkMoveOptions, type MoveOptions, type MoveResult, moveBuffer } from './move.js'
import { isQuarantined, quarantine } from './quarantine.js'
import { FENCE_TIMEOUT_MS, Reservation, Usage } from '../reservation/reservation.js'

export interface BufferOptions {
  /**
   * Poison each old backing and look for stray writes before it is freed:
   * at the next move, at `countStrayWrites()` and at the close. Default false.
   */
  poison?: boolean
  signal?: AbortSignal | undefined
}

/** A promise not to move: while one is held, `move()` fails with EBUSY. */
export interface Pin extends Disposable {
  unpin(): void
}

/** "Please do not evict". */
export interface Hint extends Disposable {
  drop(): void
}

/** An identity with a size that keeps its contents across backings. */
export class MovableBuffer {
  static {
    brand(this, (value) => #backing in value, { promising: ['close'] })
  }

  /** Bytes. */
  readonly size: number
  /** The lock and the fences. */
  readonly reservation = new Reservation()
  readonly poison: boolean
  #backing: Backing
  #generation = 1
  #attachments: AttachOps | null = null
  #pins = 0
  #hints = 0
  #cpu: CpuBrackets | null = null
  #poisoned: Backing | null = null
  #strayWrites = 0
  /** Why it is no more for devices; null while it is. */
  #revoked: P2pdmaError | null = null
  #closing: Promise<void> | null = null
  /** What still goes on after a move has unlocked. */
  #tails: Set<Promise<unknown>> | null = null

  private constructor(size: number, backing: Backing, poison: boolean) {
    if (!looksLike(backing, { copyFrom: 'function' })) {
      throw typeError('backing', 'a Backing: use MovableBuffer.create()', backing)
    }
    this.size = size
    this.#backing = backing
    this.poison = poison
    backing.heldBy?.(this)
  }

  /** Allocates zeroed memory of `size` bytes. */
  static async create(
    size: number,
    exporter: Exporter,
    options: BufferOptions = {},
  ): Promise<MovableBuffer> {
    checkInteger('size', size, 1)
    const { signal } = checkOptions(options)
    checkSignal(signal)
    const poison = checkBoolean('poison', options.poison ?? false)
    throwIfAborted(signal)
    const backing = await allocate(exporter, size)
    try {
      throwIfAborted(signal)
    } catch (error) {
      await backing.free()
      throw error
    }
    return new MovableBuffer(size, backing, poison)
  }

  /** Where the bytes live now. Valid until the next move. */
  get backing(): Backing {
    return this.#backing
  }

  get placement(): string {
    return this.#backing.placement
  }

  /** Starts at 1; each move begins the next, a failed one that was published included. */
  get generation(): number {
    return this.#generation
  }

  get isPinned(): boolean {
    return this.#pins > 0
  }

  /** Whether somebody asked not to evict it. */
  get isHinted(): boolean {
    return this.#hints > 0
  }

  get isRevoked(): boolean {
    return this.#revoked !== null
  }

  get isClosed(): boolean {
    return this.#closing !== null
  }

  /** Its attachments, of all importers. */
  get attachments(): AttachOps[] {
    const all: AttachOps[] = []
    for (let each = this.#attachments; each !== null; each = each.next) all.push(each)
    return all
  }

  /**
   * Moves the contents to a new backing. Traffic that uses the buffer stops,
   * and restarts by itself; resolves when the last byte is there and the old
   * backing has been given back. Rejects, the buffer being whole where it was:
   * EBUSY (pinned), EOPNOTSUPP (an importer cannot map the new place; nothing was
   * stopped; see `force`), ENOMEM and the like (no new backing), ERR_FENCE_FAILED and
   * ETIMEDOUT (the copy), ETIMEDOUT (a device could not be stopped; the old
   * backing is then never used again). Where the old backing could not be
   * poisoned or given back it rejects too, though the buffer has moved: see
   * `placement`.
   */
  async move(exporter: Exporter, options: MoveOptions = {}): Promise<MoveResult> {
    checkMoveOptions(options)
    checkExporter(exporter)
    this.checkUsable()
    return this.#tail(moveBuffer(this, exporter, options))
  }

  /** Promises not to move it: waits for a move under way, then holds off others with EBUSY. */
  async pin(options: Abortable = {}): Promise<Pin> {
    const { signal } = checkAbortable(options)
    this.checkUsable()
    await this.reservation.lock(undefined, { signal })
    try {
      this.checkUsable()
      // A copy under way may fail yet, and then the buffer goes back where it was.
      await this.reservation.wait(Usage.KERNEL, { signal, timeoutMs: FENCE_TIMEOUT_MS })
      this.#pins++
    } finally {
      this.reservation.unlock()
    }
    let held = true
    const unpin = () => {
      if (held) this.#pins--
      held = false
    }
    return { unpin, [Symbol.dispose]: unpin }
  }

  /** Asks `evict()` to take other buffers first. Never blocks, and is no promise. */
  hint(): Hint {
    this.checkUsable()
    this.#hints++
    let held = true
    const drop = () => {
      if (held) this.#hints--
      held = false
    }
    return { drop, [Symbol.dispose]: drop }
  }

  /**
   * An invalidation with no way back: every attachment is unmapped for good,
   * work that names one is rejected with ERR_REVOKED, channels go on with the
   * rest. The contents stay readable by the CPU until the close.
   */
  async revoke(): Promise<void> {
    this.checkUsable()
    await this.reservation.lock()
    try {
      this.checkUsable()
      this.#revoked = revokedError()
      await this.#detachAll('revoke', this.#revoked)
    } finally {
      this.reservation.unlock()
    }
  }

  /**
   * As `revoke()`, by the memory itself: its device is gone, and the contents with it.
   * @internal
   */
  async loseMemory(error: P2pdmaError): Promise<void> {
    const lost = this.#backing
    await this.reservation.lock()
    try {
      // A move out of there that has failed is back; one that was done is not concerned.
      if (this.#backing !== lost || this.isClosed) return
      this.#revoked = error
      await this.#detachAll('revoke', error)
    } catch {
      // A device that cannot be stopped: its importer has failed, and says so.
    } finally {
      this.reservation.unlock()
    }
  }

  /** Under the reservation. */
  async #detachAll(event: 'revoke' | 'close', error: P2pdmaError): Promise<void> {
    this.reservation.assertHeld('attachments are detached')
    const all = this.attachments
    const done = await Promise.allSettled(all.map((each) => each.detach(event, error)))
    for (const each of done) if (each.status === 'rejected') throw each.reason as Error
  }

  /**
   * Opens a bracket of CPU access, which holds off moves of this buffer until
   * it is closed. Its views are detached then. Waits for a move under way.
   */
  async beginCpuAccess(mode: CpuAccessMode = 'rw', options: Abortable = {}): Promise<CpuAccess> {
    const { signal } = checkAbortable(options)
    this.checkOpen()
    this.#cpu ??= new CpuBrackets()
    return this.#cpu.begin(this, mode, signal)
  }

  /** Runs `use` within a bracket of CPU access. */
  async withCpuAccess<T>(
    mode: CpuAccessMode,
    use: (access: CpuAccess) => T | Promise<T>,
    options: Abortable = {},
  ): Promise<T> {
    if (typeof use !== 'function') throw typeError('use', 'a function', use)
    const access = await this.beginCpuAccess(mode, options)
    try {
      return await use(access)
    } finally {
      await access.end()
    }
  }

  /**
   * As `withCpuAccess`, for who reaches the backing by its mapping, or by copies where the CPU
   * has none: a close waits for `use` then.
   * @internal
   */
  inPlace<T>(mode: CpuAccessMode, use: (backing: Backing) => Promise<T>): Promise<T> {
    this.checkOpen()
    this.#cpu ??= new CpuBrackets()
    return this.#cpu.inPlace(this, mode, use)
  }

  /** Stray writes found so far in old backings, those still held back included. */
  async countStrayWrites(): Promise<number> {
    await this.reservation.lock()
    try {
      await this.#retirePoisoned()
    } finally {
      this.reservation.unlock()
    }
    return this.#strayWrites
  }

  // --- for move.ts, the importer and the CPU brackets ---

  /** Also what is revoked: the CPU reads it still. @internal */
  checkOpen(): void {
    if (this.#closing !== null) throw closedError('the buffer')
  }

  /** @internal */
  checkUsable(): void {
    this.checkOpen()
    if (this.#revoked !== null) throw this.#revoked
  }

  /** @internal */
  get cpuBrackets(): CpuBrackets | null {
    return this.#cpu
  }

  /** Under the reservation. @internal */
  publish(backing: Backing): void {
    this.reservation.assertHeld('a backing is published')
    this.#backing.heldBy?.(null)
    this.#backing = backing
    backing.heldBy?.(this)
    this.#generation++
  }

  /** Gives an old backing back, poisoned and held back first if so asked. @internal */
  async retire(backing: Backing): Promise<void> {
    if (isQuarantined(backing)) return
    if (!this.poison) return backing.free()
    try {
      await backing.poison(this.attachments)
    } catch (error) {
      await backing.free()
      throw error
    }
    await this.#retirePoisoned(backing)
  }

  /** Checks and frees the backing that is held back, and holds back the next. */
  async #retirePoisoned(next: Backing | null = null): Promise<void> {
    const backing = this.#poisoned
    this.#poisoned = next
    if (backing === null) return
    try {
      this.#strayWrites += await backing.countStrayWrites(this.attachments)
    } catch (error) {
      // Of memory that is no more there is nothing to be counted.
      if (!isDeviceLost(error)) throw error
    } finally {
      if (!isQuarantined(backing)) await backing.free()
    }
  }

  /** Under the reservation. @internal */
  link(attachment: AttachOps): void {
    this.reservation.assertHeld('an attachment is added')
    attachment.next = this.#attachments
    this.#attachments = attachment
  }

  /** Under the reservation. @internal */
  unlink(attachment: AttachOps): void {
    this.reservation.assertHeld('an attachment is taken out')
    if (this.#attachments === attachment) this.#attachments = attachment.next
    for (let each = this.#attachments; each !== null; each = each.next) {
      if (each.next === attachment) each.next = attachment.next
    }
    attachment.next = null
  }

  async #tail<T>(work: Promise<T>): Promise<T> {
    this.#tails ??= new Set()
    this.#tails.add(work)
    try {
      return await work
    } finally {
      this.#tails.delete(work)
    }
  }

  /** Detaches it from every importer, then frees it. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    // First the brackets: a move may be waiting for them to end.
    const ended = (await this.#cpu?.closeAll()) ?? []
    if (this.#tails !== null) await Promise.allSettled(this.#tails)
    await this.reservation.lock()
    try {
      await this.#detachAll('close', closedError('the buffer'))
    } finally {
      try {
        await this.#retirePoisoned()
        await this.#waitForOthers()
        if (!isQuarantined(this.#backing)) await this.#backing.free()
      } finally {
        this.reservation.unlock()
      }
    }
    for (const each of ended) if (each.status === 'rejected') throw each.reason as Error
  }

  /** Work of others that has not ended in time may still reach the memory. */
  async #waitForOthers(): Promise<void> {
    const waited = this.reservation.waitSettled(Usage.BOOKKEEP, { timeoutMs: FENCE_TIMEOUT_MS })
    await waited.catch(() => quarantine(this.#backing))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

function revokedError(): P2pdmaError {
  return new P2pdmaError('the buffer has been revoked', {
    code: 'ERR_REVOKED',
    hint: 'its memory is gone for devices; create another buffer',
  })
}

/**
 * A channel of the software engine: the thin side of native/software/channel.h.
 * A batch is handed over with one native call without arguments: the numbers
 * go through a small shared array, and the batch's columns are made known when
 * another batch is used than the last time.
 */
import { SoftwareBell as Bell, SoftwareEvent as Event } from '../../abi.js'
import { P2pdmaError, closedError, rangeError, typeError } from '../../errors.js'
import type { Batch, Completions } from '../../move-notify/importer/batch.js'
import type { EngineChannel, EngineChannelOptions } from '../../move-notify/importer/engine.js'
import type { NativeSoftwareChannel, PauseSplit } from '../../native.js'
import { sharedMemory } from '../../shared-memory.js'
import { call } from '../../kernel/call.js'
import { Mapping } from '../../kernel/mapping.js'
import { ColumnsInUse } from '../queue/native-columns.js'
import { type RowRules, rowError } from '../queue/row-error.js'
import { Uses } from '../queue/uses.js'

const rules: RowRules = {
  unsupported: {
    text: ': the software engine neither sends nor receives',
    hint: 'it does COPY, FILL and FETCH_ADD',
  },
  lengths: 'from 0 to 2^53 - 1',
}

/** How many slots of attachment ids the engine has had use for. */
export interface Slots {
  count: number
}

export class SoftwareChannel implements EngineChannel {
  readonly depth: number
  readonly #native: NativeSoftwareChannel
  readonly #doorbell = new Uint32Array(sharedMemory(Bell.LENGTH * 4))
  readonly #slots: Slots
  readonly #uses: Uses
  /** As many as the native side knows of. */
  #usable = 0
  readonly #onUse: ((id: number) => void) | undefined
  readonly #onCompletion: () => void
  readonly #onClosed: (() => void) | undefined
  readonly #onClose: (channel: SoftwareChannel) => void
  readonly #columns: ColumnsInUse
  /** Who waits for the stop that is going on. */
  #stopped: (() => void)[] = []
  #closed = false

  /** @internal Use `SoftwareEngine.openChannel`. */
  constructor(
    open: (owner: object, doorbell: Uint32Array, untold: Uint32Array) => NativeSoftwareChannel,
    slots: Slots,
    options: EngineChannelOptions,
    onClose: (channel: SoftwareChannel) => void,
  ) {
    this.depth = options.depth
    this.#slots = slots
    this.#uses = new Uses(options.depth)
    this.#onUse = options.onUse
    this.#onCompletion = options.onCompletion
    this.#onClosed = options.onClosed
    this.#onClose = onClose
    this.#native = call(() => open(this, this.#doorbell, this.#uses.untold))
    this.#columns = new ColumnsInUse(this.#native)
  }

  /** The number by which deliberate faults name this channel. */
  get index(): number {
    return this.#native.index
  }

  get closed(): boolean {
    return this.#closed
  }

  get inFlight(): number {
    return this.#doorbell[Bell.IN_FLIGHT] ?? 0
  }

  post(batch: Batch, first: number, count: number): number {
    if (this.#closed) throw closedError('The channel')
    this.#columns.useBatch(batch)
    if (typeof first !== 'number') throw typeError('first', 'a number', first)
    if (typeof count !== 'number') throw typeError('count', 'a number', count)
    const doorbell = this.#doorbell
    doorbell[Bell.FIRST] = first
    doorbell[Bell.COUNT] = count
    const isWhole = doorbell[Bell.FIRST] === first && doorbell[Bell.COUNT] === count
    if (!isWhole || first + count > batch.capacity) {
      throw rowsError(batch, first, count)
    }
    if (this.#usable !== this.#slots.count) this.#growUses()
    this.#native.post()
    if (this.#uses.hasUntold) this.#uses.tell(this.#onUse)
    const accepted = doorbell[Bell.ACCEPTED] ?? 0
    const defect = doorbell[Bell.DEFECT] ?? 0
    if (defect !== 0) throw rowError(rules, batch, defect, first, accepted)
    return accepted
  }

  #growUses(): void {
    const { count } = this.#slots
    this.#uses.grow(count)
    call(() => this.#native.useUses(count, this.#uses.last))
    this.#usable = count
  }

  reap(out: Completions): number {
    if (this.#closed) throw closedError('The channel')
    this.#columns.useCompletions(out)
    this.#native.reap()
    return this.#doorbell[Bell.REAPED] ?? 0
  }

  get stale(): number {
    return this.#doorbell[Bell.STALE] ?? 0
  }

  arm(): void {
    if (this.#closed) throw closedError('The channel')
    call(() => this.#native.arm())
  }

  uses(id: number): boolean {
    if (call(() => this.#native.uses(id))) return true
    this.#uses.end(id)
    return false
  }

  /**
   * Resolves when the device has acknowledged, or when `force()` or `close()`
   * have made it quiet.
   */
  stop(): Promise<void> {
    if (this.#closed) return Promise.reject(closedError('The channel'))
    return new Promise((resolve, reject) => {
      try {
        if (call(() => this.#native.stop())) resolve()
        else this.#stopped.push(resolve)
      } catch (error) {
        reject(error instanceof Error ? error : new Error(String(error)))
      }
    })
  }

  force(): number {
    if (this.#closed) throw closedError('The channel')
    const epoch = call(() => this.#native.force())
    this.#quiet()
    return epoch
  }

  /** Throws ERR_INVALID_STATE unless the channel is stopped. */
  restart(): void {
    if (this.#closed) throw closedError('The channel')
    if (!call(() => this.#native.restart())) {
      throw new P2pdmaError('The channel is not stopped', { code: 'ERR_INVALID_STATE' })
    }
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#native.close()
    this.#doorbell[Bell.IN_FLIGHT] = 0
    this.#columns.forget()
    this.#onClose(this)
    this.#quiet()
    if (this.#onClosed !== undefined) queueMicrotask(this.#onClosed)
  }

  [Symbol.dispose](): void {
    this.close()
  }

  /**
   * Deliberate fault: each chunk takes this many nanoseconds more, until it is
   * set to 0. The channel still answers a stop. For tests that want work in
   * flight without moving gigabytes.
   */
  slow(nanosecondsPerChunk: number): void {
    call(() => this.#native.slow(nanosecondsPerChunk))
  }

  /** Ends a stall that was injected into this channel. */
  unstall(): void {
    call(() => this.#native.unstall())
  }

  /**
   * The loop of the benchmark in C++, over the columns used last. Nanoseconds
   * of CPU; throws ERR_INVALID_STATE where a row was refused.
   * @internal
   */
  bench(operations: number, batch: number, source: number, target: number): number {
    if (this.#closed) throw closedError('The channel')
    if (this.#usable !== this.#slots.count) this.#growUses()
    const ns = call(() => this.#native.bench(operations, batch, source, target))
    this.#uses.tell(this.#onUse)
    if (ns < 0) throw new P2pdmaError('The loop was refused', { code: 'ERR_INVALID_STATE' })
    return ns
  }

  /**
   * The same steps as a move's pause, in C++: what `id` is mapped to is copied to `to`, where it
   * is mapped then. Throws ERR_INVALID_STATE where a step was refused.
   * @internal
   */
  benchPause(id: number, to: Mapping): PauseSplit {
    if (this.#closed) throw closedError('The channel')
    if (!(to instanceof Mapping)) throw typeError('to', 'a Mapping', to)
    const split = call(() => this.#native.benchPause(id, to.handle))
    if (split === null) throw new P2pdmaError('A step was refused', { code: 'ERR_INVALID_STATE' })
    return split
  }

  /** @internal Called from the event loop. Bound to nothing, so that an engine can be collected. */
  static dispatch(this: void, owner: object, events: number): void {
    const channel = owner as SoftwareChannel
    if ((events & Event.QUIET) !== 0) channel.#quiet()
    if ((events & Event.COMPLETION) !== 0 && !channel.#closed) channel.#onCompletion()
  }

  #quiet(): void {
    const waiting = this.#stopped
    this.#stopped = []
    for (const resolve of waiting) resolve()
  }
}

function rowsError(batch: Batch, first: number, count: number): P2pdmaError {
  const whole = Number.isInteger(first) && first >= 0 && first <= batch.capacity
  return whole
    ? rangeError('count', `a whole number from 0 to ${batch.capacity - first}`, count)
    : rangeError('first', `a whole number from 0 to ${batch.capacity}`, first)
}

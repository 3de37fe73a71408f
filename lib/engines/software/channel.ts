/**
 * A channel of the software engine: the thin side of native/software/channel.h.
 * A batch is handed over with one native call without arguments: the numbers
 * go through a small shared array.
 */
import { SoftwareBell as Bell, SoftwareEvent as Event } from '../../abi.js'
import { P2pdmaError, typeError } from '../../errors.js'
import type { EngineChannelOptions } from '../../move-notify/importer/engine.js'
import type { NativeSoftwareChannel, PauseSplit } from '../../native.js'
import { sharedMemory } from '../../shared-memory.js'
import { call } from '../../kernel/call.js'
import { Mapping } from '../../kernel/mapping.js'
import { type Backend, type BackendRows, QueueChannel } from '../queue/channel.js'
import { ColumnsInUse } from '../queue/native-columns.js'
import type { RowRules } from '../queue/row-error.js'
import { Uses } from '../queue/uses.js'

const rules: RowRules = {
  unsupported: {
    text: ': the software engine neither sends nor receives',
    hint: 'it does COPY, FILL and FETCH_ADD',
  },
  lengths: 'from 0 to 2^53 - 1',
}

/** What the channel asks of its engine. */
export interface SoftwareHost {
  /** How many slots of attachment ids there is use for. */
  readonly slots: number
  open(
    depth: number,
    owner: object,
    doorbell: Uint32Array,
    untold: Uint32Array,
  ): NativeSoftwareChannel
  forget(channel: QueueChannel): void
}

class SoftwareBackend implements Backend, BackendRows {
  readonly rows = this
  readonly native: NativeSoftwareChannel
  readonly columns: ColumnsInUse
  readonly rules = rules
  readonly uses: Uses
  readonly #channel: QueueChannel
  readonly #host: SoftwareHost
  readonly #doorbell = new Uint32Array(sharedMemory(Bell.LENGTH * 4))
  /** As many as the native side knows of. */
  #usable = 0
  /** Since it was asked to, the device has told of a completion. */
  #isTold = false

  constructor(channel: QueueChannel, host: SoftwareHost) {
    const { depth } = channel
    this.#channel = channel
    this.#host = host
    this.uses = new Uses(depth)
    this.native = call(() => host.open(depth, this, this.#doorbell, this.uses.untold))
    this.columns = new ColumnsInUse(this.native)
  }

  get inFlight(): number {
    return this.#doorbell[Bell.IN_FLIGHT] ?? 0
  }

  get stale(): number {
    return this.#doorbell[Bell.STALE] ?? 0
  }

  get defect(): number {
    return this.#doorbell[Bell.DEFECT] ?? 0
  }

  post(first: number, count: number): number {
    const doorbell = this.#doorbell
    doorbell[Bell.FIRST] = first
    doorbell[Bell.COUNT] = count
    if (this.#usable !== this.#host.slots) this.growUses()
    this.native.post()
    return doorbell[Bell.ACCEPTED] ?? 0
  }

  growUses(): void {
    const { slots } = this.#host
    this.uses.grow(slots)
    call(() => this.native.useUses(slots, this.uses.last))
    this.#usable = slots
  }

  reap(): number {
    this.native.reap()
    return this.#doorbell[Bell.REAPED] ?? 0
  }

  isUsed(id: number): boolean {
    if (call(() => this.native.uses(id))) return true
    this.uses.end(id)
    return false
  }

  hasNews(): boolean {
    return this.#isTold
  }

  listen(): void {
    this.#isTold = false
    call(() => this.native.arm())
  }

  stop(): boolean {
    return call(() => this.native.stop())
  }

  force(): number {
    return call(() => this.native.force())
  }

  restart(): void {
    call(() => this.native.restart())
  }

  close(): void {
    this.native.close()
    this.#host.forget(this.#channel)
  }

  /** Called from the event loop. Bound to nothing, so that an engine can be collected. */
  static dispatch(this: void, owner: object, events: number): void {
    const backend = owner as SoftwareBackend
    if ((events & Event.QUIET) !== 0) backend.#channel.look()
    if ((events & Event.COMPLETION) === 0) return
    backend.#isTold = true
    backend.#channel.notify()
  }
}

export class SoftwareChannel extends QueueChannel {
  /** @internal */
  static readonly dispatch = SoftwareBackend.dispatch
  readonly #backend: SoftwareBackend

  /** @internal Use `SoftwareEngine.openChannel`. */
  constructor(host: SoftwareHost, options: EngineChannelOptions) {
    let backend: SoftwareBackend | undefined
    super(options, (channel) => (backend = new SoftwareBackend(channel, host)))
    this.#backend = backend!
  }

  get #native(): NativeSoftwareChannel {
    return this.#backend.native
  }

  /** The number by which deliberate faults name this channel. */
  get index(): number {
    return this.#native.index
  }

  /**
   * Resolves when the device has acknowledged, or when `force()` or `close()`
   * have made it quiet.
   */
  override async stop(): Promise<void> {
    await super.stop()
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
    this.#backend.growUses()
    const ns = call(() => this.#native.bench(operations, batch, source, target))
    if (ns < 0) throw new P2pdmaError('The loop was refused', { code: 'ERR_INVALID_STATE' })
    return ns
  }

  /**
   * The same steps as a move's pause, in C++: what `id` is mapped to is copied to `to`, where it
   * is mapped then. Throws ERR_INVALID_STATE where a step was refused.
   * @internal
   */
  benchPause(id: number, to: Mapping): PauseSplit {
    if (!(to instanceof Mapping)) throw typeError('to', 'a Mapping', to)
    const split = call(() => this.#native.benchPause(id, to.handle))
    if (split === null) throw new P2pdmaError('A step was refused', { code: 'ERR_INVALID_STATE' })
    return split
  }
}

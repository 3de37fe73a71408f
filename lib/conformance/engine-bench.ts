/** An engine on the bench: one channel, memory for its attachments, completions to wait for. */
import { memfd } from '../exporters/index.js'
import type { Backing, Exporter } from '../move-notify/exporter/backing.js'
import { Batch, Completions, Op } from '../move-notify/importer/batch.js'
import { Access, type Engine, type EngineChannel } from '../move-notify/importer/engine.js'
import { holds, inTime } from './check.js'

/** An engine that is open, and how it is to be used. */
export interface EngineOnBench {
  readonly engine: Engine
  /** Which memory it is given. Default `memfd()`. */
  readonly exporter?: Exporter
  /** Which queue the channel is opened on, where it has several. */
  readonly queue?: string
  /**
   * Makes row `row` an operation of `length` bytes on attachment `id`, at `offset`. Left out:
   * FILL, COPY within the attachment or SEND, the first that the engine does without a peer,
   * or at all.
   */
  fill?(batch: Batch, row: number, id: number, offset: number, length: number): void
  close(): Promise<void>
}

/** Opens the engine anew, for one check. */
export type OpenEngine = () => Promise<EngineOnBench>

/** No attachment of a peer's, or of another importer's, is likely to have these. */
export const ID = 4001
export const OTHER_ID = 4002
export const UNKNOWN_ID = 4999

export const BENCH_DEPTH = 16
/** Of the memory that is mapped. */
export const SIZE = 1 << 16

export interface Done {
  cookie: number
  result: number
  status: number
  epoch: number
}

export class Bench implements AsyncDisposable {
  readonly subject: EngineOnBench
  readonly engine: Engine
  readonly channel: EngineChannel
  readonly batch = new Batch(4 * BENCH_DEPTH)
  readonly length: number
  notifications = 0
  closed = 0
  /** The attachments that its channel has told of, in order. */
  told: number[] = []
  readonly #exporter: Exporter
  readonly #out = new Completions(4 * BENCH_DEPTH)
  readonly #backings: Backing[] = []
  readonly #ids = new Set<number>()
  #wake: () => void = () => undefined

  private constructor(subject: EngineOnBench, depth: number) {
    this.subject = subject
    this.engine = subject.engine
    this.#exporter = subject.exporter ?? memfd()
    const { op } = this.#operation
    const limits = this.engine.capabilities.operations.find((each) => each.op === op)
    this.length = Math.min(1024, limits?.maxLength ?? 1024)
    this.channel = this.engine.openChannel({
      depth,
      ...(subject.queue !== undefined && { queue: subject.queue }),
      onCompletion: () => {
        this.notifications++
        this.#wake()
      },
      onUse: (id) => void this.told.push(id),
      onClosed: () => void this.closed++,
    })
  }

  static async open(open: OpenEngine, depth = BENCH_DEPTH): Promise<Bench> {
    const subject = await open()
    try {
      return new Bench(subject, depth)
    } catch (error) {
      await subject.close()
      throw error
    }
  }

  get #operation() {
    const { operations } = this.engine.capabilities
    const local = (wanted: number) =>
      operations.find(({ op, withPeer }) => op === wanted && !withPeer)
    const found = local(Op.FILL) ?? local(Op.COPY) ?? operations.find(({ op }) => op === Op.SEND)
    return { op: found?.op ?? Op.NOP }
  }

  async allocate(): Promise<Backing> {
    const backing = await this.#exporter.allocate(SIZE)
    this.#backings.push(backing)
    return backing
  }

  /** Maps memory as `id`; sealed still. */
  async map(id: number, backing?: Backing): Promise<Backing> {
    const memory = backing ?? (await this.allocate())
    await this.engine.map(id, memory, SIZE, Access.READ | Access.WRITE)
    this.#ids.add(id)
    return memory
  }

  async mapOpen(id: number, backing?: Backing): Promise<Backing> {
    const memory = await this.map(id, backing)
    this.engine.unseal(id)
    return memory
  }

  /** Row `row` is an operation on `id`; its cookie is `cookie`. */
  set(row: number, id: number, cookie = row, offset = 0, length = this.length): void {
    const { batch, subject } = this
    batch.cookie[row] = cookie
    if (subject.fill !== undefined) return subject.fill(batch, row, id, offset, length)
    const { op } = this.#operation
    batch.op[row] = op
    batch.source[row] = id
    batch.target[row] = id
    batch.sourceOffset[row] = offset
    // What is copied within an attachment does not overlap, and poison is not copied onto itself.
    batch.targetOffset[row] = op === Op.COPY ? offset + length + 3 : offset
    batch.length[row] = length
    batch.operand[row] = 0x5a
  }

  /** Posts `count` operations on `id`, with cookies from `cookie` on; how many were accepted. */
  post(id: number, count: number, cookie = 0): number {
    for (let row = 0; row < count; row++) this.set(row, id, cookie + row)
    return this.channel.post(this.batch, 0, count)
  }

  reap(): Done[] {
    const out = this.#out
    const count = this.channel.reap(out)
    return Array.from({ length: count }, (_, i) => ({
      cookie: out.cookie[i] ?? NaN,
      result: out.result[i] ?? NaN,
      status: out.status[i] ?? NaN,
      epoch: out.epoch[i] ?? NaN,
    }))
  }

  /** The next `count` completions, however many notifications that takes. */
  async take(count: number): Promise<Done[]> {
    const taken = this.reap()
    while (taken.length < count) {
      const woken = new Promise<void>((resolve) => (this.#wake = resolve))
      this.channel.arm()
      await inTime(woken, `${taken.length} of ${count} completions were reaped; the next one`)
      taken.push(...this.reap())
    }
    holds(taken.length === count, `${taken.length} completions for ${count} operations`)
    return taken
  }

  /** Overwrites memory that the device does not have, so that a late write shows. */
  async poison(backing: Backing): Promise<void> {
    await backing.poison()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.channel.close()
      for (const id of this.#ids) {
        await this.engine.unmap(id)
        this.engine.release?.(id)
      }
    } finally {
      await this.subject.close()
      for (const backing of this.#backings) await backing.free()
    }
  }
}

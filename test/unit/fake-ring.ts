/**
 * A fake network device for the heart's unit tests: queues `tx` and `rx` on one
 * wire. What is sent waits on the wire until a receive has been posted and the
 * rx runs. Receives stay posted for ever, and no stop waits for them.
 */
import { QueueChannel } from '../../lib/engines/queue/channel.js'
import { P2pdmaError } from '../../lib/errors.js'
import { Op, Status } from '../../lib/move-notify/importer/batch.js'
import type { EngineChannel, EngineChannelOptions } from '../../lib/move-notify/importer/engine.js'
import type { BatchRow } from '../batch-row.js'
import { FakeBackend } from './fake-backend.js'
import { FakeEngine } from './fake-memory.js'

/** What a frame's first byte says for the device to report an error of its own. */
export const BAD_FRAME = 0xee

export class FakeRingEngine extends FakeEngine {
  readonly wire: Uint8Array[] = []
  readonly rings: FakeRing[] = []
  /** The ids it was told to forget, in order. */
  readonly released: number[] = []

  override openChannel(options: EngineChannelOptions): EngineChannel {
    const { queue } = options
    if (queue !== 'tx' && queue !== 'rx') {
      throw new P2pdmaError('a ring is tx or rx', { code: 'ERR_UNSUPPORTED', argument: 'queue' })
    }
    const op = queue === 'tx' ? Op.SEND : Op.RECEIVE
    return new QueueChannel(options, (channel) => {
      const ring = new FakeRing(this, op, channel, options.onUse)
      this.rings.push(ring)
      return ring
    })
  }

  /** Only something that is not mapped may be forgotten. */
  release(id: number): void {
    if (this.mapped.has(id)) throw new Error(`attachment ${id} is mapped still`)
    this.released.push(id)
  }

  /** Wakes each rx: something is on the wire. */
  deliver(): void {
    for (const ring of this.rings) ring.run()
  }
}

export class FakeRing extends FakeBackend {
  readonly #engine: FakeRingEngine
  readonly #op: number

  constructor(
    engine: FakeRingEngine,
    op: number,
    channel: QueueChannel,
    onUse?: (id: number) => void,
  ) {
    super(engine, channel, onUse)
    this.#engine = engine
    this.#op = op
  }

  protected does(op: number): boolean {
    return op === this.#op
  }

  protected canRun(): boolean {
    return this.#op === Op.SEND || this.#engine.wire.length > 0
  }

  protected execute(row: BatchRow): void {
    const { mapped, wire } = this.#engine
    const memory = mapped.get(this.#op === Op.SEND ? row.source : row.target)?.bytes
    if (memory === undefined) this.complete(row.cookie, 0, Status.NOT_MAPPED)
    else if (this.#op === Op.SEND) this.#send(row, memory)
    else this.#receive(row, memory, wire.shift() ?? new Uint8Array(0))
  }

  #send({ cookie, sourceOffset, length }: BatchRow, memory: Uint8Array): void {
    const frame = memory.slice(sourceOffset, sourceOffset + length)
    if (frame[0] === BAD_FRAME) return this.complete(cookie, 0x2a, Status.DEVICE_ERROR)
    this.#engine.wire.push(frame)
    this.complete(cookie, length, Status.OK)
    setImmediate(() => this.#engine.deliver())
  }

  #receive(
    { cookie, targetOffset, length }: BatchRow,
    memory: Uint8Array,
    frame: Uint8Array,
  ): void {
    memory.set(frame.subarray(0, length), targetOffset)
    this.complete(cookie, Math.min(frame.length, length), Status.OK)
  }

  override restart(): void {
    for (const row of this.work.splice(0)) {
      const id = this.#op === Op.SEND ? row.source : row.target
      if (this.#engine.mapped.has(id)) this.work.push(row)
      else this.complete(row.cookie, 0, Status.NOT_MAPPED)
    }
    super.restart()
  }
}

/**
 * A fake network device for the heart's unit tests: queues `tx` and `rx` on one
 * wire. What is sent waits on the wire until a receive has been posted and the
 * rx runs. Receives stay posted for ever, and no stop waits for them.
 */
import { P2pdmaError, closedError } from '../../lib/errors.js'
import { type Batch, type Completions, Op, Status } from '../../lib/move-notify/importer/batch.js'
import type { EngineChannel, EngineChannelOptions } from '../../lib/move-notify/importer/engine.js'
import { PostError } from '../../lib/move-notify/importer/post-error.js'
import { FakeEngine } from './fake-memory.js'

/** What a frame's first byte says for the device to report an error of its own. */
export const BAD_FRAME = 0xee

interface Row {
  id: number
  offset: number
  length: number
  cookie: number
}

interface Done {
  cookie: number
  result: number
  status: number
  epoch: number
}

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
    const ring = new FakeRing(this, options, queue === 'tx' ? Op.SEND : Op.RECEIVE)
    this.rings.push(ring)
    return ring
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

export class FakeRing implements EngineChannel {
  readonly depth: number
  readonly rows: Row[] = []
  readonly #engine: FakeRingEngine
  readonly #options: EngineChannelOptions
  readonly #op: number
  #done: Done[] = []
  #armed = false
  #state: 'running' | 'stopped' | 'closed' = 'running'
  #epoch = 1
  stale = 0
  /** Set by a test: `stop()` waits for it. */
  beforeQuiet: () => Promise<void> = () => Promise.resolve()
  beforeForce: () => void = () => undefined

  constructor(engine: FakeRingEngine, options: EngineChannelOptions, op: number) {
    this.#engine = engine
    this.#options = options
    this.#op = op
    this.depth = options.depth
  }

  get inFlight(): number {
    return this.rows.length + this.#done.length
  }

  post(batch: Batch, first: number, count: number): number {
    let accepted = 0
    for (let i = first; i < first + count; i++) {
      if (batch.op[i] !== this.#op) {
        throw new PostError('not in this queue', { code: 'ERR_UNSUPPORTED' }, accepted)
      }
      const isSend = this.#op === Op.SEND
      const row: Row = {
        id: (isSend ? batch.source : batch.target)[i] ?? 0,
        offset: (isSend ? batch.sourceOffset : batch.targetOffset)[i] ?? 0,
        length: batch.length[i] ?? 0,
        cookie: batch.cookie[i] ?? 0,
      }
      if (this.#state !== 'running' || this.inFlight >= this.depth) break
      if (this.#engine.mapped.get(row.id)?.sealed !== false) break
      this.rows.push(row)
      this.#options.onUse?.(row.id)
      accepted++
    }
    setImmediate(() => this.run())
    return accepted
  }

  run(): void {
    const { wire, mapped, held } = this.#engine
    while (this.#state === 'running' && !held) {
      if (this.#op === Op.RECEIVE && wire.length === 0) return
      const row = this.rows.shift()
      if (row === undefined) return
      const memory = mapped.get(row.id)?.bytes
      if (memory === undefined) this.#complete(row, 0, Status.NOT_MAPPED)
      else if (this.#op === Op.SEND) this.#send(row, memory)
      else this.#receive(row, memory, wire.shift() ?? new Uint8Array(0))
    }
  }

  #send(row: Row, memory: Uint8Array): void {
    const frame = memory.slice(row.offset, row.offset + row.length)
    if (frame[0] === BAD_FRAME) return this.#complete(row, 0x2a, Status.DEVICE_ERROR)
    this.#engine.wire.push(frame)
    this.#complete(row, row.length, Status.OK)
    setImmediate(() => this.#engine.deliver())
  }

  #receive(row: Row, memory: Uint8Array, frame: Uint8Array): void {
    memory.set(frame.subarray(0, row.length), row.offset)
    this.#complete(row, Math.min(frame.length, row.length), Status.OK)
  }

  #complete(row: Row, result: number, status: number): void {
    this.#done.push({ cookie: row.cookie, result, status, epoch: this.#epoch })
    this.#notify()
  }

  #notify(): void {
    if (!this.#armed || this.#done.length === 0 || this.#state === 'closed') return
    this.#armed = false
    setImmediate(() => {
      if (this.#state !== 'closed') this.#options.onCompletion()
    })
  }

  reap(out: Completions): number {
    if (this.#state === 'closed') throw closedError('The channel')
    const taken = this.#done.splice(0, out.capacity)
    for (const [at, { cookie, result, status, epoch }] of taken.entries()) {
      out.cookie[at] = cookie
      out.result[at] = result
      out.status[at] = status
      out.epoch[at] = epoch
    }
    this.stale = taken.filter((each) => each.epoch !== this.#epoch).length
    return taken.length
  }

  arm(): void {
    this.#armed = true
    this.#notify()
  }

  uses(id: number): boolean {
    return this.rows.some((row) => row.id === id)
  }

  async stop(): Promise<void> {
    await this.beforeQuiet()
    this.#state = 'stopped'
  }

  force(): number {
    this.beforeForce()
    this.#state = 'stopped'
    this.#epoch++
    for (const done of this.#done) done.epoch = this.#epoch
    return this.#epoch
  }

  restart(): void {
    if (this.#state !== 'stopped') throw new Error('not stopped')
    this.#state = 'running'
    for (const row of this.rows.splice(0)) {
      if (this.#engine.mapped.has(row.id)) this.rows.push(row)
      else this.#complete(row, 0, Status.NOT_MAPPED)
    }
    this.run()
  }

  close(): void {
    this.#state = 'closed'
    this.rows.length = 0
    this.#done = []
  }
}

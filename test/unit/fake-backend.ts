/**
 * A fake of what is behind a channel, for unit tests: rows in an array, which
 * are worked off at once or are held up by hand. Never a source of figures.
 */
import { RowDefect } from '../../lib/abi.js'
import type { Backend, BackendRows, QueueChannel } from '../../lib/engines/queue/channel.js'
import { ColumnsInUse } from '../../lib/engines/queue/native-columns.js'
import { Uses } from '../../lib/engines/queue/uses.js'
import {
  type Batch,
  type Completions,
  namesSource,
  namesTarget,
} from '../../lib/move-notify/importer/batch.js'
import { type BatchRow, rowOf } from '../batch-row.js'

/** The engine that it is of. */
export interface FakeDevice {
  readonly mapped: Map<number, { bytes: Uint8Array; sealed: boolean }>
  /** While true, posted work stays where it is. */
  readonly held: boolean
}

export abstract class FakeBackend implements Backend, BackendRows {
  readonly rows = this
  readonly columns = new ColumnsInUse({ useBatch: () => {}, useCompletions: () => {} })
  readonly rules = { unsupported: { text: ' is not done here', hint: 'none' }, lengths: '' }
  /** It is told of as rows are accepted. */
  readonly uses = new Uses(1)
  readonly channel: QueueChannel
  readonly work: BatchRow[] = []
  defect: number = RowDefect.NONE
  stale = 0
  /** How often it was asked whether it uses something. */
  asked = 0
  /** Set by a test: a stop waits for it. */
  beforeQuiet: () => Promise<void> = () => Promise.resolve()
  beforeForce: () => void = () => undefined
  readonly #device: FakeDevice
  readonly #onUse: ((id: number) => void) | undefined
  #done: { cookie: number; result: number; status: number; epoch: number }[] = []
  #epoch = 1
  #stop: { isOver: boolean } | null = null

  constructor(device: FakeDevice, channel: QueueChannel, onUse?: (id: number) => void) {
    this.#device = device
    this.channel = channel
    this.#onUse = onUse
  }

  protected abstract does(op: number): boolean
  /** Whether the oldest row has all that it waits for. */
  protected abstract canRun(): boolean
  protected abstract execute(row: BatchRow): void

  get inFlight(): number {
    return this.work.length + this.#done.length
  }

  post(first: number, count: number, batch: Batch): number {
    this.defect = RowDefect.NONE
    let accepted = 0
    for (; accepted < count && this.inFlight < this.channel.depth; accepted++) {
      const row = rowOf(batch, first + accepted)
      if (!this.does(row.op)) {
        this.defect = RowDefect.UNSUPPORTED_OP
        break
      }
      if (!namedBy(row).every((id) => this.#device.mapped.get(id)?.sealed === false)) break
      this.work.push(row)
      for (const id of namedBy(row)) this.#onUse?.(id)
    }
    setImmediate(() => this.run())
    return accepted
  }

  run(): void {
    const { channel } = this
    while ((channel.state === 'running' || channel.state === 'stopping') && !this.#device.held) {
      const row = this.canRun() ? this.work.shift() : undefined
      if (row === undefined) return
      this.execute(row)
    }
  }

  complete(cookie: number, result: number, status: number, epoch = this.#epoch): void {
    this.#done.push({ cookie, result, status, epoch })
    setImmediate(() => this.channel.notify())
  }

  reap(out: Completions): number {
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

  hasNews(): boolean {
    return this.#done.length > 0
  }

  listen(): void {}

  isUsed(id: number): boolean {
    this.asked++
    return this.work.some((row) => namedBy(row).includes(id))
  }

  stop(): boolean {
    if (this.#stop === null) {
      const stop = { isOver: false }
      this.#stop = stop
      void this.beforeQuiet().then(() => {
        stop.isOver = true
        this.channel.look()
      })
    }
    return this.#stop.isOver
  }

  force(next: number): number {
    this.beforeForce()
    this.#epoch = next
    for (const done of this.#done) done.epoch = next
    return next
  }

  restart(): void {
    this.#stop = null
    this.run()
  }

  close(): void {
    this.work.length = 0
    this.#done = []
  }
}

function namedBy({ op, source, target }: BatchRow): number[] {
  return [...(namesSource(op) ? [source] : []), ...(namesTarget(op) ? [target] : [])]
}

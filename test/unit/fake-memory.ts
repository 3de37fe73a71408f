/**
 * Fakes for the heart's unit tests: memory in plain arrays, and a device that
 * works at once or is held up by hand. Never a source of figures.
 */
import { P2pdmaError } from '../../lib/errors.js'
import type { Backing, CpuWindow, Exporter } from '../../lib/move-notify/exporter/backing.js'
import { type Batch, type Completions, Op, Status } from '../../lib/move-notify/importer/batch.js'
import { HeldBacking } from '../../lib/move-notify/exporter/residency/held-backing.js'
import type {
  Engine,
  EngineCapabilities,
  EngineChannel,
  EngineChannelOptions,
} from '../../lib/move-notify/importer/engine.js'

export class FakeBacking implements Backing {
  readonly fd = -1
  readonly offset = 0
  readonly mapping = null
  readonly exporter: FakeExporter
  readonly size: number
  readonly bytes: Uint8Array
  freed = false

  constructor(exporter: FakeExporter, size: number) {
    this.exporter = exporter
    this.size = size
    this.bytes = new Uint8Array(size)
  }

  get placement(): string {
    return this.exporter.placement
  }

  get isDmaBuf(): boolean {
    return this.exporter.kind === 'kernel'
  }

  async copyFrom(source: Backing): Promise<void> {
    if (source instanceof HeldBacking) return this.copyFrom(source.inner)
    await this.exporter.beforeCopy()
    if (!(source instanceof FakeBacking) || source.freed) throw new Error('source is gone')
    this.bytes.set(source.bytes)
  }

  openCpuWindow(): Promise<CpuWindow> {
    let bytes = this.bytes
    return Promise.resolve({
      view: (offset: number, length: number) => bytes.subarray(offset, offset + length),
      end: () => {
        bytes = new Uint8Array(0)
        return Promise.resolve()
      },
    })
  }

  poison(): Promise<void> {
    this.bytes.fill(0x6b)
    return Promise.resolve()
  }

  countStrayWrites(): Promise<number> {
    return Promise.resolve(this.bytes.every((byte) => byte === 0x6b) ? 0 : 1)
  }

  free(): Promise<void> {
    if (!this.freed) this.exporter.alive--
    this.freed = true
    return Promise.resolve()
  }
}

export class FakeExporter implements Exporter {
  readonly placement: string
  readonly kind: 'kernel' | 'embedded'
  alive = 0
  /** Set by a test to delay or fail. */
  beforeAllocate: () => Promise<void> = () => Promise.resolve()
  beforeCopy: () => Promise<void> = () => Promise.resolve()

  constructor(placement = 'fake', kind: 'kernel' | 'embedded' = 'embedded') {
    this.placement = placement
    this.kind = kind
  }

  async allocate(size: number): Promise<Backing> {
    await this.beforeAllocate()
    this.alive++
    return new FakeBacking(this, size)
  }
}

interface Row {
  op: number
  source: number
  sourceOffset: number
  target: number
  targetOffset: number
  length: number
  operand: number
  cookie: number
}

export class FakeEngine implements Engine {
  readonly name = 'fake'
  readonly mapped = new Map<number, { bytes: Uint8Array; sealed: boolean }>()
  readonly channels: FakeChannel[] = []
  beforeMap: (id: number) => void | Promise<void> = () => undefined
  beforeUnmap: () => void | Promise<void> = () => undefined
  /** The placements that it says it cannot map. */
  readonly refused = new Set<string>()
  /** While true, posted work stays where it is. */
  held = false
  faults = 0

  openChannel(options: EngineChannelOptions): EngineChannel {
    const channel = new FakeChannel(this, options)
    this.channels.push(channel)
    return channel
  }

  /** Set by a test. */
  canMap: (backing: Backing) => string | null = ({ placement }) =>
    this.refused.has(placement) ? 'it does not reach so far' : null

  readonly capabilities: EngineCapabilities = {
    operations: [],
    isTwoSided: false,
    maps: { dmaBufs: false, cpuMemory: true, bars: false },
    lateAccess: 'fault',
    canMap: (backing) => this.canMap(backing),
  }

  map(id: number, backing: Backing): void | Promise<void> {
    const bytes = (backing as FakeBacking).bytes
    const wait = this.beforeMap(id)
    if (wait === undefined) {
      this.mapped.set(id, { bytes, sealed: true })
      return undefined
    }
    return wait.then(() => void this.mapped.set(id, { bytes, sealed: true }))
  }

  seal(id: number): void {
    const mapping = this.mapped.get(id)
    if (mapping !== undefined) mapping.sealed = true
  }

  unseal(id: number): void {
    const mapping = this.mapped.get(id)
    if (mapping !== undefined) mapping.sealed = false
  }

  unmap(id: number): void | Promise<void> {
    this.mapped.delete(id)
    return this.beforeUnmap()
  }

  close(): void {}

  /** Lets held work run. */
  resume(): void {
    this.held = false
    for (const channel of this.channels) channel.run()
  }
}

function named({ op, source, target }: Row): number[] {
  return op === Op.NOP ? [] : op === Op.COPY ? [source, target] : [target]
}

export class FakeChannel implements EngineChannel {
  readonly engine: FakeEngine
  readonly options: EngineChannelOptions
  readonly depth: number
  readonly rows: Row[] = []
  #done: { cookie: number; result: number; status: number; epoch: number }[] = []
  #armed = false
  #stopped = false
  epoch = 1
  stale = 0
  /** Set by a test: `stop()` waits for it. */
  beforeQuiet: () => Promise<void> = () => Promise.resolve()
  beforeForce: () => void = () => undefined

  constructor(engine: FakeEngine, options: EngineChannelOptions) {
    this.engine = engine
    this.options = options
    this.depth = options.depth
  }

  get inFlight(): number {
    return this.rows.length + this.#done.length
  }

  post(batch: Batch, first: number, count: number): number {
    let accepted = 0
    for (let i = first; i < first + count; i++) {
      const row: Row = {
        op: batch.op[i] ?? 0,
        source: batch.source[i] ?? 0,
        sourceOffset: batch.sourceOffset[i] ?? 0,
        target: batch.target[i] ?? 0,
        targetOffset: batch.targetOffset[i] ?? 0,
        length: batch.length[i] ?? 0,
        operand: batch.operand[i] ?? 0,
        cookie: batch.cookie[i] ?? 0,
      }
      if (this.#stopped || this.inFlight >= this.depth || !this.#isOpen(row)) break
      this.rows.push(row)
      for (const id of named(row)) this.options.onUse?.(id)
      accepted++
    }
    setImmediate(() => this.run())
    return accepted
  }

  #isOpen(row: Row): boolean {
    return named(row).every((id) => this.engine.mapped.get(id)?.sealed === false)
  }

  run(): void {
    while (!this.#stopped && !this.engine.held) {
      const row = this.rows.shift()
      if (row === undefined) break
      this.#execute(row)
    }
    this.#notify()
  }

  #execute(row: Row): void {
    const target = this.engine.mapped.get(row.target)
    const source = this.engine.mapped.get(row.source)
    let status: number = Status.OK
    if (row.op === Op.COPY && target !== undefined && source !== undefined) {
      const end = row.sourceOffset + row.length
      target.bytes.set(source.bytes.subarray(row.sourceOffset, end), row.targetOffset)
    } else if (row.op === Op.FILL && target !== undefined) {
      target.bytes.fill(row.operand, row.targetOffset, row.targetOffset + row.length)
    } else if (row.op !== Op.NOP) {
      status = Status.NOT_MAPPED
    }
    this.complete(row.cookie, row.length, status, this.epoch)
  }

  complete(cookie: number, result: number, status: number, epoch: number): void {
    this.#done.push({ cookie, result, status, epoch })
    this.#notify()
  }

  #notify(): void {
    if (!this.#armed || this.#done.length === 0) return
    this.#armed = false
    setImmediate(this.options.onCompletion)
  }

  reap(out: Completions): number {
    let count = 0
    this.stale = 0
    while (count < out.capacity) {
      const done = this.#done.shift()
      if (done === undefined) break
      out.cookie[count] = done.cookie
      out.result[count] = done.result
      out.status[count] = done.status
      out.epoch[count] = done.epoch
      if (done.epoch !== this.epoch) this.stale++
      count++
    }
    return count
  }

  arm(): void {
    this.#armed = true
    this.#notify()
  }

  /** How often it was asked. */
  asked = 0

  uses(id: number): boolean {
    this.asked++
    return this.rows.some((row) => row.source === id || row.target === id)
  }

  async stop(): Promise<void> {
    await this.beforeQuiet()
    this.#stopped = true
  }

  force(): number {
    this.beforeForce()
    this.#stopped = true
    this.epoch++
    for (const done of this.#done) done.epoch = this.epoch
    return this.epoch
  }

  restart(): void {
    if (!this.#stopped) throw new P2pdmaError('not stopped', { code: 'ERR_INVALID_STATE' })
    this.#stopped = false
    this.run()
  }

  close(): void {
    this.rows.length = 0
  }
}

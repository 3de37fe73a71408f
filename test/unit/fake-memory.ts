/**
 * Fakes for the heart's unit tests: memory in plain arrays, and a device that
 * works at once or is held up by hand. Never a source of figures.
 */
import { QueueChannel } from '../../lib/engines/queue/channel.js'
import type { Backing, CpuWindow, Exporter } from '../../lib/move-notify/exporter/backing.js'
import { Op, Status } from '../../lib/move-notify/importer/batch.js'
import { HeldBacking } from '../../lib/move-notify/exporter/residency/held-backing.js'
import type {
  Engine,
  EngineCapabilities,
  EngineChannel,
  EngineChannelOptions,
} from '../../lib/move-notify/importer/engine.js'
import type { BatchRow } from '../batch-row.js'
import { FakeBackend } from './fake-backend.js'

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

export class FakeEngine implements Engine {
  readonly name = 'fake'
  readonly mapped = new Map<number, { bytes: Uint8Array; sealed: boolean }>()
  readonly channels: FakeCopyQueue[] = []
  beforeMap: (id: number) => void | Promise<void> = () => undefined
  beforeUnmap: () => void | Promise<void> = () => undefined
  /** The placements that it says it cannot map. */
  readonly refused = new Set<string>()
  /** While true, posted work stays where it is. */
  held = false
  faults = 0

  openChannel(options: EngineChannelOptions): EngineChannel {
    return new QueueChannel(options, (channel) => {
      const backend = new FakeCopyQueue(this, channel, options.onUse)
      this.channels.push(backend)
      return backend
    })
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

export class FakeCopyQueue extends FakeBackend {
  readonly engine: FakeEngine

  constructor(engine: FakeEngine, channel: QueueChannel, onUse?: (id: number) => void) {
    super(engine, channel, onUse)
    this.engine = engine
  }

  /** Any: what is neither a copy nor a fill comes to NOT_MAPPED. */
  protected does(): boolean {
    return true
  }

  protected canRun(): boolean {
    return true
  }

  protected execute(row: BatchRow): void {
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
    this.complete(row.cookie, row.length, status)
  }
}

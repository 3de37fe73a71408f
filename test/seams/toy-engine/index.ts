/**
 * An engine of somebody else's: a device that a timer plays, which copies and fills by
 * memcpy. It is written against the package's surface alone. What is copied by it is copied
 * in the event loop: no figure of it means anything.
 */
import {
  type Backing,
  type Engine,
  type EngineCapabilities,
  type EngineChannelOptions,
  Importer,
  type ImporterOptions,
  type OpenedEngine,
  Op,
  P2pdmaError,
  registerEngine,
} from '../../../lib/index.js'
import { ToyBacking } from '../toy-exporter/index.js'
import { type Mapped, type Table, ToyChannel } from './channel.js'

const anyLength = { minLength: 0, maxLength: 2 ** 40, alignment: 1, withPeer: false }

export class ToyEngine implements OpenedEngine {
  readonly name: string
  readonly capabilities: EngineCapabilities = {
    operations: [Op.NOP, Op.COPY, Op.FILL].map((op) => ({ op, ...anyLength })),
    isTwoSided: false,
    maps: { dmaBufs: false, cpuMemory: true, bars: false },
    lateAccess: 'fault',
    canMap: refusalOf,
  }
  readonly #mapped = new Map<number, Mapped>()
  readonly #channels = new Set<ToyChannel>()
  readonly #importers: Importer[] = []
  #closedBytes = 0
  #closing: Promise<void> | null = null

  constructor(name: string) {
    this.name = name
  }

  importer(options?: ImporterOptions): Importer {
    const importer = new Importer(this satisfies Engine, options)
    this.#importers.push(importer)
    return importer
  }

  openChannel(options: EngineChannelOptions): ToyChannel {
    if (this.#closing !== null) {
      throw new P2pdmaError('The engine is closed', { code: 'ERR_CLOSED' })
    }
    const { depth, queue } = options
    if (!Number.isInteger(Math.log2(depth))) {
      throw new P2pdmaError('depth must be a power of two', {
        code: 'ERR_OUT_OF_RANGE',
        argument: 'depth',
      })
    }
    if (queue !== undefined) {
      throw new P2pdmaError(`The toy has no queue ${queue}`, {
        code: 'ERR_UNSUPPORTED',
        argument: 'queue',
      })
    }
    const channel = new ToyChannel(options, this.#mapped satisfies Table, (closed) => {
      this.#channels.delete(closed)
      this.#closedBytes += closed.bytes
    })
    this.#channels.add(channel)
    return channel
  }

  map(id: number, backing: Backing, size: number, access: number): void {
    const bytes = bytesOf(backing, size)
    if (bytes === null) {
      throw new P2pdmaError(`The toy cannot reach a backing in ${backing.placement}`, {
        code: 'ERR_UNSUPPORTED',
        argument: 'backing',
        hint: refusalOf(backing) ?? undefined,
      })
    }
    this.#mapped.set(id, { bytes, size, access, sealed: true })
  }

  seal(id: number): void {
    const mapped = this.#mapped.get(id)
    if (mapped !== undefined) mapped.sealed = true
  }

  unseal(id: number): void {
    const mapped = this.#mapped.get(id)
    if (mapped !== undefined) mapped.sealed = false
  }

  unmap(id: number): void {
    this.#mapped.delete(id)
  }

  /** What the device has done. */
  stats(): { bytes: number } {
    return { bytes: [...this.#channels].reduce((sum, { bytes }) => sum + bytes, this.#closedBytes) }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    for (const importer of this.#importers) await importer.close()
    for (const channel of [...this.#channels]) channel.close()
    this.#mapped.clear()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

function refusalOf(this: void, backing: Backing): string | null {
  if (backing.mapping !== null || backing instanceof ToyBacking) return null
  return 'the toy reaches what the CPU has mapped, and memory of its maker'
}

/** Null for what it does not reach. */
function bytesOf(backing: Backing, size: number): Buffer | null {
  if (backing instanceof ToyBacking) {
    const { buffer } = backing.bytes
    return Buffer.from(buffer, 0, size)
  }
  const { mapping, offset } = backing
  return mapping === null ? null : Buffer.from(mapping.view(offset, size))
}

registerEngine({
  interfaceVersion: 1,
  name: 'toy',
  spelling: 'toy[:NAME]',
  open: (name) => Promise.resolve(new ToyEngine(name === null ? 'toy' : `toy:${name}`)),
})

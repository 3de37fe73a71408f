/**
 * The embedded engine: a DMA engine in software, on a C++ thread of its own.
 * It needs no kernel feature. The thread looks an attachment up anew for each
 * chunk that it moves, under the guard that `unmap` waits for; what it finds
 * dead is a counted fault.
 */
import { SOFTWARE_MAX_DEPTH } from '../../abi.js'
import { brand } from '../../brand.js'
import { P2pdmaError, checkInteger, closedError, looksLike, typeError } from '../../errors.js'
import { call } from '../../kernel/call.js'
import { Mapping } from '../../kernel/mapping.js'
import type { Backing } from '../../move-notify/exporter/backing.js'
import { Op } from '../../move-notify/importer/batch.js'
import type {
  Engine,
  EngineCapabilities,
  EngineChannelOptions,
} from '../../move-notify/importer/engine.js'
import { slotOf } from '../../move-notify/importer/ids.js'
import { Importer, type ImporterOptions } from '../../move-notify/importer/importer.js'
import { native, type NativeSoftwareEngine, type SoftwareStats } from '../../native.js'
import type { QueueChannel } from '../queue/channel.js'
import { checkChannelOptions } from '../queue/channel-options.js'
import { SoftwareChannel, type SoftwareHost } from './channel.js'
import { encodeFault, type SoftwareFault } from './inject.js'

const MAX_ID = 2 ** 32 - 1

const anyLength = {
  minLength: 0,
  maxLength: Number.MAX_SAFE_INTEGER,
  alignment: 1,
  withPeer: false,
}

/** What there is of it is the CPU: it reaches what the CPU has mapped, a BAR by wide accesses. */
const capabilities: EngineCapabilities = {
  operations: [
    { op: Op.NOP, ...anyLength },
    { op: Op.COPY, ...anyLength },
    { op: Op.FILL, ...anyLength },
    { op: Op.FETCH_ADD, minLength: 8, maxLength: 8, alignment: 8, withPeer: false },
  ],
  isTwoSided: false,
  maps: { dmaBufs: false, cpuMemory: true, bars: true },
  lateAccess: 'fault',
  canMap: refusalOf,
}

export class SoftwareEngine implements Engine {
  static {
    brand(this, (value) => #native in value, { promising: ['close'] })
  }

  readonly name = 'software'
  readonly capabilities = capabilities
  readonly #native: NativeSoftwareEngine
  readonly #channels = new Set<QueueChannel>()
  readonly #host = {
    slots: 64,
    open: (...args) => this.#native.openChannel(...args),
    forget: (channel) => void this.#channels.delete(channel),
  } satisfies SoftwareHost
  #importers: Importer[] = []
  #closing: Promise<void> | null = null
  #isEnded = false

  constructor() {
    this.#native = call(() => native.openSoftwareEngine(SoftwareChannel.dispatch))
  }

  get closed(): boolean {
    return this.#closing !== null
  }

  /** This device's side of the sharing; closed with the engine. */
  importer(options?: ImporterOptions): Importer {
    this.#checkOpen()
    const importer = new Importer(this, options)
    this.#importers = this.#importers.filter((each) => each.error === null)
    this.#importers.push(importer)
    return importer
  }

  openChannel(options: EngineChannelOptions): SoftwareChannel {
    this.#checkOpen()
    const checked = checkChannelOptions(options, SOFTWARE_MAX_DEPTH)
    const { queue } = checked
    if (queue !== undefined) {
      throw new P2pdmaError(`The software engine has no queue ${JSON.stringify(queue)}`, {
        code: 'ERR_UNSUPPORTED',
        argument: 'queue',
        hint: 'it has one kind of queue: leave the option out',
      })
    }
    const channel = new SoftwareChannel(this.#host, checked)
    this.#channels.add(channel)
    return channel
  }

  /** Throws ERR_UNSUPPORTED for a backing that the CPU cannot map. */
  map(id: number, backing: Backing, size: number, access: number): void {
    this.#checkOpen()
    checkInteger('id', id, 0, MAX_ID)
    checkInteger('access', access, 1, 3)
    const refusal = refusalOf(backing)
    const { mapping, offset } = backing
    checkInteger('backing.size', backing.size, 0)
    checkInteger('backing.offset', offset, 0)
    checkInteger('size', size, 0, backing.size)
    if (mapping === null || refusal !== null) {
      throw new P2pdmaError(`The software engine cannot reach a backing in ${backing.placement}`, {
        code: 'ERR_UNSUPPORTED',
        argument: 'backing',
        hint: refusal ?? undefined,
      })
    }
    call(() => this.#native.map(id, mapping.handle, offset, size, access))
    while (slotOf(id) >= this.#host.slots) this.#host.slots *= 2
  }

  /** As `unseal` and `unmap`, a no-op after the close: an attachment may be closed later. */
  seal(id: number): void {
    checkInteger('id', id, 0, MAX_ID)
    if (!this.#isEnded) this.#native.seal(id, true)
  }

  unseal(id: number): void {
    checkInteger('id', id, 0, MAX_ID)
    if (!this.#isEnded) this.#native.seal(id, false)
  }

  unmap(id: number): void {
    this.#native.unmap(checkInteger('id', id, 0, MAX_ID))
  }

  /** Whether this very id is mapped now. */
  isMapped(id: number): boolean {
    return this.#native.isMapped(checkInteger('id', id, 0, MAX_ID))
  }

  /** What the device has done since it was opened; also after the close. */
  stats(): SoftwareStats {
    return this.#native.stats()
  }

  /** Breaks something on purpose: see `SoftwareFault`. */
  inject(fault: SoftwareFault): void {
    this.#checkOpen()
    const { kind, channel, parameter, offset } = encodeFault(fault)
    call(() => this.#native.inject(kind, channel, parameter, offset))
  }

  /** Ends the stalls injected into any channel. */
  unstall(): void {
    this.#checkOpen()
    this.#native.unstall()
  }

  /**
   * Closes its importers and channels and ends the thread, which takes one
   * chunk at most. Without importers that is done on return. Idempotent.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    const importers = this.#importers
    this.#importers = []
    if (importers.length > 0) await Promise.allSettled(importers.map((each) => each.close()))
    for (const channel of [...this.#channels]) channel.close()
    this.#isEnded = true
    this.#native.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #checkOpen(): void {
    if (this.#closing !== null) throw closedError('The engine')
  }
}

function refusalOf(this: void, backing: Backing): string | null {
  if (!looksLike(backing, { mapping: 'object' })) {
    throw typeError('backing', 'a Backing', backing)
  }
  const mapping: unknown = backing.mapping
  if (mapping !== null && !(mapping instanceof Mapping)) {
    throw typeError('backing.mapping', 'a Mapping', mapping)
  }
  return mapping === null ? 'it needs a placement that the CPU can map' : null
}

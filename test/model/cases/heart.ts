/**
 * The heart on a model device: threads of calls of the public API, each of
 * which may come at any moment, and what must hold whatever the order.
 */
import type { Attachment } from '../../../lib/move-notify/importer/attachment.js'
import type { Channel } from '../../../lib/move-notify/importer/channel.js'
import { Importer, type ImporterOptions } from '../../../lib/move-notify/importer/importer.js'
import { MovableBuffer } from '../../../lib/move-notify/exporter/movable-buffer.js'
import type { MoveOptions } from '../../../lib/move-notify/exporter/move.js'
import { isQuarantined } from '../../../lib/move-notify/exporter/quarantine.js'
import { reservationClass } from '../../../lib/move-notify/reservation/reservation.js'
import { lockAll } from '../../../lib/move-notify/reservation/ww-mutex.js'
import { type DeviceFaults, ModelEngine } from '../device.js'
import { Memory, type MemoryFaults } from '../memory.js'
import type { World } from '../scheduler.js'

/** One call. Numbers are indices; a `signal` is a name that an `abort` can name too. */
export type Call =
  | {
      do: 'fill'
      channel: number
      target: number
      at: number
      length: number
      byte: number
      signal?: string
    }
  | {
      do: 'copy'
      channel: number
      source: number
      from: number
      target: number
      at: number
      length: number
    }
  | { do: 'add'; channel: number; target: number; at: number; value: number }
  | { do: 'move'; buffer: number; signal?: string; to?: string; options?: MoveOptions }
  /** Locks all of them under one context, moves each, unlocks. */
  | { do: 'moveTogether'; buffers: number[] }
  /** Moves it from place to place, by force, each after the one before; some may fail. */
  | { do: 'tour'; buffer: number; places: string[] }
  | { do: 'pin'; buffer: number }
  | { do: 'cpu'; buffer: number }
  | { do: 'revoke'; buffer: number }
  | { do: 'attach'; buffer: number; signal?: string }
  | { do: 'close'; what: 'buffer' | 'attachment' | 'channel' | 'importer'; index: number }
  | { do: 'abort'; signal: string }

export interface HeartOptions {
  /** Bytes of each buffer; each is attached to the one importer. */
  buffers: number[]
  /** Channels, opened in advance. Default 1. */
  channels?: number
  /** Sequences of calls; each call may come as soon as the one before it was made. */
  threads: Call[][]
  importer?: ImporterOptions
  memory?: MemoryFaults
  device?: DeviceFaults
  /** For every move. */
  move?: MoveOptions
  /** Codes that calls may reject with. */
  allow?: string[]
  /** Channels that must never stop. */
  undisturbed?: number[]
  /** Attachments may end as failed. */
  failures?: boolean
  /** Collects what came of it, one line per execution. */
  outcomes?: Set<string>
}

/** Without timeouts: each would be one more thing that can happen at any time. */
const NO_TIMEOUTS: ImporterOptions = {
  stopTimeoutMs: Infinity,
  fenceTimeoutMs: Infinity,
  minRunMs: 0,
}

export function heart(world: World, options: HeartOptions): void {
  const bench = new Bench(world, options)
  const start = bench.start().catch((error: unknown) => world.fail(`the set-up: ${String(error)}`))
  world.expect('the set-up', start)
}

class Bench {
  readonly world: World
  readonly options: HeartOptions
  readonly memory: Memory
  readonly engine: ModelEngine
  readonly importer: Importer
  readonly buffers: MovableBuffer[] = []
  readonly attachments: Attachment[] = []
  readonly channels: Channel[] = []
  readonly truth: number[][] = []
  readonly calls: Promise<void>[] = []
  readonly results: string[] = []
  readonly #signals = new Map<string, AbortController>()
  #left = 0
  #ending = false

  constructor(world: World, options: HeartOptions) {
    this.world = world
    this.options = options
    this.memory = new Memory(world, options.memory)
    this.engine = new ModelEngine(world, options.device)
    this.importer = new Importer(this.engine, { ...NO_TIMEOUTS, ...options.importer })
  }

  async start(): Promise<void> {
    const { world, options } = this
    for (const size of options.buffers) {
      const buffer = await MovableBuffer.create(size, this.memory.exporter('a'), { poison: true })
      this.buffers.push(buffer)
      this.truth.push(new Array<number>(size).fill(0))
      this.attachments.push(await this.importer.attach(buffer))
    }
    for (let index = 0; index < (options.channels ?? 1); index++) {
      this.channels.push(this.importer.channel({ depth: 4 }))
    }
    this.engine.onWrite = (id, at, value) => this.#written(id, at, value)
    for (const index of options.undisturbed ?? []) {
      world.invariant(() => {
        const { state } = this.channel(index)
        if (state !== 'running' && !this.#ending)
          world.fail(`channel ${index} is disturbed: ${state}`)
      })
    }
    world.describe(() => this.describe())
    for (const thread of options.threads) {
      this.#left += thread.length
      this.#offer(thread, 0)
    }
  }

  #offer(thread: Call[], at: number): void {
    const call = thread[at]
    if (call === undefined) return
    this.world.action(nameOf(call), () => {
      this.#offer(thread, at + 1)
      this.#make(call)
      if (--this.#left === 0) this.world.expect('the end', this.#finish())
    })
  }

  #make(call: Call): void {
    const number = this.results.length
    this.results.push('pending')
    const done = this.#run(call).then(
      () => void (this.results[number] = 'ok'),
      (error: unknown) => {
        const code = (error as { code?: string }).code ?? String(error)
        this.results[number] = code
        this.world.log(`${nameOf(call)} rejects: ${code}`)
        if (this.options.allow?.includes(code) !== true) {
          this.world.fail(`${nameOf(call)} rejects with ${code}: ${String(error)}`)
        }
      },
    )
    this.calls.push(done)
    this.world.expect(nameOf(call), done)
  }

  async #run(call: Call): Promise<void> {
    switch (call.do) {
      case 'fill': {
        const { target, at, length, byte } = call
        const signal = this.#signal(call.signal)
        const to = this.attachment(target)
        await this.channel(call.channel).fill(to, at, length, byte, { signal })
        return
      }
      case 'copy': {
        const [from, to] = [this.attachment(call.source), this.attachment(call.target)]
        await this.channel(call.channel).copy(from, call.from, to, call.at, call.length)
        return
      }
      case 'add':
        await this.channel(call.channel).fetchAdd(this.attachment(call.target), call.at, call.value)
        return
      case 'move':
        await this.#move(
          call.buffer,
          { signal: this.#signal(call.signal), ...call.options },
          call.to,
        )
        return
      case 'moveTogether':
        return this.#moveTogether(call.buffers)
      case 'tour':
        return this.#tour(call.buffer, call.places)
      case 'pin':
        return this.#pin(call.buffer)
      case 'cpu':
        return this.#cpu(call.buffer)
      case 'revoke':
        return this.buffer(call.buffer).revoke()
      case 'attach': {
        const signal = this.#signal(call.signal)
        this.attachments.push(await this.importer.attach(this.buffer(call.buffer), { signal }))
        return
      }
      case 'close': {
        const owner = this.#owner(call.what, call.index)
        await Promise.all([owner.close(), owner.close()])
        return
      }
      case 'abort':
        this.#controller(call.signal).abort()
    }
  }

  async #move(index: number, options: MoveOptions, to = 'b'): Promise<void> {
    const forever = { copyTimeoutMs: Infinity, cpuTimeoutMs: Infinity }
    await this.buffer(index).move(this.memory.exporter(to), {
      ...forever,
      ...this.options.move,
      ...options,
    })
  }

  async #moveTogether(indices: number[]): Promise<void> {
    const context = reservationClass.acquire()
    const locks = indices.map((index) => this.buffer(index).reservation)
    await lockAll(context, locks)
    try {
      for (const index of indices) await this.#move(index, { context })
    } finally {
      for (const lock of locks) lock.unlock(context)
      context.fini()
    }
  }

  async #tour(index: number, places: string[]): Promise<void> {
    for (const place of places) {
      await this.#move(index, { force: true }, place).catch((error: unknown) => {
        const { code } = error as { code?: string }
        if (code === undefined || this.options.allow?.includes(code) !== true) throw error
      })
    }
  }

  async #pin(index: number): Promise<void> {
    const buffer = this.buffer(index)
    const pin = await buffer.pin()
    const { generation } = buffer
    await new Promise<void>((resolve) => this.world.action(`unpin ${index}`, resolve))
    if (buffer.generation !== generation) this.world.fail('a pinned buffer has moved')
    pin.unpin()
  }

  async #cpu(index: number): Promise<void> {
    const buffer = this.buffer(index)
    const access = await buffer.beginCpuAccess()
    const { generation } = buffer
    await new Promise<void>((resolve) => this.world.action(`end CPU access ${index}`, resolve))
    if (buffer.generation !== generation && !buffer.isClosed) {
      this.world.fail('a buffer has moved within a bracket of CPU access')
    }
    await access.end()
  }

  /** When all calls have ended: everything runs again, the bytes are right, and closing works. */
  async #finish(): Promise<void> {
    await Promise.all(this.calls)
    // A restore may go on after the last call; it needs nothing but the device.
    await new Promise<void>((resolve) => this.world.event('rest', resolve, () => !this.#isUnrest()))
    this.#check()
    this.options.outcomes?.add(`${this.results.join(' ')} | ${JSON.stringify(this.#contents())}`)
    this.#ending = true
    await this.importer.close().catch((error: unknown) => this.#closeFailed(error))
    for (const buffer of this.buffers) {
      await buffer.close().catch((error: unknown) => this.#closeFailed(error))
    }
    for (const backing of this.memory.backings) {
      if (backing.state !== 'freed' && !isQuarantined(backing)) {
        this.world.fail(`${backing.placement} is left behind, ${backing.state}`)
      }
    }
  }

  #closeFailed(error: unknown): void {
    if (this.importer.error?.message === undefined || this.options.failures !== true) {
      this.world.fail(`a close rejects: ${String(error)}`)
    }
  }

  #isUnrest(): boolean {
    const settled = ['running', 'closed', 'failed']
    return (
      this.channels.some(({ state }) => !settled.includes(state)) ||
      this.attachments.some(({ state }) => state === 'invalid') ||
      this.buffers.some(({ reservation }) => reservation.locked)
    )
  }

  #check(): void {
    const { world } = this
    for (const attachment of this.attachments) {
      if (attachment.state === 'failed' && this.options.failures === true) continue
      if (attachment.state === 'revoked' || attachment.state === 'closed') continue
      const { state, generation, buffer } = attachment
      if (state !== 'mapped') world.fail(`attachment ${attachment.id} ends as ${state}`)
      if (generation !== buffer.generation) world.fail(`attachment ${attachment.id} is stale`)
      if (this.engine.mapping(attachment.id)?.backing !== buffer.backing) {
        world.fail(`the device maps another backing for attachment ${attachment.id}`)
      }
    }
    const contents = JSON.stringify(this.#contents())
    const truth = JSON.stringify(this.truth.map((cells, at) => (this.#isGone(at) ? [] : cells)))
    if (contents !== truth) world.fail(`the buffers hold ${contents} and should hold ${truth}`)
    this.#checkWork()
  }

  #checkWork(): void {
    const { stats } = this.importer
    if (stats.waiting + stats.unmatchedCompletions > 0) this.world.fail(JSON.stringify(stats))
    for (const device of this.engine.channels) {
      for (const work of device.history) {
        if (work.completed > 1) this.world.fail('an operation was completed twice')
        const repeated = work.begun > 1 && (stats.forcedStops === 0 || work.op === 3)
        if (repeated) this.world.fail(`an operation was begun ${work.begun} times`)
        if (work.status === 0 && work.op !== 3 && work.done !== work.length) {
          this.world.fail('an operation was completed half done')
        }
      }
    }
  }

  #contents(): number[][] {
    return this.buffers.map((buffer, index) =>
      this.#isGone(index) ? [] : [...this.#backing(buffer).cells],
    )
  }

  #backing(buffer: MovableBuffer) {
    const found = this.memory.backings.find((backing) => backing === buffer.backing)
    return found ?? this.world.fail('a backing from elsewhere')
  }

  #isGone(index: number): boolean {
    return this.buffer(index).isClosed
  }

  #written(id: number, at: number, value: number): void {
    const owner = this.importer.attachmentById(id)
    const cells = this.truth[this.buffers.findIndex((buffer) => buffer === owner?.buffer)]
    if (cells !== undefined) cells[at] = value
  }

  #owner(what: 'buffer' | 'attachment' | 'channel' | 'importer', index: number) {
    if (what === 'importer') return this.importer
    if (what === 'buffer') return this.buffer(index)
    return what === 'channel' ? this.channel(index) : this.attachment(index)
  }

  buffer(index: number): MovableBuffer {
    return this.buffers[index] ?? this.world.fail(`no buffer ${index}`)
  }

  attachment(index: number): Attachment {
    return this.attachments[index] ?? this.world.fail(`no attachment ${index}`)
  }

  channel(index: number): Channel {
    return this.channels[index] ?? this.world.fail(`no channel ${index}`)
  }

  #controller(name: string): AbortController {
    const controller = this.#signals.get(name) ?? new AbortController()
    this.#signals.set(name, controller)
    return controller
  }

  #signal(name: string | undefined): AbortSignal | undefined {
    return name === undefined ? undefined : this.#controller(name).signal
  }

  describe(): string {
    const channels = this.channels.map(({ state }) => state)
    const attachments = this.attachments.map(({ state }) => state)
    const locks = this.buffers.map(({ reservation }) =>
      reservation.locked ? `held by ${reservation.holder?.stamp ?? 'somebody'}` : 'free',
    )
    return `channels: ${channels.join()}; attachments: ${attachments.join()}; locks: ${locks.join()}`
  }
}

function nameOf(call: Call): string {
  const { do: what, ...rest } = call
  return `${what}(${Object.values(rest).map(String).join(', ')})`
}

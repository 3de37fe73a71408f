/** Brings the real engine, on memfds, to a stage of the flow and leaves it there. */
import { SoftwareEngine } from '../../lib/engines/index.js'
import { memfd } from '../../lib/exporters/index.js'
import type { Backing, Exporter } from '../../lib/move-notify/exporter/backing.js'
import type { Importer } from '../../lib/move-notify/importer/importer.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { turn } from './support.js'

const SIZE = 1 << 20

/** memfds whose copies wait until they are let. */
class HeldCopies implements Exporter {
  readonly placement = 'memfd'
  readonly kind = 'embedded'
  #begun = () => {}
  #let = () => {}
  /** A move has come to its copy: what used the buffer is stopped. */
  readonly begun = new Promise<void>((resolve) => (this.#begun = resolve))
  readonly #allowed = new Promise<void>((resolve) => (this.#let = resolve))

  async allocate(size: number): Promise<Backing> {
    const backing = await memfd().allocate(size)
    const copyFrom = backing.copyFrom.bind(backing)
    backing.copyFrom = async (source) => {
      this.#begun()
      await this.#allowed
      await copyFrom(source)
    }
    return backing
  }

  /** Lets them go on, after so many milliseconds. */
  letGo(ms = 0): void {
    setTimeout(this.#let, ms)
  }
}

interface Scene {
  engine: SoftwareEngine
  importer: Importer
  source: MovableBuffer
  target: MovableBuffer
  /** Starts a copy that takes about as many milliseconds. */
  copy: (ms: number) => Promise<unknown>
  /** Resolves in the channel's state. */
  reach: (state: string) => Promise<void>
  /** In `restoring`, behind the held copy of a move that has met a copy in flight. */
  restoring: () => Promise<{ work: Promise<unknown>[]; held: HeldCopies }>
}

async function scene(): Promise<Scene> {
  const engine = new SoftwareEngine()
  const slow = { ns: 0 }
  const open = engine.openChannel.bind(engine)
  engine.openChannel = (options) => {
    const channel = open(options)
    channel.slow(slow.ns)
    return channel
  }
  const importer = engine.importer({ stopTimeoutMs: 50, minRunMs: 0 })
  const source = await MovableBuffer.create(SIZE, memfd(), { poison: true })
  const target = await MovableBuffer.create(SIZE, memfd(), { poison: true })
  const [from, to] = [await importer.attach(source), await importer.attach(target)]
  const copy = (ms: number) => {
    slow.ns = (ms * 1_000_000) / (SIZE / 65536)
    return importer.copy(from, 0, to, 0, SIZE)
  }
  const reach = async (state: string) => {
    while (importer.channels[0]?.state !== state) await turn(0)
  }
  const restoring = async () => {
    const work: Promise<unknown>[] = []
    for (;;) {
      const held = new HeldCopies()
      work.push(copy(20), target.move(held))
      await held.begun
      // On a busy machine the copy may have ended before the move came: then nobody was stopped.
      if (importer.channels[0]?.state !== 'running') {
        await reach('restoring')
        return { work, held }
      }
      held.letGo()
      await Promise.all(work)
    }
  }
  return { engine, importer, source, target, copy, reach, restoring }
}

/** Each resolves at its stage, with what is in progress there. */
export const stages: Record<string, () => Promise<Promise<unknown>[]>> = {
  engine: () => {
    new SoftwareEngine()
    return Promise.resolve([])
  },
  importer: () => {
    new SoftwareEngine().importer().channel()
    return Promise.resolve([])
  },
  attached: async () => {
    await scene()
    return []
  },
  queued: async () => {
    const { copy, restoring } = await scene()
    const { work, held } = await restoring()
    held.letGo(20)
    return [...work, copy(1)]
  },
  'in flight': async () => {
    const { copy, engine } = await scene()
    const done = copy(60)
    while (engine.stats().chunks === 0) await turn(0)
    return [done]
  },
  stopping: async () => {
    const { copy, engine, target, reach } = await scene()
    engine.inject({ kind: 'stall' })
    const done = copy(1)
    while (engine.stats().injected === 0) await turn(0)
    const move = target.move(memfd())
    await reach('stopping')
    return [done, move]
  },
  stopped: async () => {
    const { source, restoring } = await scene()
    const { work, held } = await restoring()
    // What the device holds names the source, too: its move cancels that restore.
    const other = new HeldCopies()
    const second = source.move(other)
    await other.begun
    held.letGo(20)
    other.letGo(20)
    return [...work, second]
  },
  restoring: async () => {
    const { restoring } = await scene()
    const { work, held } = await restoring()
    held.letGo(40)
    return work
  },
  moving: async () => {
    const { target } = await scene()
    const big = await MovableBuffer.create(64 << 20, memfd())
    const moves = [big.move(memfd()), target.move(memfd())]
    await Promise.race([moves[1], turn(5)])
    return moves
  },
  poisoned: async () => {
    const { target } = await scene()
    await target.move(memfd())
    return []
  },
  bracket: async () => {
    const { target } = await scene()
    const access = await target.beginCpuAccess('rw')
    access.view()[0] = 1
    return []
  },
  'move behind a bracket': async () => {
    const { target } = await scene()
    const access = await target.beginCpuAccess('rw')
    const move = target.move(memfd())
    setTimeout(() => void access.end(), 30)
    return [move]
  },
}

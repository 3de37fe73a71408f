/** Moves buffers through the placements, and sees whether that hit work in flight. */
import type { Backing, Exporter } from '../move-notify/exporter/backing.js'
import type { Side } from './pair.js'
import type { Random } from './random.js'
import type { Tally } from './tally.js'
import type { Watchdog } from './watchdog.js'
import type { KernelView } from './kernel-view.js'

export interface MoverParts {
  /** How long a move waits for work in flight on its buffer, ms. */
  aimMs: number
  tally: Tally
  random: Random
  watchdog: Watchdog
  kernelView: KernelView
}

/** Turns of the event loop, in which completions are seen and work is posted. */
const MIN_TURNS = 2

/** The backing, with something else for `populate()`. */
function prepared(backing: Backing, populate: (() => Promise<void>) | undefined): Backing {
  return Object.defineProperty(backing, 'populate', { value: populate })
}

export class BufferMover {
  readonly #parts: MoverParts
  /** How often each has moved. */
  readonly #turns = new Map<Side, number>()
  #queue: Side[] = []

  constructor(parts: MoverParts) {
    this.#parts = parts
  }

  /** Moves one of them: each once before any a second time, in an order that the seed gives. */
  async moveOne(sides: readonly Side[]): Promise<void> {
    if (this.#queue.length === 0) this.#queue = this.#parts.random.shuffled(sides)
    const side = this.#queue.pop() as Side
    const exporter = this.#next(side)
    const { placement, kind } = exporter
    const allocate = async (size: number) => {
      const backing = await exporter.allocate(size)
      const populate = backing.populate?.bind(backing)
      // Between its last preparation and the stop nothing must come in between.
      return prepared(backing, async () => {
        await populate?.()
        await this.#untilBusy([side])
      })
    }
    await this.#move(side, { placement, kind, allocate })
  }

  /**
   * Where the event loop was held up the device may have run out of work, and
   * while a block is being verified a move waits: the traffic gets some time to
   * catch up, so that the moves meet it.
   */
  async #untilBusy(sides: readonly Side[]): Promise<void> {
    const ready = () =>
      sides.every(
        ({ attachment, buffer, probe }) =>
          probe.isBusy(attachment.id) && (buffer.cpuBrackets?.isIdle ?? true),
      )
    for (let turn = 0; turn < MIN_TURNS; turn++) {
      await new Promise((resolve) => setImmediate(resolve))
    }
    const deadline = performance.now() + this.#parts.aimMs
    const probes = new Set(sides.map(({ probe }) => probe))
    while (!ready() && performance.now() < deadline) {
      const posted = [...probes].map((probe) => probe.posted())
      await Promise.race([...posted, new Promise((resolve) => setTimeout(resolve, 1))])
    }
  }

  /**
   * Moves all of them at once. The new backings are made before, so that all
   * are invalidated in the same turn.
   */
  async moveTogether(sides: readonly Side[]): Promise<void> {
    const exporters: Exporter[] = []
    for (const side of sides) {
      const exporter = this.#next(side)
      const { placement, kind } = exporter
      const backing = await exporter.allocate(side.buffer.size)
      await backing.populate?.()
      prepared(backing, undefined)
      exporters.push({ placement, kind, allocate: () => Promise.resolve(backing) })
    }
    await this.#untilBusy(sides)
    await Promise.all(sides.map((side, i) => this.#move(side, exporters[i] as Exporter)))
  }

  #next(side: Side): Exporter {
    const turn = this.#turns.get(side) ?? 0
    this.#turns.set(side, turn + 1)
    return side.to[turn % side.to.length] as Exporter
  }

  async #move(side: Side, exporter: Exporter): Promise<void> {
    const { tally, watchdog, kernelView } = this.#parts
    const { buffer, attachment, name, probe } = side
    probe.watch(attachment.id)
    try {
      const what = `moving ${name} from ${buffer.placement} to ${exporter.placement}`
      await watchdog.over(what, buffer.move(exporter))
      tally.counts.moves++
      kernelView.look(buffer.backing)
    } catch (error) {
      tally.failed('failedMoves', error)
      throw error
    } finally {
      if (probe.unwatch(attachment.id)) tally.counts.movesWithWorkInFlight++
    }
  }
}

/** What a move costs the queue pair that uses the buffer, and those that do not. */
import { VerbsEngine } from '../../../lib/engines/index.js'
import { memfd, slab } from '../../../lib/exporters/index.js'
import type { Backing, Exporter } from '../../../lib/move-notify/exporter/backing.js'
import { Access } from '../../../lib/move-notify/importer/engine.js'
import { Importer } from '../../../lib/move-notify/importer/importer.js'
import { MovableBuffer } from '../../../lib/move-notify/exporter/movable-buffer.js'
import { type ChannelTransition, trace } from '../../../lib/move-notify/trace.js'
import { pairs, type Ratio } from '../measure.js'
import type { Devices } from './devices.js'
import { FarEnd } from './far-end.js'
import { NaiveEngine } from './naive-engine.js'
import { Writer } from './writer.js'

const SIZE = 64 << 10
const DEPTH = 64

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** The longest gap in the far end's writes to one of many buffers, when that one moves. */
export async function gapRatios({ near, far }: Devices, quick: boolean): Promise<Ratio[]> {
  const regions = quick ? 50 : 1000
  const [bytes, inFlight] = [4096, 4]
  await using engine = await VerbsEngine.open(near.name, { gidIndex: near.gidIndex })
  const between = new NaiveEngine(engine)
  // A thousand deregistrations take longer than a stop may by default.
  await using importer = new Importer(between, { minRunMs: 0, stopTimeoutMs: 60_000 })
  // 256 of them share a file and a mapping: the limits of both are far below their number.
  const exporter = slab(memfd())
  const buffers: MovableBuffer[] = []
  await using _ = { [Symbol.asyncDispose]: () => closeAll(buffers) }
  // Ended first: it writes until then.
  await using end = await FarEnd.start(engine, far, { queues: 1, depth: DEPTH, size: SIZE })
  const channel = importer.channel({ queue: end.queues[0], depth: DEPTH })
  for (let i = 0; i < regions; i++) {
    const buffer = await MovableBuffer.create(SIZE, exporter)
    buffers.push(buffer)
    const attachment = await importer.attach(buffer)
    if (i === 0) end.peer.grant(channel, attachment, { label: 'moved' })
  }
  await end.ask({ what: 'write', label: 'moved', size: bytes, inFlight, everyMs: 0 })

  const gap = async (isNaive: boolean): Promise<number> => {
    between.isNaive = isNaive
    await sleep(20)
    const before = await end.ask({ what: 'gap' })
    const { registrations } = between
    await buffers[0]!.move(exporter)
    while (!channel.isRunning) await sleep(1)
    await sleep(20)
    const after = await end.ask({ what: 'gap' })
    const made = between.registrations - registrations
    if (made !== (isNaive ? regions : 1)) throw new Error(`${made} registrations in a move`)
    // Else the gap would not be one between two completions.
    if (!(after.writes! > before.writes!)) throw new Error('nothing was written after the move')
    return after.gap!
  }
  const ratio = await pairs(
    'move_1000_regions_vs_naive',
    quick ? 1 : 9,
    'ms',
    () => end.during(gap(false)),
    () => end.during(gap(true)),
    {
      ...{ mtu: near.mtu, regions, bytes: SIZE },
      ...{ peer: `writes ${bytes} bytes, ${inFlight} in flight`, registration: 'memory' },
      of: 'ours / one that stops, deregisters all, copies, registers all',
    },
  )
  return [ratio]
}

async function closeAll(buffers: readonly MovableBuffer[]): Promise<void> {
  await Promise.all(buffers.map((buffer) => buffer.close()))
}

/** Counts what the channels of an importer go through. */
class Transitions {
  readonly #of = new Map<number, number>()
  readonly #importer: string
  readonly #onTransition = (message: unknown) => {
    const { importer, channel } = message as ChannelTransition
    if (importer === this.#importer) this.#of.set(channel, this.count(channel) + 1)
  }

  constructor(importer: Importer) {
    this.#importer = importer.name
    trace.channel.subscribe(this.#onTransition)
  }

  count(channel: number): number {
    return this.#of.get(channel) ?? 0
  }

  [Symbol.dispose](): void {
    trace.channel.unsubscribe(this.#onTransition)
  }
}

/** An attachment id that importers do not come to. */
const SPARE_ID = 2 ** 32 - 1

/** What a move does with memory and nothing else: nobody is told, nothing is stopped. */
async function copyAndRegister(
  engine: VerbsEngine,
  exporter: Exporter,
  before: Backing,
): Promise<Backing> {
  const fresh = await exporter.allocate(SIZE)
  await fresh.populate?.()
  await engine.unmap(SPARE_ID)
  if (fresh.copyNow?.(before) !== true) await fresh.copyFrom(before)
  await engine.map(SPARE_ID, fresh, SIZE, Access.READ | Access.WRITE)
  await before.free()
  return fresh
}

/** Writes per second of queue pairs that do not use a buffer, while it moves ten times a second. */
export async function bystanderRatios({ near, far }: Devices, quick: boolean): Promise<Ratio[]> {
  const bystanders = 2
  const everyMs = 100
  const measuredMs = quick ? 200 : 600
  const inFlight = 16
  await using engine = await VerbsEngine.open(near.name, { gidIndex: near.gidIndex })
  await using importer = engine.importer({ minRunMs: 0 })
  const exporter = memfd()
  await using moved = await MovableBuffer.create(SIZE, exporter)
  await using still = await MovableBuffer.create(SIZE, exporter)
  const settings = { queues: 1 + bystanders, depth: DEPTH, size: SIZE }
  await using end = await FarEnd.start(engine, far, settings)
  const [movedBy, ...others] = end.queues.map((queue) => importer.channel({ queue, depth: DEPTH }))
  end.peer.grant(movedBy!, await importer.attach(moved), { label: 'moved' })
  const source = await importer.attach(still)
  // The peer uses it, a little: its own traffic would give way in a move, and the others gain.
  await end.ask({ what: 'write', label: 'moved', size: 64, inFlight: 1, everyMs: 20 })
  const writers: Writer[] = []
  for (const [i, channel] of others.entries()) {
    const target = (await end.peer.offered(`far-${i + 1}`)).attach(importer)
    const options = { size: SIZE, depth: DEPTH, inFlight, list: 1 }
    writers.push(new Writer(channel, source.id, target.id, options))
  }
  let spare: Backing = await exporter.allocate(SIZE)
  using transitions = new Transitions(importer)

  /** MiB/s, while `disturb` is called ten times a second. */
  const during = async (disturb: () => Promise<unknown>): Promise<number> => {
    const written = () => writers.reduce((sum, { done }) => sum + done, 0)
    const first = written()
    const start = performance.now()
    let calls = 0
    while (performance.now() - start < measuredMs) {
      await sleep(Math.max(0, start + everyMs * ++calls - performance.now()))
      await disturb()
    }
    return ((written() - first) * SIZE) / 2 ** 20 / ((performance.now() - start) / 1000)
  }
  const withMoves = async () => {
    const stops = transitions.count(movedBy!.index)
    const figure = await during(() => moved.move(exporter))
    if (transitions.count(movedBy!.index) === stops) throw new Error('nothing was stopped')
    return figure
  }
  const withoutStops = () =>
    during(async () => (spare = await copyAndRegister(engine, exporter, spare)))

  const writing = Promise.all(writers.map((writer) => writer.goOn()))
  try {
    const measured = pairs(
      'bystander_bw_vs_control',
      quick ? 1 : 9,
      'MiB/s',
      withMoves,
      withoutStops,
      {
        ...{ mtu: near.mtu, bytes: SIZE, bystanders, inFlight, movesPerSecond: 1000 / everyMs },
        ...{ ms: measuredMs, control: 'the same copy and registrations, nothing stopped' },
      },
    )
    const ratio = await Promise.race([measured, writing.then(() => measured)])
    for (const { index } of others) {
      const seen = transitions.count(index)
      if (seen > 0) throw new Error(`a bystander, channel ${index}, had ${seen} transitions`)
    }
    return [ratio]
  } finally {
    for (const writer of writers) writer.end()
    await writing
    await engine.unmap(SPARE_ID)
    engine.release(SPARE_ID)
    await spare.free()
  }
}

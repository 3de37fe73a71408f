/** How long the event loop belongs to us at a time, in CPU time of its thread. */
import * as library from '../../lib/index.js'
import { SLICE_ITEMS } from '../../lib/move-notify/reservation/slice.js'
import { native } from '../../lib/native.js'
import { quantile, result, type Result } from './measure.js'
import type { Population } from './population.js'

const MiB = 1 << 20

/** Turns that are kept, of one piece of work: all that a minute of them can have. */
const MOST = 1 << 20

/** Made once: what the probe allocates would be collected in somebody's turn. */
const kept = new Float64Array(MOST)

/**
 * CPU milliseconds of each turn of the event loop while the work goes on. What `work` does
 * before it returns its promise is the caller's own, and in none of them.
 */
export async function turns(work: () => Promise<unknown>): Promise<Float64Array> {
  let count = 0
  let going = true
  const done = work()
  let last = native.threadCpuTime()
  const probe = () => {
    const now = native.threadCpuTime()
    if (count < MOST) kept[count++] = (now - last) / 1e6
    last = native.threadCpuTime()
    if (going) setImmediate(probe)
  }
  setImmediate(probe)
  await done
  going = false
  return kept.slice(0, count).sort()
}

/** As many turns of an idle loop. */
async function idleTurns(count: number): Promise<Float64Array> {
  let left = count
  return turns(
    () =>
      new Promise<void>((resolve) => {
        const next = () => (--left > 0 ? setImmediate(next) : resolve())
        next()
      }),
  )
}

/**
 * The p99.9 of the turns that had work in them. A loop that waits for other threads turns as
 * often as the machine lets it, with nothing to do: with those turns in the count, one machine's
 * figure would say how long others' threads took. So turns as short as an idle loop's are left out.
 */
async function workingTurns(
  moving: string,
  rounds: number,
  work: () => Promise<unknown>,
): Promise<Result[]> {
  // What runs for the first time is compiled.
  for (let i = 0; i < 3; i++) await work()
  const all: number[] = []
  let turned = 0
  for (let i = 0; i < rounds; i++) {
    const busy = await turns(work)
    const idle = quantile(await idleTurns(busy.length), 0.99)
    turned += busy.length
    for (const each of busy) if (each > idle) all.push(each)
  }
  all.sort((a, b) => a - b)
  const parameters = { moving, turns: turned, working: all.length }
  return [
    result('slice_p999_ms', 'ms', [quantile(all, 0.999)], parameters),
    result('slice_max_ms', 'ms', [all.at(-1) ?? NaN], { moving }),
  ]
}

/** 64 and 3000 small buffers, and 16 large ones, each at once. */
export async function slices(population: Population, quick: boolean): Promise<Result[]> {
  const few = async () => {
    await population.together(64)
    await population.singly(64)
  }
  const many = quick ? 200 : 3000
  const size = quick ? MiB : 64 * MiB
  await using large = await Large.create(16, size)
  return [
    ...(await workingTurns('64 of 4 KiB', quick ? 2 : 200, few)),
    ...(await workingTurns(`${many} of 4 KiB`, quick ? 2 : 20, () => population.together(many))),
    ...(await workingTurns(`16 of ${size / MiB} MiB`, quick ? 2 : 10, () => large.together())),
    result('slice_items', 'items', [SLICE_ITEMS]),
  ]
}

/** Buffers that each stop a channel of their own; as much memory again while they move. */
class Large implements AsyncDisposable {
  readonly #engine = new library.SoftwareEngine()
  readonly #buffers: library.MovableBuffer[] = []

  static async create(count: number, size: number): Promise<Large> {
    const large = new Large()
    const importer = large.#engine.importer({ minRunMs: 0 })
    for (let i = 0; i < count; i++) {
      const buffer = await library.MovableBuffer.create(size, library.memfd())
      large.#buffers.push(buffer)
      importer.channel().grant(await importer.attach(buffer))
    }
    return large
  }

  together(): Promise<unknown> {
    return Promise.all(this.#buffers.map((buffer) => buffer.move(library.memfd())))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#engine.close()
    await Promise.all(this.#buffers.map((buffer) => buffer.close()))
  }
}

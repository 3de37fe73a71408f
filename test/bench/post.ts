/**
 * What an operation costs in the batch form, against the same loop in C++
 * (native/software/bench_loop.cc) on the same device: both fill the columns,
 * post, have each row resolved, and reap, for copies of no bytes. What counts
 * is the CPU time of the thread that does so, not the device's, nor how the
 * two share the processors.
 */
import { setImmediate as turn } from 'node:timers/promises'
import { SoftwareEngine } from '../../lib/engines/index.js'
import { memfd } from '../../lib/exporters/index.js'
import { Batch, Completions, Op } from '../../lib/move-notify/importer/batch.js'
import type { Channel } from '../../lib/move-notify/importer/channel.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { native } from '../../lib/native.js'
import { pairs, type Ratio } from './measure.js'

const DEPTH = 1024

/** What is posted, and then reaped, at a time: the device works in between, untimed. */
interface Loop {
  channel: Channel
  batch: Batch
  out: Completions
  size: number
  source: number
  target: number
}

/** Returns nanoseconds of CPU. */
function post({ channel, batch, size, source, target }: Loop): number {
  const start = native.threadCpuTime()
  for (let cookie = 0; cookie < DEPTH; cookie += size) {
    for (let row = 0; row < size; row++) {
      batch.op[row] = Op.COPY
      batch.source[row] = source
      batch.target[row] = target
      batch.sourceOffset[row] = 0
      batch.targetOffset[row] = 64
      batch.length[row] = 0
      batch.cookie[row] = cookie + row
    }
    if (channel.post(batch, 0, size) !== size) throw new Error('a batch was refused')
  }
  return native.threadCpuTime() - start
}

/** Returns nanoseconds of CPU. */
function reap({ channel, out }: Loop): number {
  const start = native.threadCpuTime()
  let sum = 0
  for (let reaped = 0; reaped < DEPTH;) {
    const count = channel.reap(out)
    for (let row = 0; row < count; row++) sum += out.cookie[row]!
    reaped += count
  }
  const elapsed = native.threadCpuTime() - start
  if (sum !== (DEPTH * (DEPTH - 1)) / 2) throw new Error('completions were wrong')
  return elapsed
}

export async function postSuite(quick: boolean): Promise<Ratio[]> {
  await using engine = new SoftwareEngine()
  const importer = engine.importer()
  await using source = await MovableBuffer.create(4096, memfd())
  await using target = await MovableBuffer.create(4096, memfd())
  const from = await importer.attach(source)
  const to = await importer.attach(target)
  const channel = importer.channel({ depth: DEPTH })
  const theirs = engine.openChannel({ depth: DEPTH, onCompletion: () => undefined })
  const rounds = quick ? 5 : 50
  const operations = rounds * DEPTH
  const ratios: Ratio[] = []
  for (const size of [1, 32, 256]) {
    const batch = new Batch(size)
    const out = new Completions(DEPTH)
    // Makes the columns known to the channel in C++.
    theirs.post(batch, 0, 0)
    theirs.reap(out)
    const loop: Loop = { channel, batch, out, size, source: from.id, target: to.id }
    const javascript = async () => {
      let ns = 0
      for (let i = 0; i < rounds; i++) {
        const done = engine.stats().operations + DEPTH
        ns += post(loop)
        while (engine.stats().operations < done) await turn()
        ns += reap(loop)
      }
      return ns / operations
    }
    const cpp = () => {
      let ns = 0
      for (let i = 0; i < rounds; i++) ns += theirs.bench(DEPTH, size, from.id, to.id)
      return ns / operations
    }
    const parameters = { batch: size, operations }
    const name = `post_batch${size}_vs_cpp`
    ratios.push(await pairs(name, quick ? 5 : 31, 'ns/op', javascript, cpp, parameters))
  }
  return ratios
}

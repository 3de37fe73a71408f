/**
 * What an operation costs in the batch form, against the same loop in C++
 * (native/software/bench_loop.cc) on the same device: both fill the columns,
 * post, have each row resolved, and reap, for copies of no bytes. What counts
 * is the CPU time of the thread that does so, not the device's, nor how the
 * two share the processors.
 */
import * as library from '../../lib/index.js'
import { pairs, type Ratio } from './measure.js'
import { DEPTH, PostLoop } from './post-loop.js'

export async function postSuite(quick: boolean): Promise<Ratio[]> {
  await using loop = await PostLoop.open(library)
  const { engine, from, to } = loop
  const theirs = engine.openChannel({ depth: DEPTH, onCompletion: () => undefined })
  const rounds = quick ? 5 : 50
  const operations = rounds * DEPTH
  const ratios: Ratio[] = []
  for (const size of [1, 32, 256]) {
    // Makes the columns known to the channel in C++.
    theirs.post(loop.batch(size), 0, 0)
    theirs.reap(new library.Completions(DEPTH))
    const javascript = () => loop.measure(size, rounds)
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

/** What a move costs: by how many are attached, many at once, in slices, in bytes. */
import * as library from '../../lib/index.js'
import { pairs, ratioOf, result, type Ratio, type Result } from './measure.js'
import { Population } from './population.js'
import { slices } from './slices.js'

export async function moveSuite(quick: boolean): Promise<{ results: Result[]; ratios: Ratio[] }> {
  const most = quick ? 1000 : 100_000
  const count = quick ? 5 : 61
  const results: Result[] = []
  await using large = new Population(library)

  // Cost by the number attached; then the bytes, the buffers made before they are attached.
  for (let attached = 1; attached < most; attached *= 10) {
    await large.attach(attached)
    const samples: number[] = []
    for (let i = 0; i < count; i++) samples.push(await large.moves(10))
    results.push(result('move_one', 'us', samples, { attached }))
  }
  results.push(...(await bytes(large, most)))
  const samples: number[] = []
  for (let i = 0; i < count; i++) samples.push(await large.moves(10))
  results.push(result('move_one', 'us', samples, { attached: most }))

  const ratios = [
    ...(await oneOfMany(quick, most)),
    await pairs(
      'moves_64_together_vs_singly',
      count,
      'us',
      () => large.together(64),
      () => large.singly(64),
      { attached: most },
    ),
    await lockAllBeside(quick),
  ]
  results.push(...(await slices(large, quick)))
  return { results, ratios }
}

/**
 * One of many against one of ten. Where the scheduler happens to put an
 * engine's thread makes a third of the difference for as long as the engine
 * lives, so the pairs are of several engines.
 */
async function oneOfMany(quick: boolean, most: number): Promise<Ratio[]> {
  const engines = quick ? 1 : 6
  const best: [number, number][] = []
  const cpu: [number, number][] = []
  for (let engine = 0; engine < engines; engine++) {
    const { large, small } = await twoPopulations(most, engine % 2 === 0)
    for (let i = 0; i < (quick ? 5 : 12); i++) {
      best.push([await large.bestMoves(quick ? 1 : 6), await small.bestMoves(quick ? 1 : 6)])
      cpu.push([await large.cpuOfMoves(20), await small.cpuOfMoves(20)])
    }
    await small[Symbol.asyncDispose]()
    await large[Symbol.asyncDispose]()
  }
  const parameters = { attached: `${most} and 10`, engines }
  return [
    ratioOf('move_100k_vs_10', 'us/move', best, parameters),
    ratioOf('move_100k_vs_10_loop_cpu', 'us/move', cpu, parameters),
  ]
}

async function twoPopulations(most: number, largeFirst: boolean) {
  const large = new Population(library)
  if (largeFirst) await large.attach(most)
  const small = new Population(library)
  await small.attach(10)
  await large.attach(most)
  return { large, small }
}

/**
 * Step 3.1 to the mail's letter, which locks all that is attached, beside
 * locking what moved; until the channel runs again.
 */
async function lockAllBeside(quick: boolean): Promise<Ratio> {
  const attached = quick ? 100 : 10_000
  await using letter = new Population(library, true)
  await using ours = new Population(library)
  await letter.attach(attached)
  await ours.attach(attached)
  return await pairs(
    'move_lock_all_vs_what_moved',
    quick ? 3 : 31,
    'us/restart',
    () => letter.restarts(10),
    () => ours.restarts(10),
    { attached },
  )
}

async function bytes(population: Population, most: number): Promise<Result[]> {
  const { buffer, attachment } = await population.bytes(most - population.attachments.length)
  const parameters = { attached: most }
  return [
    result('bytes_per_buffer', 'B', [buffer], parameters),
    result('bytes_per_attachment', 'B', [attachment], parameters),
  ]
}

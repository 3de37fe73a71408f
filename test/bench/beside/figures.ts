/**
 * What of the host's figures can be measured of one library alone, once: each
 * through the public API, so that it can be asked of another checkout too.
 */
import { importOnce } from '../import-time.js'
import type { Library } from '../library.js'
import { Population } from '../population.js'
import { PostLoop } from '../post-loop.js'

/** What is measured is made when it is first asked for, and kept. */
export class Subjects {
  readonly quick: boolean
  /** Of lib/index.js. */
  readonly url: string
  readonly #library: Library
  #post: Promise<PostLoop> | null = null
  readonly #populations = new Map<string, Promise<Population>>()

  constructor(library: Library, url: string, quick: boolean) {
    this.#library = library
    this.url = url
    this.quick = quick
  }

  post(): Promise<PostLoop> {
    return (this.#post ??= PostLoop.open(this.#library))
  }

  /** With so many attached, a tenth or less of them if it is to be quick. */
  population(attached: number, lockAll = false): Promise<Population> {
    const key = `${attached} ${lockAll}`
    const made = this.#populations.get(key) ?? this.#populate(attached, lockAll)
    this.#populations.set(key, made)
    return made
  }

  async #populate(attached: number, lockAll: boolean): Promise<Population> {
    const population = new Population(this.#library, lockAll)
    await population.attach(this.quick ? Math.min(attached, 100) : attached)
    return population
  }

  /** Bytes for an attachment, of a population of its own. */
  async bytes(): Promise<number> {
    await using population = new Population(this.#library)
    await population.attach(100)
    const { attachment } = await population.bytes(this.quick ? 1000 : 10_000)
    return attachment
  }
}

export interface Figure {
  readonly name: string
  readonly suite: 'post' | 'moves' | 'import'
  readonly unit: string
  /** Smaller is better. */
  measure(subjects: Subjects): Promise<number> | number
}

const ATTACHED = 100_000

const post = (size: number): Figure => ({
  name: `post_batch${size}`,
  suite: 'post',
  unit: 'ns/op',
  measure: async (of) => (await of.post()).measure(size, of.quick ? 2 : 50),
})

const move = (
  name: string,
  unit: string,
  measure: (population: Population, quick: boolean) => Promise<number>,
): Figure => ({
  name,
  suite: 'moves',
  unit,
  measure: async (of) => measure(await of.population(ATTACHED), of.quick),
})

export const figures: readonly Figure[] = [
  ...[1, 32, 256].map(post),
  move('move_one', 'us', (large, quick) => large.bestMoves(quick ? 1 : 6)),
  move('move_one_loop_cpu', 'us', (large, quick) => large.cpuOfMoves(quick ? 2 : 60)),
  move('moves_64_together', 'us', (large) => large.together(64)),
  move('moves_64_singly', 'us', (large) => large.singly(64)),
  move('restart', 'us', (large) => large.restarts(10)),
  {
    name: 'restart_lock_all',
    suite: 'moves',
    unit: 'us',
    measure: async (of) => (await of.population(1000, true)).restarts(10),
  },
  { name: 'bytes_per_attachment', suite: 'moves', unit: 'B', measure: (of) => of.bytes() },
  { name: 'import_ms', suite: 'import', unit: 'ms', measure: (of) => importOnce(of.url) },
]

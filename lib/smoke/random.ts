/** Numbers that a seed repeats: xorshift32. */
export class Random {
  #state: number

  constructor(seed: number) {
    // The all-zero state would stay there.
    this.#state = (Math.imul(seed, 0x9e3779b1) ^ 0x5bd1e995) >>> 0 || 1
    for (let i = 0; i < 8; i++) this.below(2)
  }

  /** A whole number from 0 to `bound - 1`. */
  below(bound: number): number {
    let x = this.#state
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    this.#state = x >>> 0
    return Math.floor((this.#state / 2 ** 32) * bound)
  }

  /** The same elements in another order. */
  shuffled<T>(list: readonly T[]): T[] {
    const left = [...list]
    const mixed: T[] = []
    while (left.length > 0) mixed.push(...left.splice(this.below(left.length), 1))
    return mixed
  }
}

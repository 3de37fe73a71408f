/**
 * Says when memory pressure has become thrashing: what is evicted comes right
 * back. Of the last `window` uses,
 *
 *     ratio = bytes brought back that had been evicted at most `window` uses before
 *             --------------------------------------------------------------------
 *                                    bytes used
 *
 * Thrashing begins where the ratio reaches `enter`, once a quarter of the window
 * has been seen, and ends where it has fallen to `leave`. The clock is that of
 * the uses, not of the wall, so the same program gives the same answer. The
 * kernel's measure is of this kind: the distance between an eviction and the
 * refault (mm/workingset.c, workingset_refault()).
 */
import { checkInteger, checkOptions, rangeError, typeError } from '../../../errors.js'

export interface ThrashOptions {
  /** Uses of a buffer that are looked at, 1 to 65536. Default 64. */
  window?: number
  /** Ratio at which thrashing begins, above 0 and at most 1. Default 0.5. */
  enter?: number
  /** Ratio at which it ends, from 0 to below `enter`. Default half of `enter`. */
  leave?: number
}

export class ThrashDetector {
  readonly window: number
  readonly #enter: number
  readonly #leave: number
  readonly #used: Float64Array
  readonly #refaulted: Float64Array
  /** Uses so far: the clock. */
  #uses = 0
  #usedBytes = 0
  #refaultedBytes = 0
  #thrashing = false

  constructor(options: ThrashOptions = {}) {
    const { window = 64, enter = 0.5, leave } = checkOptions(options, 'thrash')
    this.window = checkInteger('window', window, 1, 65536)
    this.#enter = checkRatio('enter', enter, Number.MIN_VALUE, 1)
    this.#leave = checkRatio('leave', leave ?? this.#enter / 2, 0, this.#enter)
    if (this.#leave === this.#enter) throw rangeError('leave', `below enter, ${enter}`, leave)
    this.#used = new Float64Array(this.window)
    this.#refaulted = new Float64Array(this.window)
  }

  get uses(): number {
    return this.#uses
  }

  /** Bytes used in the window. */
  get usedBytes(): number {
    return this.#usedBytes
  }

  /** Of these, brought back soon after their eviction. */
  get refaultedBytes(): number {
    return this.#refaultedBytes
  }

  get ratio(): number {
    return this.#usedBytes === 0 ? 0 : this.#refaultedBytes / this.#usedBytes
  }

  get thrashing(): boolean {
    return this.#thrashing
  }

  /** Whether bringing back what was evicted when `uses` was `since` counts. */
  isRefault(since: number): boolean {
    return this.#uses - since <= this.window
  }

  /** One use. Returns whether thrashing has begun or ended with it. */
  add(bytes: number, refaultedBytes: number): boolean {
    const slot = this.#uses % this.window
    this.#usedBytes += bytes - (this.#used[slot] ?? 0)
    this.#refaultedBytes += refaultedBytes - (this.#refaulted[slot] ?? 0)
    this.#used[slot] = bytes
    this.#refaulted[slot] = refaultedBytes
    this.#uses++
    const { ratio } = this
    const before = this.#thrashing
    if (before) this.#thrashing = ratio > this.#leave
    else this.#thrashing = ratio >= this.#enter && this.#uses * 4 >= this.window
    return this.#thrashing !== before
  }
}

function checkRatio(argument: string, value: unknown, min: number, max: number): number {
  if (typeof value !== 'number') throw typeError(argument, 'a number', value)
  if (!(value >= min && value <= max)) throw rangeError(argument, `from ${min} to ${max}`, value)
  return value
}

/** Memory of one exporter, up to a number of bytes. */
import { P2pdmaError } from '../../../errors.js'
import type { Exporter } from '../backing.js'
import { allocate } from '../exporting.js'
import { HeldBacking } from './held-backing.js'

export class Budget<Owner> {
  readonly exporter: Exporter
  readonly bytes: number
  readonly #granularity: number
  readonly #onFreed: (backing: HeldBacking<Owner>) => void
  #charged = 0

  constructor(
    exporter: Exporter,
    bytes: number,
    granularity: number,
    onFreed: (backing: HeldBacking<Owner>) => void,
  ) {
    this.exporter = exporter
    this.bytes = bytes
    this.#granularity = granularity
    this.#onFreed = onFreed
  }

  /** Bytes that are held, or being asked for; what has been quarantined stays. */
  get charged(): number {
    return this.#charged
  }

  get left(): number {
    return this.bytes - this.#charged
  }

  /** What a buffer of `size` bytes will take, as far as one can know. */
  estimate(size: number): number {
    return Math.ceil(size / this.#granularity) * this.#granularity
  }

  /** ENOSPC where the budget is exhausted, or what the exporter rejects with. */
  async allocate(size: number): Promise<HeldBacking<Owner>> {
    const estimate = this.estimate(size)
    if (estimate > this.left) throw noSpace(estimate, this.bytes)
    // Before the memory is there: whoever asks meanwhile must not be given the same bytes.
    this.#charged += estimate
    let charged = estimate
    try {
      const backing = await allocate(this.exporter, size)
      const more = backing.size - estimate
      if (more > this.left) {
        await backing.free()
        throw noSpace(backing.size, this.bytes)
      }
      this.#charged += more
      charged = 0
      return new HeldBacking<Owner>(backing, (freed) => {
        this.#charged -= freed.size
        this.#onFreed(freed)
      })
    } finally {
      this.#charged -= charged
    }
  }
}

/** Whether an allocation failed for want of memory. */
export function isNoSpace(error: unknown): boolean {
  const { code } = (error ?? {}) as { code?: unknown }
  return code === 'ENOSPC' || code === 'ENOMEM'
}

export function noSpace(bytes: number, budget: number): P2pdmaError {
  return new P2pdmaError(`No room for ${bytes} bytes within the budget of ${budget}`, {
    code: 'ENOSPC',
    hint: 'what is pinned, revoked, in a bracket of CPU access, or asked for in the same call stays; so does what an importer cannot map where it would go',
  })
}

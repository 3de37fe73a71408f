/**
 * An exporter of somebody else's whose memory the CPU has not mapped: an array of its own,
 * which only its own functions read and write, as a GPU's driver does with video memory. It
 * pulls from what the CPU reaches and pushes there; how it does is its own business.
 */
import {
  type Backing,
  type CpuWindow,
  type Exporter,
  P2pdmaError,
  POISON,
  registerExporter,
} from '../../../lib/index.js'

const PAGE = 4096
/** What it has. */
const CAPACITY = 64 << 20

/** What the exporter has done, so that a test sees who was asked. */
export const counts = { pulls: 0, pushes: 0, allocated: 0 }

export class ToyBacking implements Backing {
  readonly placement: string
  readonly size: number
  readonly fd = -1
  readonly offset = 0
  readonly isDmaBuf = false
  readonly mapping = null
  #memory: BigUint64Array | null
  /** What is under way: the memory goes after it. */
  #busy: Promise<unknown> = Promise.resolve()

  constructor(placement: string, size: number) {
    this.placement = placement
    this.size = size
    this.#memory = new BigUint64Array(size / 8)
    counts.allocated++
  }

  canCopyFrom(source: Backing): boolean {
    return source instanceof ToyBacking || source.mapping !== null
  }

  copyFrom(source: Backing): Promise<void> {
    counts.pulls++
    return this.#track(this.#pull(source))
  }

  canCopyTo(target: Backing): boolean {
    return target.mapping !== null
  }

  copyTo(target: Backing): Promise<void> {
    counts.pushes++
    return this.#track(this.#push(target))
  }

  async #pull(source: Backing): Promise<void> {
    const length = Math.min(this.size, source.size)
    if (source instanceof ToyBacking) {
      this.#bytes.set(source.#bytes.subarray(0, length))
      return
    }
    const window = await source.openCpuWindow('r')
    this.#bytes.set(window.view(0, length))
    await window.end()
  }

  async #push(target: Backing): Promise<void> {
    const length = Math.min(this.size, target.size)
    const window = await target.openCpuWindow('w')
    window.view(0, length).set(this.#bytes.subarray(0, length))
    await window.end()
  }

  get #words(): BigUint64Array {
    if (this.#memory === null) throw new P2pdmaError('Backing is closed', { code: 'ERR_CLOSED' })
    return this.#memory
  }

  get #bytes(): Uint8Array {
    return new Uint8Array(this.#words.buffer)
  }

  openCpuWindow(): Promise<CpuWindow> {
    const error = new P2pdmaError(`The CPU has no window onto ${this.placement}`, {
      code: 'ERR_UNSUPPORTED',
    })
    return Promise.reject(error)
  }

  async poison(): Promise<void> {
    await Promise.resolve()
    this.#words.fill(POISON)
  }

  async countStrayWrites(): Promise<number> {
    await Promise.resolve()
    const words = this.#words
    let runs = 0
    for (let i = 0; i < words.length; i++) {
      if (words[i] !== POISON && (i === 0 || words[i - 1] === POISON)) runs++
    }
    return runs
  }

  async free(): Promise<void> {
    await this.#busy
    if (this.#memory !== null) counts.allocated--
    this.#memory = null
  }

  #track<T>(work: Promise<T>): Promise<T> {
    this.#busy = Promise.allSettled([this.#busy, work])
    return work
  }
}

export class ToyExporter implements Exporter {
  readonly placement: string
  readonly kind = 'embedded'

  constructor(placement: string) {
    this.placement = placement
  }

  async allocate(size: number): Promise<Backing> {
    await Promise.resolve()
    if (!(Number.isSafeInteger(size) && size >= 1 && size <= CAPACITY)) {
      throw new P2pdmaError(`size must be from 1 to ${CAPACITY}, not ${size}`, {
        code: 'ERR_OUT_OF_RANGE',
        argument: 'size',
      })
    }
    return new ToyBacking(this.placement, Math.ceil(size / PAGE) * PAGE)
  }
}

registerExporter({
  interfaceVersion: 1,
  name: 'toy-memory',
  spelling: 'toy-memory[:NAME]',
  open: (name) => new ToyExporter(name === null ? 'toy-memory' : `toy-memory:${name}`),
})

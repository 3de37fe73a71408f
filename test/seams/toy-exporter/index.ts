/**
 * An exporter of somebody else's whose memory the CPU has not mapped: an array of its own,
 * which only its own functions read and write, as a GPU's driver does with video memory. It
 * pulls from what the CPU reaches and pushes there; how it does is its own business.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import {
  type Backing,
  type Copier,
  type CopyRange,
  countStrayWritesByCopy,
  type CpuWindow,
  type Exporter,
  P2pdmaError,
  poisonByCopy,
  registerExporter,
} from '../../../lib/index.js'

const PAGE = 4096
/** What a copy of the whole takes at least, ms: no device is done in the turn that asks it. */
const COPY_MS = 5
/** What it has. */
const CAPACITY = 64 << 20

/** What the exporter has done, so that a test sees who was asked; of the whole, and in pieces. */
export const counts = { pulls: 0, pushes: 0, pieces: 0, allocated: 0 }

export class ToyBacking implements Backing {
  readonly placement: string
  readonly size: number
  readonly fd = -1
  readonly offset = 0
  readonly isDmaBuf = false
  readonly mapping = null
  #memory: Uint8Array | null
  /** What is under way: the memory goes after it. */
  #busy: Promise<unknown> = Promise.resolve()

  constructor(placement: string, size: number) {
    this.placement = placement
    this.size = size
    this.#memory = new Uint8Array(size)
    counts.allocated++
  }

  canCopyFrom(source: Backing): boolean {
    return source instanceof ToyBacking || source.mapping !== null
  }

  copyFrom(source: Backing, range?: CopyRange): Promise<void> {
    counts[range === undefined ? 'pulls' : 'pieces']++
    return this.#track(this.#pull(source, this.#rangeOf(source, range)))
  }

  canCopyTo(target: Backing): boolean {
    return target.mapping !== null
  }

  copyTo(target: Backing, range?: CopyRange): Promise<void> {
    counts[range === undefined ? 'pushes' : 'pieces']++
    return this.#track(this.#push(target, this.#rangeOf(target, range)))
  }

  #rangeOf({ size }: Backing, range?: CopyRange): CopyRange {
    return range ?? { sourceOffset: 0, targetOffset: 0, length: Math.min(this.size, size) }
  }

  async #pull(source: Backing, { sourceOffset, targetOffset, length }: CopyRange): Promise<void> {
    if (length === this.size) await sleep(COPY_MS)
    if (source instanceof ToyBacking) {
      this.bytes.set(source.bytes.subarray(sourceOffset, sourceOffset + length), targetOffset)
      return
    }
    const window = await source.openCpuWindow('r')
    this.bytes.set(window.view(sourceOffset, length), targetOffset)
    await window.end()
  }

  async #push(target: Backing, { sourceOffset, targetOffset, length }: CopyRange): Promise<void> {
    if (length === this.size) await sleep(COPY_MS)
    const window = await target.openCpuWindow('w')
    const view = window.view(targetOffset, length)
    view.set(this.bytes.subarray(sourceOffset, sourceOffset + length))
    await window.end()
  }

  /** What a device of the same maker sees. */
  get bytes(): Uint8Array {
    if (this.#memory === null) throw new P2pdmaError('Backing is closed', { code: 'ERR_CLOSED' })
    return this.#memory
  }

  openCpuWindow(): Promise<CpuWindow> {
    const error = new P2pdmaError(`The CPU has no window onto ${this.placement}`, {
      code: 'ERR_UNSUPPORTED',
    })
    return Promise.reject(error)
  }

  poison(copiers?: readonly Copier[]): Promise<void> {
    return poisonByCopy(this, copiers)
  }

  countStrayWrites(copiers?: readonly Copier[]): Promise<number> {
    return countStrayWritesByCopy(this, copiers)
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

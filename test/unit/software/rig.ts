/** What the tests of the software engine share: an engine with backings and one channel. */
import { Memfd } from '../../../lib/kernel/memfd.js'
import type { Mapping } from '../../../lib/kernel/mapping.js'
import type { Backing } from '../../../lib/move-notify/exporter/backing.js'
import { Batch, Completions, Op } from '../../../lib/move-notify/importer/batch.js'
import { Access } from '../../../lib/move-notify/importer/engine.js'
import { SoftwareEngine } from '../../../lib/engines/software/engine.js'
import type { SoftwareChannel } from '../../../lib/engines/software/channel.js'

export const KiB = 1024
export const MiB = 1024 * KiB
export const READ_WRITE = Access.READ | Access.WRITE

/** A backing of which only the mapping is real. */
export class FakeBacking implements Backing {
  readonly placement = 'fake'
  readonly fd = -1
  readonly isDmaBuf = false
  readonly mapping: Mapping
  readonly size: number
  readonly offset: number

  constructor(mapping: Mapping, offset = 0, size = mapping.length - offset) {
    this.mapping = mapping
    this.offset = offset
    this.size = size
  }

  get bytes(): Uint8Array {
    return new Uint8Array(this.mapping.view(this.offset, this.size))
  }

  copyFrom(): Promise<void> {
    return Promise.reject(new Error('not in these tests'))
  }
  poison(): Promise<void> {
    return Promise.reject(new Error('not in these tests'))
  }
  countStrayWrites(): Promise<number> {
    return Promise.reject(new Error('not in these tests'))
  }
  openCpuWindow(): Promise<never> {
    return Promise.reject(new Error('not in these tests'))
  }
  free(): Promise<void> {
    this.mapping.unmap()
    return Promise.resolve()
  }
}

export function backing(size: number): FakeBacking {
  using memfd = Memfd.create(size)
  return new FakeBacking(memfd.map({ populate: true }))
}

export interface Row {
  op?: number
  source?: number
  target?: number
  sourceOffset?: number
  targetOffset?: number
  length?: number
  operand?: number
  cookie?: number
}

export function fillRow(batch: Batch, index: number, row: Row): void {
  batch.op[index] = row.op ?? Op.COPY
  batch.source[index] = row.source ?? 0
  batch.target[index] = row.target ?? 0
  batch.sourceOffset[index] = row.sourceOffset ?? 0
  batch.targetOffset[index] = row.targetOffset ?? 0
  batch.length[index] = row.length ?? 0
  batch.operand[index] = row.operand ?? 0
  batch.cookie[index] = row.cookie ?? index
}

export interface Completion {
  cookie: number
  result: number
  status: number
  epoch: number
}

/** An engine with one channel, promises for completions, and everything closed at the end. */
export class Bench {
  readonly engine = new SoftwareEngine()
  readonly channel: SoftwareChannel
  readonly batch = new Batch(4096)
  readonly out = new Completions(4096)
  notifications = 0
  #wake: (() => void) | null = null
  readonly #backings: FakeBacking[] = []

  constructor(depth = 64) {
    this.channel = this.engine.openChannel({
      depth,
      onCompletion: () => {
        this.notifications++
        this.#wake?.()
      },
    })
  }

  /** Maps new memory as `id` and opens it. */
  map(id: number, size: number, access: number = READ_WRITE): FakeBacking {
    const made = backing(size)
    this.#backings.push(made)
    this.engine.map(id, made, size, access)
    this.engine.unseal(id)
    return made
  }

  post(...rows: Row[]): number {
    for (const [index, row] of rows.entries()) fillRow(this.batch, index, row)
    return this.channel.post(this.batch, 0, rows.length)
  }

  reap(): Completion[] {
    const count = this.channel.reap(this.out)
    return Array.from({ length: count }, (_, i) => ({
      cookie: this.out.cookie[i] ?? NaN,
      result: this.out.result[i] ?? NaN,
      status: this.out.status[i] ?? NaN,
      epoch: this.out.epoch[i] ?? NaN,
    }))
  }

  /** The next `count` completions, however many notifications that takes. */
  async take(count: number): Promise<Completion[]> {
    const taken: Completion[] = []
    for (;;) {
      taken.push(...this.reap())
      if (taken.length >= count) return taken
      await new Promise<void>((resolve) => {
        this.#wake = resolve
        this.channel.arm()
      })
      this.#wake = null
    }
  }

  /**
   * The next `count` completions that own no place in the ring: nothing is in
   * flight for them, so nothing but this keeps the process waiting.
   */
  async takeLate(count: number): Promise<Completion[]> {
    const taken: Completion[] = []
    await until(() => taken.push(...this.reap()) >= count)
    return taken
  }

  /** Posts and waits. */
  async run(...rows: Row[]): Promise<Completion[]> {
    const accepted = this.post(...rows)
    if (accepted !== rows.length) throw new Error(`${accepted} of ${rows.length} were accepted`)
    return this.take(rows.length)
  }

  [Symbol.dispose](): void {
    void this.engine.close() // done on return: it has no importers
    for (const each of this.#backings) each.mapping.unmap()
  }
}

/** Bytes that differ at each place. */
export function pattern(size: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(size)
  let state = seed >>> 0
  for (let i = 0; i < size; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    bytes[i] = state >>> 24
  }
  return bytes
}

/** Polls a condition that the device makes true; the test's own timeout ends it. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1))
}

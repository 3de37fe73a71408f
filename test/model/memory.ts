/**
 * The model's exporter: memory is a list of numbers, and everything that the
 * kernel does behind our back (allocate, copy in two halves) is an event.
 * Whoever touches memory that it must not touch fails the execution at once.
 */
import { P2pdmaError } from '../../lib/errors.js'
import type { Backing, CpuWindow, Exporter } from '../../lib/move-notify/exporter/backing.js'
import { HeldBacking } from '../../lib/move-notify/exporter/residency/held-backing.js'
import type { World } from './scheduler.js'

const POISON = -1

export interface MemoryFaults {
  /** These allocations fail (counted from 0 over all exporters of a Memory). */
  failAllocations?: number[]
  /** These copies fail, half done. */
  failCopies?: number[]
  /** These copies never end. */
  hangCopies?: number[]
  /** Copies may go on after their deadline, when the source is in use again. */
  lateCopies?: boolean
  /** Whether poisoning and freeing take events of their own. */
  slow?: boolean
  /** A copy that does not hang is done at once. */
  instant?: boolean
  /** The new backings are dma-bufs: their copy ends before they are published. */
  dmaBuf?: boolean
}

/** All the memory of one execution. */
export class Memory {
  readonly world: World
  readonly faults: MemoryFaults
  readonly backings: ModelBacking[] = []
  allocations = 0
  copies = 0

  constructor(world: World, faults: MemoryFaults = {}) {
    this.world = world
    this.faults = faults
  }

  exporter(placement: string): Exporter {
    return {
      placement,
      kind: 'embedded',
      allocate: (size) => this.#allocate(placement, size),
    }
  }

  #allocate(placement: string, size: number): Promise<Backing> {
    const number = this.allocations++
    return new Promise((resolve, reject) => {
      this.world.event(`allocation ${number}`, () => {
        if (this.faults.failAllocations?.includes(number) === true) {
          return reject(new P2pdmaError('no memory', { code: 'ENOMEM' }))
        }
        const backing = new ModelBacking(this, `${placement}/${number}`, size)
        this.backings.push(backing)
        resolve(backing)
      })
    })
  }

  /** An operation of the exporter's own, off the event loop. */
  later(name: string, run: () => void): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        run()
        resolve()
      }
      if (this.faults.slow === true) this.world.event(name, done)
      else done()
    })
  }
}

export class ModelBacking implements Backing {
  readonly #memory: Memory
  readonly placement: string
  readonly size: number
  readonly fd = -1
  readonly offset = 0
  readonly mapping = null
  readonly cells: number[]
  state: 'live' | 'filling' | 'broken' | 'poisoned' | 'freed' = 'live'
  /** Copies that read it now. */
  readers = 0
  windows = 0
  strays = 0

  constructor(memory: Memory, placement: string, size: number) {
    this.#memory = memory
    this.placement = placement
    this.size = size
    this.cells = new Array<number>(size).fill(0)
  }

  get isDmaBuf(): boolean {
    return this.#memory.faults.dmaBuf === true
  }

  /** The device's read. */
  load(at: number): number {
    this.#check('reads')
    return this.cells[at] ?? this.#memory.world.fail(`${this.placement} is read at ${at}`)
  }

  /** The device's write. */
  store(at: number, value: number): void {
    this.#check('writes')
    if (this.#isCopied) this.#fail(`the device writes ${this.placement} while it is copied`)
    if (!(at in this.cells)) this.#fail(`${this.placement} is written at ${at}`)
    this.cells[at] = value
  }

  get #isCopied(): boolean {
    return this.readers > 0 && this.#memory.faults.lateCopies !== true
  }

  #check(does: string): void {
    if (this.state === 'live') return
    this.#fail(`the device ${does} ${this.placement}, which is ${this.state}`)
  }

  #fail(message: string): never {
    return this.#memory.world.fail(message)
  }

  copyFrom(source: Backing): Promise<void> {
    if (source instanceof HeldBacking) return this.copyFrom(source.inner)
    const { world, faults } = this.#memory
    if (!(source instanceof ModelBacking)) return this.#fail('a copy from elsewhere')
    const number = this.#memory.copies++
    if (this.state !== 'live' || source.state !== 'live') {
      this.#fail(`a copy from a ${source.state} backing into a ${this.state} one`)
    }
    if (source.windows > 0) this.#fail('a copy within a bracket of CPU access')
    this.state = 'filling'
    source.readers++
    const half = source.size >> 1
    return new Promise((resolve, reject) => {
      world.event(`copy ${number}, first half`, () => {
        this.#take(source, 0, half)
        if (faults.hangCopies?.includes(number) === true) return
        world.event(`copy ${number}, second half`, () => {
          source.readers--
          if (faults.failCopies?.includes(number) === true) {
            this.state = 'broken'
            return reject(new P2pdmaError('the copy failed', { code: 'EIO' }))
          }
          this.#take(source, half, source.size)
          this.state = 'live'
          resolve()
        })
      })
    })
  }

  copyNow(source: Backing): boolean {
    if (source instanceof HeldBacking) return this.copyNow(source.inner)
    const { faults, copies } = this.#memory
    if (faults.instant !== true || faults.hangCopies?.includes(copies) === true) return false
    if (!(source instanceof ModelBacking)) return this.#fail('a copy from elsewhere')
    this.#memory.copies++
    if (this.state !== 'live') this.#fail(`a copy into a backing that is ${this.state}`)
    if (source.windows > 0) this.#fail('a copy within a bracket of CPU access')
    this.state = 'filling'
    if (faults.failCopies?.includes(copies) === true) {
      this.state = 'broken'
      throw new P2pdmaError('the copy failed', { code: 'EIO' })
    }
    this.#take(source, 0, source.size)
    this.state = 'live'
    return true
  }

  #take(source: ModelBacking, from: number, to: number): void {
    if (source.state !== 'live') this.#fail(`a copy reads a backing that is ${source.state}`)
    if (this.state !== 'filling') this.#fail(`a copy writes a backing that is ${this.state}`)
    for (let at = from; at < to; at++) this.cells[at] = source.cells[at] ?? POISON
  }

  openCpuWindow(): Promise<CpuWindow> {
    if (this.state !== 'live' || this.#isCopied) this.#fail('a bracket of CPU access in a move')
    this.windows++
    let open = true
    return Promise.resolve({
      view: (offset: number, length: number) =>
        Uint8Array.from(this.cells.slice(offset, offset + length)),
      end: () => {
        if (open) this.windows--
        open = false
        return Promise.resolve()
      },
    })
  }

  poison(): Promise<void> {
    if (this.readers > 0) this.#fail(`${this.placement} is poisoned while a copy reads it`)
    if (this.state !== 'live') this.#fail(`${this.placement} is poisoned and ${this.state}`)
    this.state = 'poisoned'
    return this.#memory.later(`poison ${this.placement}`, () => this.cells.fill(POISON))
  }

  countStrayWrites(): Promise<number> {
    return Promise.resolve(this.cells.filter((cell) => cell !== POISON).length)
  }

  free(): Promise<void> {
    if (this.readers > 0) this.#fail(`${this.placement} is freed while a copy reads it`)
    if (this.state === 'filling') this.#fail(`${this.placement} is freed while it is filled`)
    this.state = 'freed'
    return this.#memory.later(`free ${this.placement}`, () => {})
  }
}

/** One channel of the model's device: a ring of work, run chunk by chunk. */
import { P2pdmaError } from '../../lib/errors.js'
import { type Batch, type Completions, Op, Status } from '../../lib/move-notify/importer/batch.js'
import type { EngineChannel, EngineChannelOptions } from '../../lib/move-notify/importer/engine.js'
import { type BatchRow, rowOf } from '../batch-row.js'
import type { Mapping, ModelEngine } from './device.js'
import type { Step } from './scheduler.js'

/** What the device has done for one operation; the scenario judges it. */
export interface Work extends BatchRow {
  from: Mapping | null
  to: Mapping | null
  done: number
  /** How often its first chunk was run. */
  begun: number
  /** How often it was completed. */
  completed: number
  result: number
  status: number
}

interface Done {
  readonly work: Work
  epoch: number
}

type State = 'running' | 'stopping' | 'stopped' | 'closed'

export class DeviceChannel implements EngineChannel {
  readonly index: number
  readonly depth: number
  readonly #engine: ModelEngine
  readonly #onCompletion: () => void
  readonly #onUse: ((id: number) => void) | undefined
  /** Those that it has told of since it was asked and said no. */
  readonly #told = new Set<number>()
  #state: State = 'running'
  #epoch = 1
  stale = 0
  #forced = false
  #ring: Work[] = []
  #done: Done[] = []
  #armed = false
  #step: Step | null = null
  #interrupt: Step | null = null
  #ack: Step | null = null
  #stopped: () => void = () => {}
  /** Everything ever accepted, in order. */
  readonly history: Work[] = []
  restarts = 0

  constructor(engine: ModelEngine, index: number, options: EngineChannelOptions) {
    this.#engine = engine
    this.index = index
    this.depth = options.depth
    this.#onCompletion = options.onCompletion
    this.#onUse = options.onUse
  }

  /** Whether it may touch memory now. */
  get isMoving(): boolean {
    return this.#state === 'running' || this.#state === 'stopping'
  }

  get inFlight(): number {
    return this.#ring.length + this.#done.length
  }

  post(batch: Batch, first: number, count: number): number {
    if (this.#state !== 'running') return 0
    let accepted = 0
    while (accepted < count && this.inFlight < this.depth) {
      const work = workOf(batch, first + accepted)
      if (!this.#resolve(work, false)) break
      this.#ring.push(work)
      if (work.op !== Op.NOP) this.#tell(work.target)
      if (work.op === Op.COPY) this.#tell(work.source)
      this.history.push(work)
      accepted++
    }
    this.#schedule()
    return accepted
  }

  /** Finds the mappings of this moment. */
  #resolve(work: Work, sealedToo: boolean): boolean {
    const find = (id: number) => {
      const mapping = this.#engine.mapping(id)
      return mapping !== undefined && (sealedToo || !mapping.sealed) ? mapping : null
    }
    work.to = work.op === Op.NOP ? null : find(work.target)
    work.from = work.op === Op.COPY ? find(work.source) : null
    return (work.op === Op.NOP || work.to !== null) && (work.op !== Op.COPY || work.from !== null)
  }

  #schedule(): void {
    if (this.#step !== null || !this.isMoving || this.#ring.length === 0) return
    this.#step = this.#engine.world.event(`device ${this.index}: chunk`, () => {
      this.#step = null
      const { chunks = true } = this.#engine.faults
      do this.#chunk()
      while (!chunks && (this.#ring[0]?.done ?? 0) > 0)
      this.#schedule()
    })
  }

  #chunk(): void {
    const work = this.#ring[0]
    if (work === undefined) return
    this.#engine.accesses++
    if (work.done === 0) work.begun++
    if (work.to?.alive === false || work.from?.alive === false) {
      this.#engine.world.fail(`channel ${this.index} uses a mapping that is gone`)
    }
    const at = work.done++
    const { from, to } = work
    const load = (mapping: Mapping | null, offset: number) => mapping?.backing.load(offset) ?? -1
    const store = (offset: number, value: number) => {
      to?.backing.store(offset, value)
      this.#engine.onWrite(work.target, offset, value)
    }
    work.result = work.done
    if (work.op === Op.FILL) store(work.targetOffset + at, work.operand)
    if (work.op === Op.COPY) store(work.targetOffset + at, load(from, work.sourceOffset + at))
    if (work.op === Op.FETCH_ADD) {
      work.result = load(to, work.targetOffset)
      store(work.targetOffset, work.result + work.operand)
    }
    if (work.op === Op.FETCH_ADD || work.done >= work.length) this.#finish(Status.OK)
  }

  #finish(status: number): void {
    const work = this.#ring.shift()
    if (work === undefined) return
    work.status = status
    work.completed++
    this.#done.push({ work, epoch: this.#epoch })
    this.#raise()
  }

  #raise(): void {
    if (!this.#armed || this.#done.length === 0 || this.#interrupt !== null) return
    this.#armed = false
    this.#interrupt = this.#engine.world.event(`device ${this.index}: interrupt`, () => {
      this.#interrupt = null
      this.#onCompletion()
    })
  }

  reap(out: Completions): number {
    const taken = this.#done.splice(0, out.capacity)
    for (const [at, { work, epoch }] of taken.entries()) {
      out.cookie[at] = work.cookie
      out.result[at] = work.result
      out.status[at] = work.status
      out.epoch[at] = epoch
    }
    this.stale = taken.filter((each) => each.epoch !== this.#epoch).length
    return taken.length
  }

  arm(): void {
    this.#armed = true
    this.#raise()
  }

  /** As seldom as the contract allows. */
  #tell(id: number): void {
    if (this.#told.has(id)) return
    this.#told.add(id)
    this.#onUse?.(id)
  }

  uses(id: number): boolean {
    const used = this.names(id)
    if (!used) this.#told.delete(id)
    return used
  }

  /** As `uses()`, asked by the model itself. */
  names(id: number): boolean {
    return this.#ring.some(
      (work) =>
        (work.op !== Op.NOP && work.target === id) || (work.op === Op.COPY && work.source === id),
    )
  }

  stop(): void | Promise<void> {
    const { world, faults } = this.#engine
    const number = this.#engine.stops++
    if (this.#state !== 'running') world.fail(`stop() of a channel that is ${this.#state}`)
    this.#state = 'stopping'
    const hangs = faults.hangStops?.includes(number) === true
    if (faults.instant === true && !hangs) return this.#quiet()
    return new Promise((resolve) => {
      if (hangs) return
      this.#stopped = resolve
      this.#ack = world.event(`device ${this.index}: stopped`, () => {
        this.#quiet()
        resolve()
      })
    })
  }

  #quiet(): void {
    this.#state = 'stopped'
    if (this.#ack !== null) this.#engine.world.cancel(this.#ack)
    this.#ack = null
    if (this.#step !== null) this.#engine.world.cancel(this.#step)
    this.#step = null
  }

  force(): number {
    const { world, faults } = this.#engine
    if (this.#state !== 'stopping') world.fail(`force() of a channel that is ${this.#state}`)
    if (faults.failForces === true) throw new P2pdmaError('the device is gone', { code: 'ENODEV' })
    this.#quiet()
    this.#forced = true
    const old = this.#epoch++
    for (const done of this.#done) if (done.epoch === old) done.epoch = this.#epoch
    const late = this.#ring[0]
    if (late !== undefined) {
      world.event(`device ${this.index}: late completion`, () => {
        if (this.#state === 'closed') return
        this.#done.push({ work: { ...late, status: Status.OK }, epoch: old })
        this.#raise()
      })
    }
    return this.#epoch
  }

  restart(): void {
    if (this.#state !== 'stopped') {
      this.#engine.world.fail(`restart() of a channel that is ${this.#state}`)
    }
    this.restarts++
    this.#state = 'running'
    const held = this.#ring
    this.#ring = []
    for (const work of held) {
      this.#ring.push(work)
      if (!this.#resolve(work, true)) this.#finishLast(Status.NOT_MAPPED)
      else if (this.#forced && work.op === Op.FETCH_ADD && work.begun > 0) {
        this.#finishLast(Status.OUTCOME_UNKNOWN)
      } else if (this.#forced) work.done = 0
    }
    this.#forced = false
    this.#schedule()
  }

  /** Completes the newest; those before it stay in the ring. */
  #finishLast(status: number): void {
    const before = this.#ring.splice(0, this.#ring.length - 1)
    this.#finish(status)
    this.#ring.unshift(...before)
  }

  close(): void {
    if (this.#state === 'closed') return
    if (this.#interrupt !== null) this.#engine.world.cancel(this.#interrupt)
    this.#quiet()
    this.#state = 'closed'
    this.#stopped()
    this.#ring = []
    this.#done = []
  }
}

function workOf(batch: Batch, at: number): Work {
  return {
    ...rowOf(batch, at),
    from: null,
    to: null,
    done: 0,
    begun: 0,
    completed: 0,
    result: 0,
    status: -1,
  }
}

/**
 * design.md's "What always holds", on the software engine and real memory:
 * random work, moves, attaches, revokes, pins, brackets, aborts and forced
 * stops at once, against a reference model. P2PDMA_SEED repeats the choices.
 */
import t from 'tap'
import { SoftwareEngine } from '../../lib/engines/index.js'
import { memfd, slab } from '../../lib/exporters/index.js'
import type { Attachment } from '../../lib/move-notify/importer/attachment.js'
import { Op } from '../../lib/move-notify/importer/batch.js'
import type { Importer } from '../../lib/move-notify/importer/importer.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { quarantined } from '../../lib/move-notify/exporter/quarantine.js'
import { back, turn, usage } from '../lifecycle/support.js'
import { CELL, CELLS, generator, Job, Model, SIZE } from './invariants-model.js'
import { BatchLane, type Lane, PromiseLane, Tally, type Work } from './invariants-traffic.js'

const BUFFERS = 6
const ROUNDS = 12
const STEPS = 160

const seed = Number(process.env.P2PDMA_SEED ?? Math.floor(Math.random() * 2 ** 32))
const random = generator(seed)
const exporters = [memfd(), slab(memfd(), { slabSize: 4 * SIZE })] as const

interface Slot {
  buffer: MovableBuffer
  model: Model
  /** By importer. */
  attachments: (Attachment | null)[]
}

class World {
  readonly engine = new SoftwareEngine()
  readonly tally = new Tally()
  readonly importers: Importer[]
  /** Each with the importer whose attachments it takes. */
  readonly lanes: { lane: Lane; importer: number }[]
  readonly slots: Slot[] = []
  stalls = 0
  strayWrites = 0
  readonly #pending = new Set<Promise<void>>()

  constructor() {
    // Slow enough that most moves meet work in flight.
    const open = this.engine.openChannel.bind(this.engine)
    this.engine.openChannel = (options) => {
      const channel = open(options)
      channel.slow(100_000)
      return channel
    }
    const options = { stopTimeoutMs: 15, minRunMs: 0, starvationLimit: 2 }
    const [a, b] = [this.engine.importer(options), this.engine.importer(options)]
    this.importers = [a, b]
    this.lanes = [
      { lane: new PromiseLane(a.channel({ depth: 8 }), this.tally), importer: 0 },
      { lane: new BatchLane(a.channel({ depth: 4 }), this.tally), importer: 0 },
      { lane: new PromiseLane(b.channel({ depth: 64 }), this.tally), importer: 1 },
    ]
  }

  async add(index: number): Promise<void> {
    const buffer = await MovableBuffer.create(SIZE, random.pick(exporters), { poison: true })
    const attachments = await Promise.all(this.importers.map((each) => each.attach(buffer)))
    this.slots[index] = { buffer, model: new Model(), attachments }
  }

  /** Lets it run; only these codes may come of it. */
  start(what: string, expected: string[], work: () => Promise<unknown>): void {
    const watched = work().then(
      () => this.tally.count(what),
      (error: unknown) => {
        const { code } = error as { code?: string }
        this.tally.count(`${what} ${code}`)
        if (!expected.includes(code ?? '')) this.tally.surprises.push(`${what}: ${String(error)}`)
      },
    )
    this.#pending.add(watched)
    void watched.finally(() => this.#pending.delete(watched))
  }

  /** Starts one piece of work, if it finds cells that are free. */
  work(): void {
    const { lane, importer } = random.pick(this.lanes)
    const op = random.pick([Op.COPY, Op.COPY, Op.FILL, Op.FETCH_ADD])
    const to = random.pick(this.slots)
    const target = to.attachments[importer] ?? null
    const cells = op === Op.FETCH_ADD ? 1 : random.chance(0.2) ? 24 : 1 + random.below(3)
    const cell = random.below(CELLS - cells + 1)
    if (target === null || !to.model.canWrite(cell, cells)) return
    const length = op === Op.FETCH_ADD ? 8 : cells * CELL
    const range = { model: to.model, at: cell * CELL, length: cells * CELL }
    const operand = random.below(256)
    const work = { op, target, targetOffset: range.at, length, operand }
    if (op !== Op.COPY) {
      const effect = op === Op.FILL ? filled : added
      const job = new Job(null, range, (each) => effect(each, operand))
      return this.#submit(lane, { ...work, source: null, sourceOffset: 0, job })
    }
    const from = random.pick(this.slots)
    const source = from.attachments[importer] ?? null
    const sourceCell = random.below(CELLS - cells + 1)
    const overlaps = from === to && Math.abs(sourceCell - cell) < cells
    if (source === null || overlaps || !from.model.canRead(sourceCell, cells)) return
    const sourceRange = { model: from.model, at: sourceCell * CELL, length: cells * CELL }
    const job = new Job(sourceRange, range, () => from.model.slice(sourceRange))
    this.#submit(lane, { ...work, source, sourceOffset: sourceRange.at, job })
  }

  #submit(lane: Lane, work: Work): void {
    const abort = random.chance(0.05) ? AbortSignal.timeout(random.below(3)) : undefined
    this.start('work', [], () => lane.submit(work, abort))
  }

  /** Everything but work. */
  disturb(): void {
    const slot = random.pick(this.slots)
    const { buffer } = slot
    const gone = ['ERR_REVOKED']
    const kind = random.below(120)
    if (kind < 72) {
      const signal = random.chance(0.1) ? AbortSignal.timeout(random.below(3)) : undefined
      const codes = ['EBUSY', 'ABORT_ERR', ...gone]
      this.start('move', codes, () => buffer.move(random.pick(exporters), { signal }))
    } else if (kind < 87) {
      this.start('pin', gone, async () => {
        const pin = await buffer.pin()
        await turn(random.below(4))
        pin.unpin()
      })
    } else if (kind < 99) {
      this.start('bracket', [], () => buffer.withCpuAccess('r', () => turn(random.below(4))))
    } else if (kind < 112) {
      const importer = random.below(2)
      this.start('attach', gone, () => this.#reattach(slot, importer))
    } else if (kind < 114) {
      this.start('revoke', gone, () => buffer.revoke())
    } else if (this.stalls < 2 * ROUNDS) {
      this.stalls++
      this.engine.inject({ kind: 'stall' })
    }
  }

  async #reattach(slot: Slot, importer: number): Promise<void> {
    const attachment = slot.attachments[importer] ?? null
    if (attachment === null) return
    slot.attachments[importer] = null
    await attachment.close()
    await turn(random.below(3))
    slot.attachments[importer] = (await this.importers[importer]?.attach(slot.buffer)) ?? null
  }

  /** Waits until nothing is in progress; what is stalled and in nobody's way goes on. */
  async quiet(): Promise<void> {
    const isBusy = () => this.importers.some(({ stats }) => stats.inFlight + stats.waiting > 0)
    while (this.#pending.size > 0 || isBusy()) {
      await turn()
      this.engine.unstall()
    }
  }

  /** Compares every byte; puts a new buffer in a revoked one's place. */
  async check(): Promise<string[]> {
    const wrong: string[] = []
    for (const [index, { buffer, model }] of this.slots.entries()) {
      const mismatch = await model.mismatch(buffer)
      if (mismatch !== null) wrong.push(`buffer ${index}: ${mismatch}`)
      if (!buffer.isRevoked) continue
      await this.retire(buffer)
      await this.add(index)
    }
    return wrong
  }

  async retire(buffer: MovableBuffer): Promise<void> {
    this.strayWrites += await buffer.countStrayWrites()
    await buffer.close()
  }
}

function filled({ target }: Job, byte: number): Uint8Array {
  return new Uint8Array(target.length).fill(byte)
}

/** The cell with its first word counted up, modulo 2^64. */
function added({ target }: Job, value: number): Uint8Array {
  const bytes = target.model.slice(target)
  const words = new BigUint64Array(bytes.buffer, 0, 1)
  words[0] = (words[0] ?? 0n) + BigInt(value)
  return bytes
}

void t.test(`random work and moves, P2PDMA_SEED=${seed}`, async (t) => {
  const before = usage()
  const world = new World()
  for (let i = 0; i < BUFFERS; i++) await world.add(i)
  for (let round = 0; round < ROUNDS; round++) {
    for (let step = 0; step < STEPS; step++) {
      world.work()
      if (random.chance(0.3)) world.disturb()
      if (random.chance(0.25)) await turn(random.below(2))
    }
    await world.quiet()
    t.same(await world.check(), [], `round ${round}: every byte is as it must be`)
  }
  const { outcomes, surprises } = world.tally
  const sum = (key: 'stops' | 'forcedStops' | 'parked' | 'unmatchedCompletions') =>
    world.importers.reduce((total, { stats }) => total + stats[key], 0)
  const forced = sum('forcedStops')
  const { faults } = world.engine.stats()
  t.comment(Object.fromEntries(outcomes), { faults, forced, stops: sum('stops') })
  t.same(surprises, [], 'nothing ended in another way than it may')
  t.ok(
    faults <= forced,
    `a device meets no dead mapping unless it was forced (${faults}, ${forced})`,
  )
  t.equal(sum('unmatchedCompletions'), 0, 'nothing completed twice')
  t.same(
    world.importers.map(({ error }) => error),
    [null, null],
    'no importer has failed',
  )
  for (const { buffer } of world.slots) await world.retire(buffer)
  t.equal(world.strayWrites, 0, 'nobody wrote into an old backing')
  t.same(quarantined(), [])
  t.ok((outcomes.get('move') ?? 0) > 50 && sum('parked') > 0, 'moves met work')
  await world.engine.close()
  t.same({ ...(await back(before)), threads: 0 }, { ...before, threads: 0 }, 'nothing leaks')
})

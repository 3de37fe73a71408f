/** Who uses an attachment is known without a look at all that is in flight, and is as a look at it would say. */
import t from 'tap'
import { MappingState, Stage } from '../../lib/abi.js'
import { sendForm } from '../../lib/engines/vfio/e1000e/tx-queue.js'
import { MappingTable } from '../../lib/engines/vfio/mapping-table.js'
import { RingSlots } from '../../lib/engines/vfio/ring-slots.js'
import { RegionTable } from '../../lib/engines/verbs/region-table.js'
import { Rows } from '../../lib/engines/verbs/rows.js'
import { abandon, settle } from '../../lib/engines/verbs/settle.js'
import { Memfd } from '../../lib/kernel/index.js'
import { Registers } from '../../lib/kernel/vfio/registers.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import {
  Batch,
  Completions,
  Op,
  Status,
  namesSource,
  namesTarget,
} from '../../lib/move-notify/importer/batch.js'
import { Access } from '../../lib/move-notify/importer/engine.js'
import { Importer } from '../../lib/move-notify/importer/importer.js'
import { FakeEngine, FakeExporter } from './fake-memory.js'
import { Bench, KiB, until } from './software/rig.js'

/** Of a small generator, so that a failure can be repeated. */
function dice(seed: number): (sides: number) => number {
  let state = seed
  return (sides) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * sides)
  }
}

const SEEDS = 40
const TAG = 1 << 20

// --- verbs: rows that end in order, or not, and are taken back ---

/** The native side's part, played by the test: native/verbs/rows, Queues::Accept and Hand, Rows. */
class FakeQueue {
  readonly told = new Set<number>()
  readonly rows: Rows
  readonly #cursors: Float64Array
  readonly #depth: number

  constructor(depth: number) {
    this.#cursors = new Float64Array(new SharedArrayBuffer(40))
    this.#depth = depth
    this.rows = new Rows(depth, this.#cursors, 0)
  }

  accept(op: number, source: number, target: number): void {
    const { rows } = this
    if (rows.size === this.#depth) return
    const slot = rows.slot(rows.tail)
    rows.op[slot] = op
    rows.source[slot] = source
    rows.target[slot] = target
    rows.stage[slot] = Stage.HELD
    for (const id of [...(namesSource(op) ? [source] : []), ...(namesTarget(op) ? [target] : [])]) {
      const at = 2 * (id % TAG)
      const { last } = rows.uses
      if (last[at] !== id || last[at + 1] === 0) this.told.add(id)
      last[at] = id
      last[at + 1] = slot + 1
    }
    this.#cursors[2]!++
  }

  hand(): void {
    const { rows } = this
    for (; rows.next < rows.tail; this.#cursors[1]!++) {
      const slot = rows.slot(rows.next)
      if (rows.stage[slot] !== Stage.HELD) continue
      rows.stage[slot] = Stage.HANDED
      rows.message[slot] = rows.next
      this.#cursors[3]!++
    }
  }

  finish(position: number, status: number, result: number): void {
    const { rows } = this
    const slot = rows.slot(position)
    if (rows.stage[slot] === Stage.HANDED) this.#cursors[3]!--
    rows.stage[slot] = Stage.DONE
    rows.status[slot] = status
    rows.result[slot] = result
  }

  takeBack(position: number): void {
    const { rows } = this
    const slot = rows.slot(position)
    if (rows.stage[slot] !== Stage.HANDED) return
    rows.stage[slot] = Stage.HELD
    this.#cursors[3]!--
    if (position < rows.next) this.#cursors[1] = position
  }

  giveBack(): void {
    const { rows } = this
    while (rows.isOldestDone) this.#cursors[0]!++
    if (rows.next < rows.head) this.#cursors[1] = rows.head
  }

  /** What a look at all rows says. */
  scan(id: number, isIt: (stage: number) => boolean): boolean {
    const { rows } = this
    for (let position = rows.head; position < rows.tail; position++) {
      const slot = rows.slot(position)
      const op = rows.op[slot] ?? 0
      if (!isIt(rows.stage[slot] ?? 0)) continue
      if (namesSource(op) && rows.source[slot] === id) return true
      if (namesTarget(op) && rows.target[slot] === id) return true
    }
    return false
  }
}

void t.test('verbs: rows say what a look at all of them says', (t) => {
  const table = new RegionTable()
  let used = 0
  for (let seed = 1; seed <= SEEDS; seed++) {
    const roll = dice(seed)
    const queue = new FakeQueue(16)
    const receives = new FakeQueue(1)
    const { rows } = queue
    /** The newest of each of 8 slots: one that is closed is never named again. */
    const ids = Array.from({ length: 8 }, (_, slot) => slot)
    /** Who was told of, and never found unused since: the heart's list. */
    const listed = queue.told
    for (let step = 0; step < 400; step++) {
      const any = () => rows.head + roll(rows.size + 1)
      const what = roll(12)
      const id = () => ids[roll(8)]!
      if (what < 4) {
        const op = [Op.COPY, Op.SEND, Op.FETCH_ADD][roll(3)]!
        for (let n = roll(6); n >= 0; n--) queue.accept(op, id(), id())
      } else if (what < 6) queue.hand()
      else if (what === 6) queue.giveBack()
      else if (what === 7 && rows.size > 0) queue.finish(rows.head, Status.OK, 0)
      else if (what === 8 && rows.size > 0) queue.finish(any(), Status.NOT_MAPPED, 0)
      else if (what === 9 && rows.size > 0) queue.takeBack(any())
      else if (what === 10) {
        const of = (each: Rows) => (each === rows ? queue : receives)
        const work = {
          sends: rows,
          receives: receives.rows,
          finish: (each: Rows, ...rest: [number, number, number]) => of(each).finish(...rest),
          takeBack: (each: Rows, position: number) => of(each).takeBack(position),
        }
        if (roll(4) > 0) settle(work, rows.head + roll(8), table)
        else abandon(work)
      } else {
        const slot = roll(8)
        ids[slot] = ids[slot]! + TAG
      }
      for (const id of ids) {
        const says = queue.scan(id, (stage) => stage !== Stage.DONE)
        if (says) used++
        if (rows.hasHanded(id) !== queue.scan(id, (stage) => stage === Stage.HANDED)) {
          t.fail(`seed ${seed}, step ${step}: handed ${id}`)
        }
        // A move: not each time, since a no has consequences.
        if (roll(3) > 0) {
          if (says && !listed.has(id)) t.fail(`seed ${seed}, step ${step}: ${id} was not told of`)
          continue
        }
        if (rows.names(id) !== says) t.fail(`seed ${seed}, step ${step}: names ${id}`)
        if (!says) listed.delete(id)
      }
    }
  }
  t.ok(used > 10_000, 'many were in use')
  t.end()
})

// --- vfio: a ring that wraps, is rewound, and loses rows whose attachments are gone ---

void t.test('a ring says what a look at all of it says', (t) => {
  const ENTRIES = 16
  let used = 0
  for (let seed = 1; seed <= SEEDS; seed++) {
    const roll = dice(seed)
    using memfd = Memfd.create(8192)
    const memory = memfd.map()
    const table = new MappingTable()
    const ids = Array.from({ length: 200 }, (_, slot) => slot)
    const map = (id: number) => {
      const place = table.claim(id)
      table.reserved[place] = table.sizes[place] = 4096
      table.access[place] = Access.READ
      table.states[place] = MappingState.OPEN
    }
    for (const id of ids.slice(0, 8)) map(id)
    const listed = new Set<number>()
    const use = {
      queue: 'q',
      operations: [{ op: Op.SEND, minLength: 1, maxLength: 4096, alignment: 1 }],
    }
    const registers = new Registers(memory)
    const ring = { memory, entries: ENTRIES, form: sendForm, registers, tail: 4096 }
    const slots = new RingSlots(use, ring, table)
    const words = new Uint32Array(memory.view())
    const batch = new Batch(8)
    const out = new Completions(8)
    const scan = (id: number) =>
      Array.from({ length: slots.pending }, (_, i) => slots.rows.ids[slots.slot(i)]).includes(id)
    for (let step = 0; step < 300; step++) {
      const what = roll(10)
      const far = step > 200 ? 200 : 8
      if (step === 200) for (const id of ids.slice(8)) map(id)
      if (what < 4) {
        const count = 1 + roll(8)
        for (let i = 0; i < count; i++) {
          batch.op[i] = Op.SEND
          batch.source[i] = ids[roll(far)]!
          batch.length[i] = 8
        }
        slots.columns.useBatch(batch)
        slots.post(0, count, 15, false)
        slots.uses.tell((id) => void listed.add(id))
      } else if (what < 7 && slots.pending > 0) {
        for (let i = roll(slots.pending); i >= 0; i--) words[slots.slot(i) * 4 + 3] = 1
        slots.columns.useCompletions(out)
        slots.reap()
      } else if (what === 7) {
        slots.rewind()
      } else if (what === 8) {
        slots.drop(roll(slots.pending + 1))
      } else {
        // As RingBackend, of what names an attachment that is gone; its slot is another's then.
        const gone = roll(8)
        const { rows } = slots
        let kept = 0
        for (let i = 0; i < slots.pending; i++) {
          if (rows.ids[slots.slot(i)] !== ids[gone]) rows.move(slots.slot(i), slots.slot(kept++))
        }
        slots.pending = kept
        table.reserved[gone] = 0
        ids[gone] = ids[gone]! + TAG
        map(ids[gone])
      }
      for (const id of ids.slice(0, far)) {
        const says = scan(id)
        if (says) used++
        if (says && !listed.has(id)) t.fail(`seed ${seed}, step ${step}: ${id} was not told of`)
        if (roll(3) > 0) continue
        if (slots.isUsed(id) !== says) t.fail(`seed ${seed}, step ${step}: uses ${id}`)
        if (!says) listed.delete(id)
      }
    }
    slots.close()
    memory.unmap()
  }
  t.ok(used > 10_000, 'many were in use')
  t.end()
})

// --- the software engine, whose rows another thread ends ---

void t.test('the software engine says what a look at all that is in flight says', async (t) => {
  const roll = dice(7)
  const listed = new Set<number>()
  using bench = new Bench(32)
  const channel = bench.engine.openChannel({
    depth: 32,
    onCompletion: () => undefined,
    onUse: (id) => void listed.add(id),
  })
  const ids = [0, 1, 2, 3, 70, 300]
  for (const id of ids) bench.map(id, 4 * KiB)
  let rows: { op: number; source: number; target: number }[] = []
  const { batch, out } = bench
  let [used, unused, lastStep] = [0, 0, 0]
  const check = (step: number) => {
    lastStep = step
    for (const id of ids) {
      const says = rows.some(
        ({ op, source, target }) =>
          (namesTarget(op) && target === id) || (namesSource(op) && source === id),
      )
      if (says && !listed.has(id)) t.fail(`step ${step}: ${id} was not told of`)
      if (roll(3) > 0) continue
      if (channel.uses(id) !== says) t.fail(`step ${step}: uses ${id}`)
      if (says) used++
      else {
        unused++
        listed.delete(id)
      }
    }
  }
  /** Of a stopped channel: all is done, and reaped. */
  const drain = async () => {
    channel.slow(0)
    channel.restart()
    await until(() => {
      rows = rows.slice(channel.reap(out))
      return rows.length === 0
    })
  }
  for (let step = 0; step < 300; step++) {
    // The device moves a chunk, and not the next one for an hour.
    channel.slow(3600e9)
    const count = 1 + roll(8)
    for (let i = 0; i < count; i++) {
      const [op, source, target] = [roll(4), ids[roll(6)]!, ids[roll(6)]!]
      batch.op[i] = op
      batch.source[i] = source
      batch.target[i] = target
      batch.sourceOffset[i] = 0
      batch.targetOffset[i] = 1024
      batch.length[i] = op === Op.FETCH_ADD ? 8 : 64
      batch.operand[i] = 1
    }
    const accepted = channel.post(batch, 0, count)
    for (let i = 0; i < accepted; i++) {
      rows.push({ op: batch.op[i]!, source: batch.source[i]!, target: batch.target[i]! })
    }
    if (roll(4) === 0) {
      await channel.stop()
      await drain()
      check(step)
      continue
    }
    // Stopped, what it has done is not done by and by.
    if (roll(3) === 0) {
      void channel.stop()
      channel.force()
    } else await channel.stop()
    rows = rows.slice(channel.reap(out))
    check(step)
    if (roll(4) === 0) {
      // Gone, and another in its slot.
      const at = roll(6)
      bench.engine.unmap(ids[at]!)
      await drain()
      ids[at] = ids[at]! + TAG
      bench.map(ids[at], 4 * KiB)
      check(step)
    } else channel.restart()
  }
  t.equal(lastStep, 299)
  t.ok(used > 100 && unused > 100, `${used} were in use, ${unused} were not`)
})

// --- the heart: whom a move asks ---

async function rig(channels: number) {
  const engine = new FakeEngine()
  const importer = new Importer(engine, { minRunMs: 0 })
  const memory = new FakeExporter()
  const buffers = await Promise.all([1, 2, 3].map(() => MovableBuffer.create(4096, memory)))
  const [moved, from, to] = await Promise.all(buffers.map((each) => importer.attach(each)))
  engine.held = true
  const done = Array.from({ length: channels }, () =>
    importer.channel().copy(from!, 0, to!, 0, 4096),
  )
  const asked = () => engine.channels.reduce((sum, each) => sum + each.asked, 0)
  const move = async () => {
    const before = asked()
    await buffers[0]!.move(memory)
    while (moved!.state !== 'mapped') await new Promise((resolve) => setImmediate(resolve))
    return asked() - before
  }
  const close = async () => {
    engine.resume()
    await Promise.all(done)
    await importer.close()
    for (const each of buffers) await each.close()
    if (memory.alive > 0) throw new Error('a backing was not freed')
  }
  return { engine, importer, memory, moved: moved!, from: from!, buffers, move, close }
}

void t.test('a move asks none of those that do not use what moves', async (t) => {
  const { engine, importer, moved, from, move, close } = await rig(100)
  t.equal(await move(), 0, 'it was never named')
  const channel = importer.channel()
  const device = engine.channels.at(-1)!
  const copied = channel.copy(from, 0, moved, 0, 8)
  t.equal(await move(), 1, 'one has work in flight on it')
  t.equal(channel.stats.stops, 1)
  engine.held = false
  device.run()
  await copied
  engine.held = true
  t.equal(await move(), 1, 'asked once more')
  t.equal(channel.stats.stops, 1, 'and not stopped')
  t.equal(await move(), 0)
  const again = channel.copy(from, 0, moved, 0, 8)
  t.equal(await move(), 1, 'told of again')
  t.equal(channel.stats.stops, 2)
  const grant = importer.channel().grant(moved)
  t.equal(await move(), 2, 'a peer holds a key to it')
  grant[Symbol.dispose]()
  engine.held = false
  device.run()
  await again
  engine.held = true
  await channel.close()
  t.equal(await move(), 1, 'a closed channel is not asked')
  t.equal(await move(), 0)
  await close()
})

void t.test(
  'what waits for an attachment goes on when it is back, and hears of its end',
  async (t) => {
    const { importer, moved, from, buffers, memory, move, close } = await rig(1)
    const channel = importer.channel()
    // Nobody stops for it: it is without a mapping for a while, and then is restored.
    const moving = buffers[0]!.move(memory)
    while (moved.state === 'mapped')
      await new Promise((resolve) => queueMicrotask(() => resolve(0)))
    const waiting = channel.fill(moved, 0, 8, 1)
    const batched = importer.channel()
    const batch = new Batch(1)
    batch.op[0] = Op.FILL
    batch.target[0] = moved.id
    batch.length[0] = 8
    t.equal(batched.post(batch, 0, 1), 0)
    const ready = batched.ready(batch, 0)
    t.equal(channel.stats.waiting, 1)
    await moving
    await ready
    t.equal(batched.post(batch, 0, 1), 1)
    t.equal(channel.stats.waiting, 0)
    t.equal(await move(), 2, 'both have it in flight now')
    void from
    await close()
    t.same(await waiting, { bytes: 8 })
  },
)

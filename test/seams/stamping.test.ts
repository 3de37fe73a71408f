/** Stamps, looks at them and poison in memory that the CPU has not mapped: by whoever copies. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { STAGING_BYTES, withStaging } from '../../lib/exporters/staging.js'
import {
  type Backing,
  Importer,
  memfd,
  MovableBuffer,
  openEngine,
  POISON,
  poisonByCopy,
} from '../../lib/index.js'
import { quarantined } from '../../lib/move-notify/exporter/quarantine.js'
import { layOut, payloadOffset } from '../../lib/smoke/layout.js'
import type { SmokeReport } from '../../lib/smoke/report.js'
import { Probe } from '../../lib/smoke/probe.js'
import { CONSUMED, Stamps } from '../../lib/smoke/stamp.js'
import { Verdict } from '../../lib/abi.js'
import './toy-engine/index.js'
import { counts, type ToyBacking, ToyExporter } from './toy-exporter/index.js'

/** More than the staging memory has room for. */
const SIZE = 4 << 20
const layout = layOut(SIZE)
const slots = Array.from({ length: layout.groups * layout.groupSize }, (_, i) => i)

/** As the toy's, but its driver copies nowhere by itself. */
class Deaf extends ToyExporter {
  override async allocate(size: number): Promise<Backing> {
    return Object.defineProperties(await super.allocate(size), {
      canCopyFrom: { value: () => false },
      canCopyTo: { value: () => false },
    })
  }
}

const bytesOf = (buffer: MovableBuffer) => (buffer.backing as ToyBacking).bytes

const ways = [
  ['by its exporter', new ToyExporter('vram'), { written: 'pull', read: 'push' }],
  ['by a device that has both mapped', new Deaf('deaf'), { written: 'engine', read: 'engine' }],
] as const

for (const [who, exporter, by] of ways) {
  void t.test(`stamps get there and back ${who}`, async (t) => {
    await using engine = await openEngine('toy')
    await using buffer = await MovableBuffer.create(SIZE, exporter)
    const probe = new Probe(engine)
    await new Importer(probe).attach(buffer)
    t.ok(slots.length * layout.slotSize > 2 * STAGING_BYTES, 'in pieces')
    const stamps = new Stamps(layout, 1)
    t.same(stamps.by(buffer.placement), { written: null, read: null })
    await stamps.clear(buffer, slots)
    const bytes = bytesOf(buffer)
    const at = (slot: number) => payloadOffset(layout, slot)
    const last = slots.length - 1
    // A device's stray write into a guard, which a stamp is not to cover up.
    bytes[at(3) - 1] = 1
    const sequences = await stamps.stamp(buffer, slots)
    bytes[at(5) + 200] = (bytes[at(5) + 200] ?? 0) ^ 1
    bytes[at(last) + layout.payload] = 1
    const due = slots.map(() => Verdict.INTACT as number)
    due[3] = Verdict.GUARD_BEFORE
    due[5] = Verdict.MIXED
    due[last] = Verdict.GUARD_AFTER
    t.same(await stamps.verify(buffer, slots, sequences, false), due)
    t.same(await stamps.verify(buffer, slots, sequences, true), due, 'it was looked at, no more')
    const consumed = slots.map(() => CONSUMED)
    const intact = slots.map(() => Verdict.INTACT)
    t.same(await stamps.verify(buffer, slots, consumed, false), intact, 'guards and all')
    t.same(stamps.by(buffer.placement), by)
    t.equal(probe.channels.length, 0, 'nothing is kept of a copy')
  })

  void t.test(`poison gets there ${who}, and is looked at`, async (t) => {
    await using engine = await openEngine('toy')
    await using buffer = await MovableBuffer.create(3 * STAGING_BYTES, memfd(), { poison: true })
    await engine.importer().attach(buffer)
    const old = (await exporter.allocate(buffer.size)) as ToyBacking
    await poisonByCopy(old, buffer.attachments)
    t.ok(new BigUint64Array(old.bytes.buffer).every((word) => word === POISON))
    // Two, of which one lies across two pieces; and the last word.
    old.bytes.fill(0, STAGING_BYTES - 8, STAGING_BYTES + 16)
    old.bytes.fill(0, 2 * STAGING_BYTES, 2 * STAGING_BYTES + 1)
    old.bytes.fill(0, old.size - 1)
    t.equal(await old.countStrayWrites(buffer.attachments), 3)
    await old.free()
  })
}

void t.test('where nobody copies it says so', async (t) => {
  await using buffer = await MovableBuffer.create(SIZE, new Deaf('deaf'))
  const stamps = new Stamps(layout, 1)
  const refused = { code: 'ERR_UNSUPPORTED', message: /Nobody can copy from memfd to deaf/ }
  await t.rejects(stamps.stamp(buffer, slots), refused)
  await t.rejects(buffer.backing.poison(), refused)
  await t.rejects(stamps.verify(buffer, slots, slots, false), { code: 'ERR_UNSUPPORTED' })
})

void t.test('a copy that does not end takes nothing with it but its memory', async (t) => {
  const hung = await new ToyExporter('hung').allocate(4096)
  Object.defineProperty(hung, 'copyFrom', { value: () => new Promise(() => undefined) })
  const before = quarantined().length
  const writing = withStaging(
    hung,
    [],
    ({ write }) => write([{ sourceOffset: 0, targetOffset: 0, length: 64 }]),
    20,
  )
  const other = await new ToyExporter('sound').allocate(4096)
  const poisoned = poisonByCopy(other)
  await t.rejects(writing, { code: 'ETIMEDOUT' })
  await poisoned
  t.equal(quarantined().length, before + 2)
  t.ok(quarantined().includes(hung))
  await other.free()
})

void t.test('a close waits for what is under way', async (t) => {
  const buffer = await MovableBuffer.create(SIZE, new ToyExporter('vram'))
  const order: string[] = []
  const used = buffer.inPlace('r', async (backing) => {
    const closed = buffer.close().then(() => order.push('closed'))
    await withStaging(backing, [], ({ read }) =>
      read([{ sourceOffset: 0, targetOffset: 0, length: STAGING_BYTES }]),
    )
    order.push('used')
    return { closed }
  })
  await (
    await used
  ).closed
  t.same(order, ['used', 'closed'])
})

void t.test('a smoke run', (t) => {
  const here = dirname(fileURLToPath(import.meta.url))
  const words = ['toy-engine', 'toy-exporter'].flatMap((name) => ['--plugin', `./${name}/index.js`])
  const smoke = (...more: string[]) => {
    const cli = join(here, '../../lib/cli/main.js')
    const report = join(t.testdir({}), 'report.json')
    const all = [cli, 'smoke', ...words, '--json', report, '--size', '256K', ...more]
    const { status, stdout, stderr } = spawnSync(process.execPath, all, {
      encoding: 'utf8',
      cwd: here,
    })
    const found = JSON.parse(readFileSync(report, 'utf8')) as SmokeReport
    return { status, output: stdout + stderr, report: found }
  }
  const places = ['--from', 'toy-memory:a', '--to', 'toy-memory:b,memfd', '--moves', '100']
  const { status, output, report } = smoke('--engine', 'toy', ...places)
  t.equal(status, 0, output)
  t.equal(report.skipped.length, 0, 'every scenario has been played')
  t.ok(report.bytesVerified > 0)
  t.ok(report.planned.memoryBytes > STAGING_BYTES)
  const copied = { written: 'pull', read: 'push' }
  t.same(Object.fromEntries(report.exporters.map(({ name, stamped }) => [name, stamped])), {
    'toy-memory:a': copied,
    'toy-memory:b': copied,
    memfd: { written: 'mapping', read: 'mapping' },
  })
  t.match(output, /# stamps in toy-memory:a, .* by its exporter, .* by its exporter/)
  t.end()
})

void t.test('all is given back, but for what hung', async (t) => {
  t.equal(counts.allocated, 1)
})

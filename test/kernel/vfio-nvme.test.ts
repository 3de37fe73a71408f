/** Somebody else's driver (test/seams/nvme), on QEMU's drive behind the emulated IOMMU. */
import t from 'tap'
import { setImmediate as turn } from 'node:timers/promises'
import { engineChecks } from '../../lib/conformance/index.js'
import { openEngine, type VfioEngine } from '../../lib/engines/index.js'
import { memfd, udmabuf } from '../../lib/exporters/index.js'
import {
  bindToVfio,
  KernelLog,
  parseDmarFault,
  pciDevices,
  unbindFromVfio,
} from '../../lib/kernel/index.js'
import { Batch, Completions, Op, Status } from '../../lib/move-notify/importer/batch.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { pinnedBytes } from '../../lib/smoke/memory.js'
import '../seams/nvme/index.js'
import { listFds, openFds, page, settled } from './support.js'

if (process.env['P2PDMA_RIG'] !== '1') throw new Error('this writes to a drive: run it in the rig')

t.setTimeout(900_000)

/** Pages of a buffer: as many operations. */
const PAGES = 16
const SIZE = PAGES * page

const address = pciDevices().find((each) => each.class === 0x010802)?.address ?? ''
const bound = await bindToVfio(address)
t.teardown(async () => {
  if (bound[0]?.from !== 'vfio-pci') await unbindFromVfio(address)
})
const before = openFds()
const pinnedBefore = pinnedBytes()

/** What page `page` of the drive is written with: no two are alike. */
function pattern(index: number): Buffer {
  const bytes = Buffer.alloc(page)
  for (let at = 0; at < page; at += 8) bytes.writeDoubleLE(index * page + at + 0.5, at)
  return bytes
}

const pages = Array.from({ length: PAGES }, (_, i) => i)

class Bench implements AsyncDisposable {
  readonly engine: VfioEngine
  readonly source: MovableBuffer
  readonly target: MovableBuffer
  #moves = 0

  private constructor(engine: VfioEngine, source: MovableBuffer, target: MovableBuffer) {
    this.engine = engine
    this.source = source
    this.target = target
  }

  static async open(): Promise<Bench> {
    const engine = await openEngine(`vfio:${address}`)
    const make = () => MovableBuffer.create(SIZE, memfd(), { poison: true })
    return new Bench(engine, await make(), await make())
  }

  async attach() {
    const importer = this.engine.importer({ minRunMs: 0 })
    const drive = this.engine.attachStorage(importer)
    const [from, to] = [await importer.attach(this.source), await importer.attach(this.target)]
    return { importer, drive, from, to }
  }

  async play() {
    const attached = await this.attach()
    return { ...attached, channel: attached.importer.channel({ depth: 2 * PAGES }) }
  }

  fill(first: number): Promise<void> {
    return this.source.withCpuAccess('w', (cpu) => {
      for (const i of pages) cpu.view().set(pattern(first + i), i * page)
    })
  }

  /** Which pages of the target hold what those of the drive from `first` on should. */
  holding(first: number): Promise<number[]> {
    return this.target.withCpuAccess('r', (cpu) =>
      pages.filter((i) => pattern(first + i).equals(cpu.view().subarray(i * page, (i + 1) * page))),
    )
  }

  async move(): Promise<void> {
    const exporter = this.#moves++ % 2 === 0 ? udmabuf() : memfd()
    await Promise.all([this.source.move(exporter), this.target.move(exporter)])
  }

  async strays(): Promise<number> {
    return (await this.source.countStrayWrites()) + (await this.target.countStrayWrites())
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.engine.close()
    await this.source.close()
    await this.target.close()
  }
}

t.test('it is identified', async (t) => {
  await using bench = await Bench.open()
  const { engine } = bench
  t.match(engine.storage, { name: /^QEMU NVMe Ctrl .*p2pdma$/, size: 64 << 20, access: 3 })
  t.match(engine.capabilities, {
    operations: [{ op: Op.COPY, minLength: 512, maxLength: 4096, alignment: 512, withPeer: true }],
    isTwoSided: false,
  })
  t.strictSame([engine.mac, engine.link, engine.queues], [null, null, ['io']])
  t.strictSame(engine.stats(), { device: {}, dropped: 0, resets: 0 })
  t.throws(() => engine.inject({ kind: 'reset' }), { code: 'ERR_UNSUPPORTED' })
})

t.test('what is written is read, in blocks and across pages', async (t) => {
  await using bench = await Bench.open()
  const { drive, from, to, channel } = await bench.play()
  await bench.fill(0)
  const written = pages.map((i) => channel.copy(from, i * page, drive, i * page, page))
  t.ok((await Promise.all(written)).every(({ bytes }) => bytes === page))
  await Promise.all(pages.map((i) => channel.copy(drive, i * page, to, i * page, page)))
  t.strictSame(await bench.holding(0), pages)
  // Neither side at a page's beginning: two pages of memory, and of the drive.
  await channel.copy(drive, 3 * page + 512, to, page + 1536, page)
  await channel.copy(drive, 7 * page - 512, to, 5 * page, 512)
  const [whole, one] = await bench.target.withCpuAccess('r', (cpu) => [
    Buffer.from(cpu.view().subarray(page + 1536, 2 * page + 1536)),
    Buffer.from(cpu.view().subarray(5 * page, 5 * page + 512)),
  ])
  t.ok(whole?.equals(Buffer.concat([pattern(3), pattern(4)]).subarray(512, 512 + page)))
  t.ok(one?.equals(pattern(6).subarray(page - 512)))
  const refused = { code: 'ERR_INVALID_ARG_VALUE', message: /multiple of 512/ }
  await t.rejects(channel.copy(from, 8, drive, 0, 512), refused)
  await t.rejects(channel.copy(from, 0, to, 0, 512), { message: /the device’s storage/ })
  await drive.close()
  await t.rejects(channel.copy(from, 0, drive, 0, 512), { code: 'ERR_CLOSED' })
})

t.test('both buffers move while it reads and writes: nothing is lost, no fault', async (t) => {
  using log = KernelLog.open()
  await using bench = await Bench.open()
  const { drive, from, to, channel } = await bench.play()
  const rounds = [0, 1, 2, 3, 4, 5].map((round) => round * PAGES)
  const [early, late] = [pages.slice(0, PAGES / 2), pages.slice(PAGES / 2)]
  const write = (first: number) => (i: number) =>
    channel.copy(from, i * page, drive, (first + i) * page, page)
  const read = (first: number) => (i: number) =>
    channel.copy(drive, (first + i) * page, to, i * page, page)
  const amidMoves = async (each: (i: number) => Promise<unknown>) => {
    const begun = early.map(each)
    const moving = bench.move()
    await turn()
    await Promise.all([...begun, ...late.map(each), moving, bench.move()])
  }
  for (const first of rounds) {
    await bench.fill(first)
    await amidMoves(write(first))
  }
  for (const first of rounds) {
    await amidMoves(read(first))
    t.strictSame(await bench.holding(first), pages, `pages from ${first} on`)
  }
  const { stops, forcedStops, inFlight, unmatchedCompletions } = channel.stats
  t.ok(stops >= 2 * rounds.length, `${stops} stops`)
  t.strictSame([forcedStops, inFlight, unmatchedCompletions], [0, 0, 0])
  t.equal(await bench.strays(), 0)
  t.strictSame(
    log.read().flatMap(({ text }) => parseDmarFault(text) ?? []),
    [],
  )
})

t.test('a drive that hangs is forced, and does what it was given once it is revived', async (t) => {
  await using bench = await Bench.open()
  const { engine } = bench
  const { drive, from, to } = await bench.attach()
  await bench.fill(PAGES)
  const channel = engine.openChannel({ depth: 2 * PAGES, onCompletion: () => {} })
  const batch = new Batch(PAGES)
  const out = new Completions(PAGES)
  const run = async (source: { id: number }, target: { id: number }, meanwhile: () => unknown) => {
    for (const i of pages) {
      batch.op[i] = Op.COPY
      batch.source[i] = source.id
      batch.target[i] = target.id
      batch.sourceOffset[i] = batch.targetOffset[i] = i * page
      batch.length[i] = page
      batch.cookie[i] = i
    }
    t.equal(channel.post(batch, 0, PAGES), PAGES)
    await meanwhile()
    const done: number[] = []
    while (done.length < PAGES) {
      const count = channel.reap(out)
      for (let row = 0; row < count; row++) {
        t.match([out.status[row], out.result[row], out.epoch[row]], [Status.OK, page, 2])
        done.push(out.cookie[row] ?? -1)
      }
      await turn()
    }
    t.strictSame(
      done.sort((a, b) => a - b),
      pages,
    )
  }
  await run(from, drive, async () => {
    // Without it the drive fetches no more commands.
    engine.device.config.setMaster(false)
    const stopped = channel.stop()
    t.equal(channel.force(), 2)
    await stopped
    channel.restart()
  })
  t.equal(engine.stats().resets, 1)
  // By somebody else, who tells nobody.
  await run(drive, to, () => engine.device.reset())
  t.ok(engine.stats().resets >= 2)
  t.strictSame(await bench.holding(PAGES), pages)
  t.equal(await bench.strays(), 0)
  channel.close()
})

t.test('a drive that has failed is reset, and a move goes on', async (t) => {
  await using bench = await Bench.open()
  const { engine } = bench
  const { drive, from, channel } = await bench.play()
  // It cannot fetch what is in flight then: QEMU's says that it has failed (CSTS.CFS).
  engine.device.config.setMaster(false)
  const written = pages.map((i) => channel.copy(from, i * page, drive, i * page, page))
  await bench.source.move(memfd())
  t.ok((await Promise.all(written)).every(({ bytes }) => bytes === page))
  t.equal(engine.stats().resets, 1)
  t.equal(channel.stats.forcedStops, 0, 'what a reset has cut off is in flight no more')
})

t.test('the conformance suite', async (t) => {
  const open = async () => {
    const engine = await openEngine(`vfio:${address}`)
    const drive = engine.attachStorage(engine.importer())
    return {
      engine,
      fill: (...[batch, row, id, offset, length]: Parameters<Fill>) => {
        batch.op[row] = Op.COPY
        batch.source[row] = drive.id
        batch.sourceOffset[row] = 0
        batch.target[row] = id
        batch.targetOffset[row] = offset
        batch.length[row] = length
      },
      close: () => engine.close(),
    }
  }
  for (const check of engineChecks(open)) await t.test(check.name, () => check.run())
})

type Opened = Awaited<ReturnType<Parameters<typeof engineChecks>[0]>>
type Fill = NonNullable<Opened['fill']>

t.test('nothing is left', async (t) => {
  await settled()
  t.equal(openFds(), before, listFds().join('\n'))
  t.equal(pinnedBytes(), pinnedBefore)
})

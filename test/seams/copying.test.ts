/** Who is asked to get the bytes over, in which order; and what is said where nobody can. */
import t from 'tap'
import { type Backing, type Exporter, memfd, MovableBuffer, openEngine } from '../../lib/index.js'
import { wayToCopy } from '../../lib/move-notify/exporter/copying.js'
import './toy-engine/index.js'
import { counts, ToyExporter } from './toy-exporter/index.js'

const SIZE = 1 << 16

/** As `memfd`, but what it makes reads nowhere by itself. */
class Passive implements Exporter {
  readonly placement = 'memfd'
  readonly kind = 'embedded'

  async allocate(size: number): Promise<Backing> {
    const backing = await memfd().allocate(size)
    return Object.defineProperties(backing, {
      canCopyFrom: { value: () => false },
      copyFrom: { value: () => Promise.reject(new Error('it was asked all the same')) },
      copyNow: { value: () => false },
    })
  }
}

const isFilled = (buffer: MovableBuffer, byte: number) =>
  buffer.withCpuAccess('r', (cpu) => cpu.view().every((each) => each === byte))

void t.test('the new exporter pulls, the old one pushes', async (t) => {
  await using buffer = await MovableBuffer.create(SIZE, memfd(), { poison: true })
  await buffer.withCpuAccess('w', (cpu) => void cpu.view().fill(7))
  const before = { ...counts }
  await buffer.move(new ToyExporter('vram'))
  t.match(counts, { pulls: before.pulls + 1, pushes: before.pushes })
  await t.rejects(
    buffer.withCpuAccess('r', () => 0),
    { code: 'ERR_UNSUPPORTED' },
  )
  await buffer.move(new ToyExporter('other-vram'))
  t.match(counts, { pulls: before.pulls + 2, pushes: before.pushes })
  await buffer.move(memfd())
  t.match(counts, { pulls: before.pulls + 2, pushes: before.pushes + 1 })
  t.equal(await isFilled(buffer, 7), true)
  t.equal(await buffer.countStrayWrites(), 0)
  t.equal(counts.allocated, before.allocated, 'both are given back')
})

for (const name of ['toy', 'software']) {
  void t.test(`then a device that has both mapped: ${name}`, async (t) => {
    await using engine = await openEngine(name)
    await using buffer = await MovableBuffer.create(SIZE, new Passive(), { poison: true })
    await buffer.withCpuAccess('w', (cpu) => void cpu.view().fill(9))
    const importer = engine.importer()
    const attachment = await importer.attach(buffer)
    const { stats } = engine as unknown as { stats(): { bytes: number } }
    const bytes = () => stats.call(engine).bytes
    const before = bytes()
    await buffer.move(new Passive())
    t.equal(bytes() - before, SIZE, 'the device has copied it')
    t.equal(await isFilled(buffer, 9), true)
    await importer.fill(attachment, 0, SIZE, 3)
    t.equal(await isFilled(buffer, 3), true, 'the attachment is where the buffer is')
    t.equal(importer.size, 1)
  })
}

void t.test('then the CPU', async (t) => {
  await using buffer = await MovableBuffer.create(SIZE, new Passive(), { poison: true })
  await buffer.withCpuAccess('w', (cpu) => void cpu.view().fill(5))
  await buffer.move(new Passive())
  t.equal(await isFilled(buffer, 5), true)
})

void t.test('where nobody can nothing is stopped', async (t) => {
  class Deaf extends ToyExporter {
    override async allocate(size: number): Promise<Backing> {
      const backing = await super.allocate(size)
      return Object.defineProperty(backing, 'canCopyFrom', { value: () => false })
    }
  }
  await using engine = await openEngine('software')
  await using buffer = await MovableBuffer.create(SIZE, memfd())
  const importer = engine.importer()
  const attachment = await importer.attach(buffer)
  const { allocated } = counts
  const refused = { code: 'ERR_UNSUPPORTED', argument: 'exporter', hint: /by way of/ }
  await t.rejects(buffer.move(new Deaf('deaf'), { force: true }), refused)
  t.equal(counts.allocated, allocated)
  t.equal(attachment.state, 'mapped')
  t.equal(buffer.placement, 'memfd')
  await importer.fill(attachment, 0, SIZE, 1)
  const vram = await new ToyExporter('vram').allocate(SIZE)
  t.throws(() => wayToCopy(vram, { ...vram, mapping: null, canCopyFrom: () => false }, []))
  await vram.free()
})

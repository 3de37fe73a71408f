/** Where a buffer may live: who is asked, what is refused, what force does, and who comes back. */
import t, { type Test } from 'tap'
import { P2pdmaError } from '../../lib/errors.js'
import { SoftwareEngine } from '../../lib/engines/software/engine.js'
import { dmaRefusalOf as iommuRefusal } from '../../lib/engines/vfio/device-mappings.js'
import { memfd } from '../../lib/exporters/index.js'
import type { Backing } from '../../lib/move-notify/exporter/backing.js'
import { evict } from '../../lib/move-notify/exporter/evict.js'
import { Importer } from '../../lib/move-notify/importer/importer.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { ResidentSet } from '../../lib/move-notify/exporter/residency/resident-set.js'
import { Access } from '../../lib/move-notify/importer/engine.js'
import { FakeEngine, FakeExporter } from './fake-memory.js'

const PAGE = 4096
const turn = () => new Promise<void>((resolve) => setTimeout(resolve, 2))

async function attached(t: Test, count = 1) {
  const engine = new FakeEngine()
  engine.refused.add('far')
  const importer = new Importer(engine, { minRunMs: 0 })
  const near = new FakeExporter('near')
  const far = new FakeExporter('far')
  const buffers: MovableBuffer[] = []
  for (let i = 0; i < count; i++) buffers.push(await MovableBuffer.create(PAGE, near))
  const attachments = await Promise.all(buffers.map((each) => importer.attach(each)))
  t.teardown(async () => {
    await importer.close()
    for (const each of buffers) await each.close()
  })
  const [buffer] = buffers
  const [attachment] = attachments
  if (buffer === undefined || attachment === undefined) throw new Error('none')
  return { engine, importer, near, far, buffers, buffer, attachment }
}

void t.test('the error says who cannot follow, and where to', async (t) => {
  const { importer, far, buffer } = await attached(t)
  const error = await buffer.move(far).then(
    () => null,
    (error: unknown) => error as P2pdmaError,
  )
  t.match(error, { code: 'EOPNOTSUPP', errno: -95, argument: 'exporter', hint: /force: true/ })
  t.equal(error?.message, `${importer.name} cannot map the buffer in far: it does not reach so far`)
  t.equal(far.alive, 0, 'what was allocated has been given back')
  t.notOk(buffer.reservation.locked)
  t.equal(buffer.generation, 1)
})

void t.test('only those are asked that would lose something', async (t) => {
  const { near, far, buffer, attachment, importer } = await attached(t)
  await buffer.move(far, { force: true })
  await turn()
  t.match(attachment.error, { code: 'ERR_REMAP_FAILED', cause: { code: 'EOPNOTSUPP' } })
  await t.rejects(importer.fill(attachment, 0, 8, 1), { code: 'ERR_REMAP_FAILED' })
  await buffer.move(new FakeExporter('far'))
  await turn()
  t.equal(attachment.state, 'failed', 'has been tried, in vain')
  await attachment.close()
  await buffer.move(near)
  await turn()
  t.equal(attachment.state, 'closed')
})

void t.test('a remap that failed for another reason is tried again, too', async (t) => {
  const { engine, importer, near, buffer, attachment } = await attached(t)
  let isBroken = true
  engine.beforeMap = () => {
    if (isBroken) throw new P2pdmaError('no page tables', { code: 'ENOMEM' })
  }
  await buffer.move(near)
  while (attachment.state === 'invalid') await turn()
  t.equal(attachment.state, 'failed')
  isBroken = false
  const moved = buffer.move(near)
  await moved
  const done = importer.fill(attachment, 0, 8, 1)
  t.same(await done, { bytes: 8 }, 'work waits for the second try')
  t.equal(attachment.error, null)
})

void t.test('work that the device held while there was no mapping hears why', async (t) => {
  const { engine, importer, near, far, buffer, attachment } = await attached(t)
  engine.held = true
  const held = importer.fill(attachment, 0, 8, 1)
  held.catch(() => {})
  await buffer.move(far, { force: true })
  await buffer.move(near)
  await turn()
  t.equal(attachment.state, 'mapped')
  engine.resume()
  const how = await held.then(
    () => 'done',
    (error: unknown) => (error as P2pdmaError).code,
  )
  t.match(how, /^(done|ERR_REMAP_FAILED)$/)
})

void t.test('a failed importer is not asked, nor tried again', async (t) => {
  const { engine, importer, near, far, buffer, attachment } = await attached(t)
  importer.fail(new Error('broken'), true)
  await buffer.move(far)
  engine.refused.clear()
  await buffer.move(near)
  await turn()
  t.match(attachment.error, { code: 'ERR_IMPORTER_FAILED' })
})

void t.test('an engine that throws when it is asked stops nothing', async (t) => {
  const { engine, far, buffer, attachment } = await attached(t)
  engine.canMap = () => {
    throw new Error('its own')
  }
  await t.rejects(buffer.move(far), { message: 'its own' })
  t.equal(attachment.state, 'mapped')
  t.notOk(buffer.reservation.locked)
  t.equal(far.alive, 0)
  // Forced, it is not asked first, and where it is asked again its map() has the last word.
  await buffer.move(far, { force: true })
  while (attachment.state === 'invalid') await turn()
  t.equal(attachment.state, 'mapped')
})

void t.test('force is a boolean', async (t) => {
  const { near, buffer } = await attached(t)
  const force = 1 as unknown as boolean
  await t.rejects(buffer.move(near, { force }), { code: 'ERR_INVALID_ARG_TYPE', argument: 'force' })
})

void t.test('evict() takes others', async (t) => {
  const { importer, near, far, buffers } = await attached(t, 2)
  const free = await MovableBuffer.create(PAGE, near)
  t.equal(await evict([...buffers, free], far, PAGE), PAGE)
  t.equal(free.placement, 'far')
  t.same(
    buffers.map(({ placement }) => placement),
    ['near', 'near'],
  )
  t.equal(await evict(buffers, far, PAGE), 0, 'or none')
  t.equal(importer.stats.stops, 0)
  await free.close()
})

void t.test('a resident set makes room with those that may go', async (t) => {
  const engine = new FakeEngine()
  engine.refused.add('far')
  const importer = new Importer(engine, { minRunMs: 0 })
  const far = new FakeExporter('far')
  const near = new FakeExporter('near')
  await using set = new ResidentSet(near, { budget: 2 * 4096, evictTo: far })
  const stays = await set.create(PAGE)
  const attachment = await importer.attach(stays)
  const goes = await set.create(PAGE)
  const more = await set.create(PAGE)
  t.same(
    [stays, goes, more].map(({ placement }) => placement),
    ['near', 'far', 'near'],
  )
  t.equal(attachment.state, 'mapped')
  const other = await importer.attach(more)
  await t.rejects(set.use(goes), { code: 'ENOSPC', hint: /an importer cannot map/ })
  await other.close()
  await set.use(goes)
  t.same(
    [stays, goes, more].map(({ placement }) => placement),
    ['near', 'near', 'far'],
  )
  await importer.close()
})

void t.test('what the engines answer', async (t) => {
  const engine = new SoftwareEngine()
  const real = await memfd().allocate(PAGE)
  const unmapped = { placement: 'vram', mapping: null, isDmaBuf: true } as Backing
  t.equal(engine.capabilities.canMap?.(real, Access.READ), null)
  t.match(engine.capabilities.canMap?.(unmapped, Access.READ) ?? '', /CPU can map/)
  t.equal(iommuRefusal(real), null)
  t.match(iommuRefusal(unmapped), /pages/)
  t.match(iommuRefusal({ ...unmapped, mapping: real.mapping, dmaMapping: null }), /pages/)
  t.equal(iommuRefusal({ ...unmapped, dmaMapping: real.mapping }), null)
  await real.free()
  await engine.close()
})

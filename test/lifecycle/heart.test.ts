/** What once went wrong in the heart, one test each; on fakes where a hang has to be arranged. */
import t from 'tap'
import { SoftwareEngine } from '../../lib/engines/index.js'
import { memfd } from '../../lib/exporters/index.js'
import { Batch, Op } from '../../lib/move-notify/importer/batch.js'
import { Importer } from '../../lib/move-notify/importer/importer.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { FakeEngine, FakeExporter } from '../unit/fake-memory.js'
import { firstByte, outcome, PAGE, turn } from './support.js'

void t.test('two importers of one engine do not meet in its table', async (t) => {
  await using engine = new SoftwareEngine()
  await using a = await MovableBuffer.create(PAGE, memfd())
  await using b = await MovableBuffer.create(PAGE, memfd())
  const first = engine.importer()
  const second = engine.importer()
  const toA = await first.attach(a)
  const toB = await second.attach(b)
  t.not(toA.id, toB.id)
  await second.fill(toB, 0, PAGE, 9)
  await first.fill(toA, 0, PAGE, 7)
  t.same([await firstByte(a), await firstByte(b)], [7, 9], 'each reaches its own buffer')
  t.equal(first.attachmentById(toB.id), undefined)
  await first.close()
  await second.fill(toB, 0, PAGE, 8)
  t.equal(await firstByte(b), 8, 'the close of one leaves the other')
})

void t.test('an id kept past the close of its importer names nothing', async (t) => {
  await using engine = new SoftwareEngine()
  await using a = await MovableBuffer.create(PAGE, memfd())
  await using b = await MovableBuffer.create(PAGE, memfd())
  const first = engine.importer()
  const stale = (await first.attach(a)).id
  await first.close()
  const second = engine.importer()
  await second.attach(b)
  const batch = new Batch(1)
  batch.op[0] = Op.FILL
  batch.target[0] = stale
  batch.length[0] = PAGE
  batch.operand[0] = 1
  const channel = second.channel()
  t.throws(() => channel.post(batch, 0, 1), { code: 'ERR_CLOSED' })
  t.equal(await firstByte(b), 0)
})

void t.test('a copy that hangs does not hang the move behind it', async (t) => {
  const here = new FakeExporter('here')
  const hanging = new FakeExporter('hanging')
  hanging.beforeCopy = () => new Promise(() => {})
  const engine = new FakeEngine()
  const importer = new Importer(engine)
  const buffer = await MovableBuffer.create(PAGE, here)
  const attachment = await importer.attach(buffer)
  const first = buffer.move(hanging, { copyTimeoutMs: 20 })
  first.catch(() => {})
  await turn()
  const second = buffer.move(here)
  t.equal(await outcome(first), 'ETIMEDOUT')
  t.equal(await outcome(second), 'ERR_FENCE_FAILED', 'it waited for the fence, which failed')
  t.equal(buffer.placement, 'here')
  t.equal(attachment.state, 'failed')
  await importer.close()
  await buffer.close()
})

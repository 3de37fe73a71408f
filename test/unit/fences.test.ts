/** Fences of a reservation: one time for a whole wait, a failure told once, and one of each. */
import t from 'tap'
import { Allowance } from '../../lib/move-notify/reservation/deadline.js'
import { Fence } from '../../lib/move-notify/reservation/fence.js'
import { Importer } from '../../lib/move-notify/importer/importer.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { type Reservation, Usage } from '../../lib/move-notify/reservation/reservation.js'
import { FakeEngine, FakeExporter } from './fake-memory.js'

const here = new FakeExporter('here')
const there = new FakeExporter('there')

async function made() {
  const engine = new FakeEngine()
  const importer = new Importer(engine, { minRunMs: 0, fenceTimeoutMs: 100 })
  const buffer = await MovableBuffer.create(4096, here)
  const end = async () => {
    await importer.close()
    await buffer.close()
  }
  return { importer, buffer, reservation: buffer.reservation, end }
}

async function add(reservation: Reservation, usage: Usage, fence: Fence): Promise<void> {
  await reservation.lock()
  reservation.addFence(fence, usage)
  reservation.unlock()
}

async function failed(reservation: Reservation, usage: Usage): Promise<void> {
  const { fence, signal } = Fence.create()
  await add(reservation, usage, fence)
  signal(Object.assign(new Error('it fell off'), { code: 'EIO', errno: -5, syscall: 'copy' }))
}

void t.test('a time limit is for all fences together', async (t) => {
  const waits: [string, Usage, (of: Awaited<ReturnType<typeof made>>) => Promise<unknown>][] = [
    ['wait', Usage.BOOKKEEP, (of) => of.reservation.wait(Usage.BOOKKEEP, { timeoutMs: 100 })],
    ['waitSettled', Usage.READ, (of) => of.reservation.waitSettled(3, { timeoutMs: 100 })],
    ['move, of others', Usage.WRITE, (of) => of.buffer.move(there, { copyTimeoutMs: 100 })],
    ['move, of KERNEL', Usage.KERNEL, (of) => of.buffer.move(there, { copyTimeoutMs: 100 })],
    ['attach', Usage.KERNEL, (of) => of.importer.attach(of.buffer)],
  ]
  for (const [name, usage, wait] of waits) {
    const of = await made()
    const signals: (() => void)[] = []
    for (let i = 0; i < 10; i++) {
      const { fence, signal } = Fence.create()
      // A move minds all usages: half of them each.
      await add(of.reservation, name === 'move, of others' && i % 2 === 0 ? 0 : usage, fence)
      signals.push(signal)
    }
    let signalled = 0
    // The oldest in 60 ms, the next 60 ms later: each of them comes in time by itself.
    const timer = setInterval(() => (signals[signalled]?.(), signalled++), 60)
    await t.rejects(wait(of), { code: 'ETIMEDOUT' }, name)
    t.ok(signalled < 10, `${name}: before the last one`)
    clearInterval(timer)
    for (const signal of signals) signal()
    t.notOk(of.reservation.locked)
    await of.end()
  }
})

void t.test('waits in a row have one allowance', async (t) => {
  const late = () => new Error('late')
  const allowance = new Allowance(150)
  const sleep = (ms: number) => new Promise<string>((done) => setTimeout(done, ms, 'done'))
  t.equal(await allowance.spend(sleep(60), late), 'done')
  await t.rejects(
    (async () => {
      for (let i = 0; i < 20; i++) await allowance.spend(sleep(60), late)
    })(),
    { message: 'late' },
  )
  await t.rejects(allowance.spend(new Promise(() => {}), late), { message: 'late' }, 'none is left')
  t.equal(await new Allowance(Infinity).spend(sleep(1), late), 'done')
})

void t.test('a failure is told once, and the buffer can be used', async (t) => {
  const uses: [string, (of: Awaited<ReturnType<typeof made>>) => Promise<unknown>][] = [
    ['attach', (of) => of.importer.attach(of.buffer)],
    ['pin', async (of) => (await of.buffer.pin()).unpin()],
    ['CPU access', (of) => of.buffer.withCpuAccess('r', () => 1)],
    ['move', (of) => of.buffer.move(there)],
    ['wait', (of) => of.reservation.wait(Usage.KERNEL)],
  ]
  for (const [name, use] of uses) {
    const of = await made()
    await failed(of.reservation, Usage.KERNEL)
    const error = { code: 'ERR_FENCE_FAILED', errno: -5, syscall: 'copy' }
    await t.rejects(use(of), error, `${name} hears of it`)
    for (const [again, next] of uses) await t.resolves(next(of), `${name}, then ${again}`)
    t.ok(of.reservation.isIdle(Usage.BOOKKEEP))
    await of.end()
  }
})

void t.test('all who waited when it failed hear of it', async (t) => {
  const { reservation, end } = await made()
  const { fence, signal } = Fence.create()
  await add(reservation, Usage.WRITE, fence)
  const waits = [1, 2, 3].map(() => reservation.wait(Usage.READ).then(String, () => 'failed'))
  const settled = reservation.waitSettled(Usage.READ)
  signal(new Error('gone'))
  t.same(await Promise.all(waits), ['failed', 'failed', 'failed'])
  await settled
  await reservation.wait(Usage.READ)
  await end()
})

void t.test('the failures of others do not concern a move', async (t) => {
  const { buffer, reservation, end } = await made()
  await failed(reservation, Usage.READ)
  await buffer.move(there)
  t.equal(buffer.placement, 'there')
  await end()
})

void t.test('the failed copy of a move concerns all until the buffer is whole again', async (t) => {
  const { buffer, reservation, end } = await made()
  const far = new FakeExporter('far')
  let fail = () => {}
  far.beforeCopy = () => new Promise((_, reject) => (fail = () => reject(new Error('no copy'))))
  const move = t.rejects(buffer.move(far), { code: 'ERR_FENCE_FAILED' })
  while (buffer.placement !== 'far') await new Promise((resolve) => setImmediate(resolve))
  // One waits with the lock, one for the lock, and only then comes the mover's clean-up.
  const pins = [buffer.pin(), buffer.pin()].map((each) =>
    t.rejects(each, { code: 'ERR_FENCE_FAILED' }),
  )
  fail()
  await Promise.all([move, ...pins])
  t.same([buffer.placement, buffer.isPinned], ['here', false])
  t.ok(reservation.isIdle(Usage.BOOKKEEP))
  ;(await buffer.pin()).unpin()
  await end()
})

void t.test('it is signalled when signal() returns', async (t) => {
  const good = Fence.create()
  good.signal()
  t.same([good.fence.signaled, good.fence.error], [true, null])
  await good.fence.wait({ timeoutMs: 0 })
  const bad = Fence.create()
  bad.signal(new Error('why'))
  t.match(bad.fence.error, { code: 'ERR_FENCE_FAILED', cause: { message: 'why' } })
  bad.signal()
  good.signal(new Error('too late'))
  t.ok(bad.fence.error !== null && good.fence.error === null, 'the first one counts')
  await t.rejects(bad.fence.wait(), { code: 'ERR_FENCE_FAILED' })
})

void t.test('the same fence twice is one, of the stronger usage', async (t) => {
  const { reservation, end } = await made()
  const { fence, signal } = Fence.create()
  for (const usage of [Usage.READ, Usage.BOOKKEEP, Usage.WRITE, Usage.READ]) {
    await add(reservation, usage, fence)
  }
  t.same(reservation.fences(Usage.BOOKKEEP), [fence])
  t.same(reservation.fences(Usage.WRITE), [fence])
  t.same(reservation.fences(Usage.KERNEL), [])
  signal()
  await reservation.wait(Usage.BOOKKEEP)
  await end()
})

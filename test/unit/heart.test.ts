import t, { type Test } from 'tap'
import { P2pdmaError } from '../../lib/errors.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { Importer, type ImporterOptions } from '../../lib/move-notify/importer/importer.js'
import { quarantined } from '../../lib/move-notify/exporter/quarantine.js'
import type { Exporter } from '../../lib/move-notify/exporter/backing.js'
import { Fence } from '../../lib/move-notify/reservation/fence.js'
import { Usage } from '../../lib/move-notify/reservation/reservation.js'
import type { FakeBacking } from './fake-memory.js'
import { FakeEngine, FakeExporter } from './fake-memory.js'

const PAGE = 4096

async function rig(t: Test, options: ImporterOptions = {}) {
  const engine = new FakeEngine()
  const importer = new Importer(engine, { minRunMs: 0, ...options })
  const memory = new FakeExporter('a')
  const other = new FakeExporter('b')
  const source = await MovableBuffer.create(PAGE, memory, { poison: true })
  const target = await MovableBuffer.create(PAGE, memory, { poison: true })
  const from = await importer.attach(source)
  const to = await importer.attach(target)
  await source.withCpuAccess('w', (cpu) => void cpu.view().fill(7))
  const bytes = () => (target.backing as FakeBacking).bytes
  const close = async () => {
    await importer.close()
    await source.close()
    await target.close()
    t.equal(memory.alive + other.alive, 0, 'every backing was freed')
  }
  return { engine, importer, memory, other, source, target, from, to, bytes, close }
}

void t.test('a copy arrives', async (t) => {
  const { importer, from, to, bytes, close } = await rig(t)
  t.same(await importer.copy(from, 0, to, 0, PAGE), { bytes: PAGE })
  t.ok(bytes().every((byte) => byte === 7))
  await close()
})

void t.test('work in flight is stopped, moved and finished', async (t) => {
  const { engine, importer, other, target, from, to, bytes, close } = await rig(t)
  engine.held = true
  const done = importer.copy(from, 0, to, 0, PAGE)
  const moved = target.move(other)
  await new Promise((resolve) => setTimeout(resolve, 5))
  const parked = importer.copy(from, 0, to, 0, 8)
  const result = await moved
  t.equal(result.generation, 2)
  t.equal(target.placement, 'b')
  engine.resume()
  t.same(await done, { bytes: PAGE })
  t.same(await parked, { bytes: 8 })
  t.ok(bytes().every((byte) => byte === 7))
  t.equal(importer.stats.stops, 1)
  t.equal(await target.countStrayWrites(), 0)
  await close()
})

void t.test('a channel that does not use the buffer is not stopped', async (t) => {
  const { engine, importer, other, source, target, from, to, close } = await rig(t)
  const bystander = importer.channel()
  engine.held = true
  const done = importer.copy(from, 0, to, 0, PAGE)
  await Promise.all([target.move(other), source.move(other)])
  engine.resume()
  await done
  t.equal(bystander.stats.stops, 0)
  t.equal(importer.stats.stops, 1, 'two moves, one stop')
  await close()
})

void t.test('a pinned buffer does not move', async (t) => {
  const { other, target, close } = await rig(t)
  const pin = await target.pin()
  await t.rejects(target.move(other), { code: 'EBUSY' })
  pin.unpin()
  pin.unpin()
  await target.move(other)
  await close()
})

void t.test('no new backing: nothing has been stopped', async (t) => {
  const { engine, importer, other, target, from, to, close } = await rig(t)
  engine.held = true
  const done = importer.copy(from, 0, to, 0, PAGE)
  other.beforeAllocate = () => Promise.reject(new Error('no memory'))
  await t.rejects(target.move(other), { message: 'no memory' })
  t.equal(importer.stats.stops, 0)
  engine.resume()
  await done
  await close()
})

void t.test('a failed copy into a dma-buf leaves the buffer where it was', async (t) => {
  const { engine, importer, target, from, to, bytes, close } = await rig(t)
  const kernel = new FakeExporter('k', 'kernel')
  kernel.beforeCopy = () => Promise.reject(new Error('copy failed'))
  engine.held = true
  const done = importer.copy(from, 0, to, 0, PAGE)
  await t.rejects(target.move(kernel), { message: 'copy failed' })
  engine.resume()
  await done
  t.equal(target.placement, 'a')
  t.ok(bytes().every((byte) => byte === 7))
  t.equal(kernel.alive, 0)
  await close()
})

void t.test('what is done under the reservation is refused without it', async (t) => {
  const { engine, importer, target, to, close } = await rig(t)
  const channel = importer.channel()
  const { reservation } = target
  const { fence, signal } = Fence.create()
  signal()
  const reason = new P2pdmaError('a reason', { code: 'ERR_CLOSED' })
  const calls: Record<string, () => unknown> = {
    addFence: () => reservation.addFence(fence, Usage.READ),
    addMoveFence: () => reservation.addMoveFence(fence),
    prune: () => reservation.prune(),
    publish: () => target.publish(target.backing),
    link: () => target.link(to),
    unlink: () => target.unlink(to),
    invalidate: () => to.invalidate(),
    retry: () => to.retry(),
    validate: () => to.validate(7),
    detach: () => to.detach('close', reason),
    stopFor: () => channel.machine.stopFor(to),
  }
  for (const [name, call] of Object.entries(calls)) {
    const refused = Promise.resolve().then(call)
    await t.rejects(refused, { code: 'ERR_NOT_LOCKED' }, `${name} needs the reservation`)
  }
  t.same([to.state, to.generation, channel.state], ['mapped', 1, 'running'], 'nothing was done')
  t.equal(target.attachments.length, 1)
  t.ok(reservation.isIdle(Usage.BOOKKEEP))
  t.equal(engine.mapped.size, 2)
  await reservation.lock()
  for (const name of ['addFence', 'prune', 'retry'] as const) {
    t.doesNotThrow(calls[name] as () => void, `${name} with it`)
  }
  reservation.unlock()
  await close()
})

void t.test('the new backing is populated before anything stops', async (t) => {
  const { importer, other, target, to, close } = await rig(t)
  const channel = importer.channel()
  channel.grant(to)
  const states: string[] = []
  let populated: () => Promise<void> = () => Promise.reject(new Error('no memory'))
  const populating: Exporter = {
    placement: 'b',
    kind: 'embedded',
    allocate: async (size) =>
      Object.assign(await other.allocate(size), {
        populate: () => {
          states.push(channel.state)
          return populated()
        },
      }),
  }
  await t.rejects(target.move(populating), { message: 'no memory' })
  t.equal(other.alive, 0, 'what could not be populated was freed')
  t.equal(target.placement, 'a')
  populated = () => Promise.resolve()
  await target.move(populating)
  t.same(states, ['running', 'running'])
  t.equal(channel.stats.stops, 1)
  await close()
})

void t.test('a failed fence fails the attachments and takes the buffer back', async (t) => {
  const { engine, importer, other, target, from, to, close } = await rig(t)
  engine.held = true
  const done = importer.copy(from, 0, to, 0, PAGE)
  const doomed = t.rejects(done, { code: 'ERR_FENCE_FAILED' })
  other.beforeCopy = () => Promise.reject(new Error('copy failed'))
  await t.rejects(target.move(other), { code: 'ERR_FENCE_FAILED' })
  engine.resume()
  await doomed
  t.equal(to.state, 'failed')
  t.equal(target.placement, 'a')
  t.equal(quarantined().length, 1)
  const again = await importer.attach(target)
  await importer.copy(from, 0, again, 0, PAGE)
  other.alive-- // in quarantine for good
  await close()
})

void t.test('a failed remap is retried, then fails that attachment alone', async (t) => {
  const { engine, importer, memory, other, target, from, to, close } = await rig(t, {
    mapRetries: 2,
    mapRetryMs: 0,
  })
  const third = await MovableBuffer.create(PAGE, memory)
  const alone = await importer.attach(third)
  let tries = 0
  engine.beforeMap = (id) => {
    if (id === to.id) tries++
    if (id === to.id) throw new Error('no mapping')
  }
  engine.held = true
  const doomed = t.rejects(importer.copy(from, 0, to, 0, PAGE), { code: 'ERR_REMAP_FAILED' })
  const fine = importer.copy(from, 0, alone, 0, PAGE)
  await target.move(other)
  engine.resume()
  await doomed
  t.same(await fine, { bytes: PAGE })
  t.equal(tries, 3)
  t.equal(to.state, 'failed')
  t.equal(alone.state, 'mapped')
  await third.close()
  await close()
})

void t.test('a drain past its deadline is forced; a late completion is dropped', async (t) => {
  const { engine, importer, other, target, from, to, close } = await rig(t, { stopTimeoutMs: 5 })
  engine.held = true
  const done = importer.copy(from, 0, to, 0, PAGE)
  const device = engine.channels[0]
  if (device === undefined) throw new Error('no channel')
  device.beforeQuiet = () => new Promise(() => {})
  const cookie = device.work[0]?.cookie ?? 0
  await target.move(other)
  t.equal(importer.stats.forcedStops, 1)
  device.complete(cookie, PAGE, 0, 1)
  engine.resume()
  t.same(await done, { bytes: PAGE })
  t.equal(importer.stats.staleCompletions, 1)
  await close()
})

void t.test('a device that cannot be forced fails its importer', async (t) => {
  const { engine, importer, other, source, target, from, to } = await rig(t, { stopTimeoutMs: 5 })
  engine.held = true
  const doomed = t.rejects(importer.copy(from, 0, to, 0, PAGE), { code: 'ERR_OUTCOME_UNKNOWN' })
  const device = engine.channels[0]
  if (device === undefined) throw new Error('no channel')
  device.beforeQuiet = () => new Promise(() => {})
  device.beforeForce = () => {
    throw new Error('no reset')
  }
  const old = target.backing
  await t.rejects(target.move(other), { code: 'ETIMEDOUT' })
  await doomed
  t.ok(quarantined().includes(old))
  t.throws(() => importer.channel(), { code: 'ETIMEDOUT' })
  await importer.close()
  await source.close()
  await target.close()
  t.notOk((old as FakeBacking).freed)
})

void t.test('revoke and close reject what waits', async (t) => {
  const { engine, importer, memory, other, source, target, from, to } = await rig(t)
  engine.held = true
  const held = importer.copy(from, 0, to, 0, PAGE)
  await target.revoke()
  engine.resume()
  t.equal(to.state, 'revoked')
  await t.rejects(held, { code: 'ERR_REVOKED' })
  await t.rejects(async () => importer.copy(from, 0, to, 0, PAGE), { code: 'ERR_REVOKED' })
  await t.rejects(target.move(other), { code: 'ERR_REVOKED' })
  await Promise.all([target.close(), target.close(), to.close(), importer.close()])
  await t.rejects(
    source
      .move(other)
      .then(() => source.close())
      .then(() => source.move(other)),
    {
      code: 'ERR_CLOSED',
    },
  )
  t.equal(memory.alive + other.alive, 0)
})

void t.test('a bracket of CPU access holds a move off', async (t) => {
  const { other, target, close } = await rig(t)
  const cpu = await target.beginCpuAccess('rw')
  const view = cpu.view()
  view[0] = 9
  let moved = false
  const move = target.move(other).then(() => (moved = true))
  await new Promise((resolve) => setTimeout(resolve, 5))
  t.notOk(moved)
  await cpu.end()
  await move
  t.throws(() => cpu.view(), { code: 'ERR_CLOSED' })
  t.equal((target.backing as FakeBacking).bytes[0], 9)
  await close()
})

void t.test('a channel whose peer holds a key stops without work in flight', async (t) => {
  const { importer, other, target, to, close } = await rig(t)
  const channel = importer.channel()
  const grant = channel.grant(to)
  await target.move(other)
  t.equal(channel.stats.stops, 1)
  grant[Symbol.dispose]()
  grant[Symbol.dispose]()
  await target.move(other)
  t.equal(channel.stats.stops, 1)
  await close()
})

void t.test('a close ends a bracket that a move is waiting for', async (t) => {
  const { other, target, close } = await rig(t)
  const cpu = await target.beginCpuAccess('rw')
  const move = t.rejects(target.move(other), { code: 'ERR_CLOSED' })
  await new Promise((resolve) => setTimeout(resolve, 2))
  await target.close()
  await move
  t.throws(() => cpu.view(), { code: 'ERR_CLOSED' })
  await close()
})

void t.test(
  'a device that cannot be restarted fails its importer, and no lock is kept',
  async (t) => {
    const { engine, importer, other, source, target, from, to } = await rig(t)
    engine.held = true
    const doomed = t.rejects(importer.copy(from, 0, to, 0, PAGE), { code: 'ERR_OUTCOME_UNKNOWN' })
    const device = engine.channels[0]
    if (device === undefined) throw new Error('no channel')
    device.restart = () => {
      throw new Error('no restart')
    }
    await target.move(other)
    await doomed
    t.notOk(target.reservation.locked)
    t.equal(to.state, 'failed')
    await importer.close()
    await source.close()
    await target.close()
  },
)

void t.test('a pin and a bracket of CPU access can be given up', async (t) => {
  const { other, target, close } = await rig(t)
  const cpu = await target.beginCpuAccess('r')
  const move = target.move(other)
  await new Promise((resolve) => setTimeout(resolve, 2))
  // The move waits for the bracket, and the next bracket for the move.
  const controller = new AbortController()
  const bracket = target.beginCpuAccess('r', { signal: controller.signal })
  controller.abort()
  await t.rejects(bracket, { code: 'ABORT_ERR' })
  await t.rejects(target.pin({ signal: controller.signal }), { code: 'ABORT_ERR' })
  await cpu.end()
  await move
  t.equal(target.placement, 'b')
  t.notOk(target.isPinned)
  t.notOk(target.reservation.locked)
  await close()
})

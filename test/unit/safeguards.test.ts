/**
 * One test for each safeguard of the flow: test/mutants/table.ts takes them out
 * one at a time and names the assertion here that notices.
 */
import t, { type Test } from 'tap'
import { Importer, type ImporterOptions } from '../../lib/move-notify/importer/importer.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { reservationClass } from '../../lib/move-notify/reservation/reservation.js'
import { WwMutex, lockAll } from '../../lib/move-notify/reservation/ww-mutex.js'
import type { FakeBacking } from './fake-memory.js'
import { FakeEngine, FakeExporter } from './fake-memory.js'

const PAGE = 4096
const turn = () => new Promise<void>((resolve) => setTimeout(resolve, 2))

function latch() {
  let open = () => {}
  const opened = new Promise<void>((resolve) => (open = resolve))
  return { open, opened }
}

/** Two attached buffers, and a copy between them in flight on a device that is held up. */
async function inFlight(t: Test, options: ImporterOptions = {}) {
  const engine = new FakeEngine()
  const importer = new Importer(engine, { minRunMs: 0, ...options })
  const here = new FakeExporter('here')
  const there = new FakeExporter('there')
  const source = await MovableBuffer.create(PAGE, here, { poison: true })
  const target = await MovableBuffer.create(PAGE, here, { poison: true })
  await source.withCpuAccess('w', (cpu) => void cpu.view().fill(7))
  const from = await importer.attach(source)
  const to = await importer.attach(target)
  engine.held = true
  const done = importer.copy(from, 0, to, 0, PAGE)
  done.catch(() => {})
  const device = engine.channels[0]
  const [channel] = importer.channels
  if (device === undefined || channel === undefined) throw new Error('no channel')
  t.teardown(async () => {
    await importer.close()
    await source.close()
    await target.close()
  })
  return { engine, importer, here, there, source, target, from, to, done, device, channel }
}

void t.test('in-flight work is waited for', async (t) => {
  const { engine, there, target, device } = await inFlight(t)
  const quiet = latch()
  device.beforeQuiet = () => quiet.opened
  let unmapped = false
  engine.beforeUnmap = () => void (unmapped = true)
  const move = target.move(there)
  await turn()
  t.notOk(unmapped, 'no mapping goes while work is in flight')
  quiet.open()
  await move
})

void t.test('the mapping is taken away', async (t) => {
  const { engine, there, target, to } = await inFlight(t)
  let mapped = true
  there.beforeCopy = () => {
    mapped = engine.mapped.has(to.id)
    return Promise.resolve()
  }
  await target.move(there)
  t.notOk(mapped, 'the old mapping is gone before a byte is copied')
})

void t.test('the move fence is waited for', async (t) => {
  const { engine, there, target, to, done } = await inFlight(t)
  const copied = latch()
  there.beforeCopy = () => copied.opened
  const move = target.move(there)
  engine.resume()
  await turn()
  t.equal(to.state, 'invalid', 'no work runs before the move fence has signalled')
  copied.open()
  await move
  await done
  const { bytes } = target.backing as FakeBacking
  t.ok(bytes.every((byte) => byte === 7))
})

void t.test('a place that an importer cannot map is refused', async (t) => {
  const { engine, there, target, to, done, channel } = await inFlight(t)
  engine.refused.add('there')
  const moved = await target.move(there).then(
    () => 'moved',
    (error: unknown) => (error as { code: string }).code,
  )
  t.same(
    { moved, to: to.state, stops: channel.stats.stops, place: target.placement },
    { moved: 'EOPNOTSUPP', to: 'mapped', stops: 0, place: 'here' },
    'who cannot follow is asked before anything is stopped',
  )
  engine.resume()
  await done
})

void t.test('an attachment that could not follow is tried again', async (t) => {
  const { engine, importer, here, there, target, from, to, done } = await inFlight(t)
  engine.refused.add('there')
  await target.move(there, { force: true })
  engine.resume()
  await t.rejects(done, { code: 'ERR_REMAP_FAILED' })
  t.equal(to.state, 'failed')
  await target.move(here)
  await turn()
  t.equal(to.state, 'mapped', 'the next move brings its mapping back')
  if (to.state === 'mapped') await importer.copy(from, 0, to, 0, PAGE)
})

void t.test('a device that hangs in the restore keeps no reservation', async (t) => {
  const { engine, importer, there, target, done } = await inFlight(t, {
    mapRetries: 0,
    stopTimeoutMs: 20,
  })
  const left = latch()
  engine.beforeMap = () => {
    // What may have been mapped by then is to be taken away again, and never is.
    engine.beforeUnmap = () => left.opened
    return Promise.reject(new Error('no room'))
  }
  await target.move(there)
  await t.rejects(done, { code: 'ERR_OUTCOME_UNKNOWN' })
  t.match(importer.error, { code: 'ETIMEDOUT' })
  await turn()
  t.notOk(target.reservation.locked, 'the lock is free where a mapping could not be taken away')
  left.open()
  engine.beforeUnmap = () => undefined
})

void t.test('the gate is checked again before it opens', async (t) => {
  const { engine, importer, there, source, target, done, channel } = await inFlight(t)
  const first = latch()
  there.beforeCopy = () => first.opened
  const moveTarget = target.move(there)
  await turn()
  t.equal(channel.state, 'restoring')
  const elsewhere = new FakeExporter('elsewhere')
  const second = latch()
  elsewhere.beforeCopy = () => second.opened
  const moveSource = source.move(elsewhere)
  await turn()
  first.open()
  await moveTarget
  engine.resume()
  await turn()
  t.same(
    { open: channel.isRunning, error: importer.error },
    { open: false, error: null },
    'the gate stays closed while a mapping is invalid',
  )
  second.open()
  await moveSource
  t.same(await done, { bytes: PAGE })
})

void t.test('the old backing waits for the fence', async (t) => {
  const { engine, there, source, done, target } = await inFlight(t)
  const copied = latch()
  there.beforeCopy = () => copied.opened
  const move = source.move(there)
  await turn()
  copied.open()
  await move
  engine.resume()
  await done
  const { bytes } = target.backing as FakeBacking
  t.ok(
    bytes.every((byte) => byte === 7),
    'the old backing is not poisoned while the copy reads it',
  )
})

void t.test('completions match by epoch', async (t) => {
  const { engine, there, target, done, device, channel } = await inFlight(t, { stopTimeoutMs: 5 })
  device.beforeQuiet = () => new Promise(() => {})
  const cookie = device.work[0]?.cookie ?? 0
  let settled = false
  void done.then(() => (settled = true))
  await target.move(there)
  await turn()
  device.complete(cookie, PAGE, 0, 1)
  await turn()
  t.notOk(settled, 'a late completion of an earlier epoch is dropped')
  engine.resume()
  await done
  t.equal(channel.epoch, 2)
})

void t.test('a cancelled restore keeps its stamp', async (t) => {
  const { engine, there, source, target, to, from } = await inFlight(t)
  const stamps: (number | undefined)[] = []
  engine.beforeMap = (id) => {
    const buffer = id === to.id ? target : id === from.id ? source : null
    if (buffer !== null) stamps.push(buffer.reservation.holder?.stamp)
  }
  const copied = latch()
  there.beforeCopy = () => copied.opened
  const moveTarget = target.move(there)
  await turn()
  const moveSource = source.move(new FakeExporter('elsewhere'))
  await turn()
  copied.open()
  await Promise.all([moveTarget, moveSource])
  await turn()
  t.same(new Set(stamps).size, 1, 'every attempt of a restore has the same stamp')
  t.ok(stamps.length >= 2)
  engine.resume()
})

void t.test('who backs off lets go of all', async (t) => {
  const [a, b] = [new WwMutex(reservationClass), new WwMutex(reservationClass)]
  const older = reservationClass.acquire()
  const younger = reservationClass.acquire()
  t.ok(a.tryLock(older))
  t.ok(b.tryLock(younger))
  b.unlock(younger)
  const both = Promise.resolve(lockAll(younger, [b, a]))
  both.catch(() => {})
  const contended = b.lock(older)
  await turn()
  t.equal(b.holder, older, 'the younger one has let go of what the older one waits for')
  if (b.holder === older) {
    await contended
    b.unlock(older)
  }
  a.unlock(older)
  await Promise.race([both, turn()])
  t.equal(a.holder, younger)
})

void t.test('the contended lock comes first', async (t) => {
  const [a, b] = [new WwMutex(reservationClass), new WwMutex(reservationClass)]
  const older = reservationClass.acquire()
  const younger = reservationClass.acquire()
  a.tryLock(older)
  let tries = 0
  const tryLock = b.tryLock.bind(b)
  b.tryLock = (context) => {
    // Without the order this would go round for ever, and never give the event loop a turn.
    if (++tries > 9) throw new Error('tried again and again')
    return tryLock(context)
  }
  const both = Promise.resolve(lockAll(younger, [b, a]))
  both.catch(() => {})
  await turn()
  t.equal(tries, 1, 'after a back-off nothing is tried until the contended lock comes')
  t.notOk(b.locked)
  a.unlock(older)
  await both
  t.equal(b.holder, younger)
})

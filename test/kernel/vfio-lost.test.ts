/**
 * The device goes away, or somebody else resets it, while the engine `vfio` works:
 * PCI remove, unbind, AER errors of all three kinds, resets, memory switched off.
 */
import t, { type Test } from 'tap'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { VfioEngine } from '../../lib/engines/index.js'
import { memfd, slab, udmabuf, vfioBar } from '../../lib/exporters/index.js'
import { KernelLog, bindToVfio, pciDevices } from '../../lib/kernel/index.js'
import { VfioDevice } from '../../lib/kernel/vfio/index.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { quarantined } from '../../lib/move-notify/exporter/quarantine.js'
import { withDeadline } from '../../lib/move-notify/reservation/deadline.js'
import { listFds, openFds, pinnedPages, settled } from './support.js'
import {
  Aer,
  LONG_MS,
  PARTNER,
  PORT,
  VICTIM,
  bindBoth,
  countAer,
  devicePath,
  injectAer,
  rescan,
  write,
  writeCommand,
} from './vfio-lost-help.js'
import { FRAME, MEMORY, ROOM } from './vfio-traffic.js'

t.setTimeout(900_000)

/** Two to map at once, and one that is mapped off the event loop. */
const SIZES = [16 * ROOM, 1 << 20]

function within<T>(what: string, work: Promise<T>): Promise<T> {
  return withDeadline(work, LONG_MS, () => new Error(`${what}: nothing after ${LONG_MS} ms`))
}

const unbind = await bindBoth()
t.teardown(() => unbind())
const before = openFds()

/** The NIC with receives and sends in flight and waiting; another engine that sends to it. */
async function openWork() {
  const pinned = pinnedPages()
  const frames = await MovableBuffer.create(16 * ROOM, memfd())
  const peer = await VfioEngine.open(PARTNER)
  const out = peer.importer()
  const from = await out.attach(frames)
  const wire = out.channel({ queue: 'tx' })
  const pinnedByPeer = pinnedPages()
  const engine = await VfioEngine.open(VICTIM)
  const importer = engine.importer()
  const buffers = await Promise.all(SIZES.map((size) => MovableBuffer.create(size, memfd())))
  const attachments = await Promise.all(buffers.map((each) => importer.attach(each)))
  const rx = importer.channel({ queue: 'rx', depth: 4 })
  const tx = importer.channel({ queue: 'tx' })
  const [target, source] = attachments
  const send = (n: number) => wire.send(from, n * ROOM, FRAME)
  const receive = (n: number) => rx.receive(target!, n * ROOM, ROOM)
  await within('a link', isUp(engine, peer))
  return {
    ...{ pinned, pinnedByPeer, frames, peer, engine, importer, buffers, attachments, rx, tx },
    ...{ send, receive, transmit: (n: number) => tx.send(source!, n * ROOM, FRAME) },
    async close() {
      await engine.close()
      await peer.close()
      for (const each of [...buffers, frames]) await each.close()
    },
  }
}

async function isUp(...engines: VfioEngine[]): Promise<void> {
  for (const engine of engines) while (engine.link?.isUp !== true) await sleep(5)
}

async function driveAgain(t: Test): Promise<void> {
  const work = await openWork()
  const received = work.receive(0)
  await work.send(0)
  t.match(await within('a frame', received), { bytes: FRAME }, 'opened again, a frame comes in')
  await work.close()
}

/** `disrupt` resolves when whoever has taken the device away is done with it. */
async function lose(t: Test, disrupt: () => Promise<unknown>, back: () => Promise<unknown>) {
  const work = await openWork()
  const { engine, peer, importer, attachments, buffers } = work
  const first = work.receive(0)
  await work.send(0)
  await within('a frame', first)
  engine.inject({ kind: 'hang-tx' })
  // Four are with the device, four wait.
  const receives = Array.from({ length: 8 }, (_, n) => work.receive(n))
  const sends = [work.transmit(0), work.transmit(1)]
  const ended = Promise.allSettled([...receives, ...sends])
  t.equal(engine.error, null)
  const lost = new Promise<unknown>((resolve) => engine.once('lost', resolve))
  const disrupted = disrupt()
  const [results, error] = await within('work that rejects', Promise.all([ended, lost]))
  for (const each of results) {
    t.match(each, { status: 'rejected', reason: { code: 'ERR_DEVICE_LOST', hint: /open/ } })
  }
  t.match(error, { code: 'ERR_DEVICE_LOST' })
  t.equal(engine.error, error)
  t.match(importer.error, { code: 'ERR_DEVICE_LOST' })
  t.throws(() => importer.channel(), { code: 'ERR_DEVICE_LOST' })
  t.throws(() => engine.importer(), { code: 'ERR_DEVICE_LOST' })
  for (const { id } of attachments) t.equal(engine.iovaOf(id), null, 'no IOVA is taken')
  t.equal(quarantined().length, 0, 'the IOMMU keeps it from everything')
  // Nobody has closed anything so far.
  await within('who takes the device away', disrupted)
  while (!engine.device.closed) await sleep(5)
  await engine.device.close()
  t.equal(pinnedPages(), work.pinnedByPeer, 'no page of it is pinned')
  t.equal(peer.error, null)
  await work.send(1)
  for (const buffer of buffers) await buffer.move(udmabuf())
  await within('a close', work.close())
  t.equal(pinnedPages(), work.pinned)
  await back()
  await driveAgain(t)
}

t.test('removed', (t) =>
  lose(
    t,
    async () => t.equal(await write(devicePath(VICTIM, 'remove'), '1'), 0),
    () => rescan(),
  ),
)

t.test('unbound', (t) =>
  lose(
    t,
    async () => t.equal(await write('/sys/bus/pci/drivers/vfio-pci/unbind', VICTIM), 0),
    () => bindToVfio(VICTIM),
  ),
)

t.test('a fatal error', async (t) => {
  const errors = countAer('fatal')
  await lose(
    t,
    () => injectAer(Aer.MALFORMED),
    () => Promise.resolve(),
  )
  t.equal(countAer('fatal'), errors + 1)
})

t.test('its memory switched off by somebody else', (t) =>
  lose(
    t,
    async () => writeCommand(VICTIM, 0),
    () => Promise.resolve(),
  ),
)

t.test('errors and resets that it survives', async (t) => {
  const work = await openWork()
  const { engine } = work
  const reasons: string[] = []
  engine.on('reset', (reason) => reasons.push(reason))
  let frame = 0
  const exchange = async () => {
    const received = work.receive(frame)
    while (engine.isDown) await sleep(5)
    await isUp(engine)
    await work.send(frame++ % 16)
    t.match(await within('a frame', received), { bytes: FRAME })
    t.equal(engine.error, null)
  }
  await exchange()

  await injectAer(Aer.RECEIVER)
  while (countAer('correctable') === 0) await sleep(5)
  await exchange()
  t.same(reasons, [], 'a correctable error is none of ours')

  const posted = work.receive(frame)
  await injectAer(Aer.COMPLETION_TIMEOUT)
  while (reasons.length === 0) await sleep(5)
  t.same(reasons, [`${VICTIM} has reported an uncorrectable error`])
  while (engine.isDown) await sleep(5)
  await isUp(engine)
  await work.send(frame++)
  t.match(await within('a frame', posted), { bytes: FRAME }, 'what waited for a frame has got one')

  // By its root port: the kernel says EIO where QEMU's link is not there at once, and restores it.
  await write(devicePath(PORT, 'reset_subordinate'), '1')
  while (reasons.length === 1) await sleep(5)
  t.same(reasons.slice(1), ['somebody else has reset it'])
  await exchange()

  t.equal(await write(devicePath(VICTIM, 'reset'), '1'), 0)
  await sleep(300)
  await exchange()
  await work.close()
})

t.test('resets without end', async (t) => {
  const work = await openWork()
  const { engine } = work
  const received = work.receive(0)
  const rejected = t.rejects(received, { code: 'ERR_DEVICE_LOST' })
  const lost = new Promise<unknown>((resolve) => engine.once('lost', resolve))
  // TIPG, which every reset of the 82574 clears: 10.2.6.2 of its datasheet.
  const registers = engine.device.openRegisters(0)
  const timer = setInterval(() => registers.closed || registers.write32(0x410, 0), 2)
  const error = await within('an end', lost).finally(() => clearInterval(timer))
  await rejected
  t.match(error, { code: 'ERR_DEVICE_LOST', cause: { message: /8 resets in a row/ } })
  // A busy machine may see it sound in between, and count anew.
  const { resets } = engine.stats()
  t.ok(resets >= 8, `${resets} resets`)
  await work.close()
  await driveAgain(t)
})

t.test('opening, resetting and closing it touches no other device', async (t) => {
  const others = pciDevices().filter(({ address }) => address !== VICTIM)
  const config = ({ address }: { address: string }) =>
    readFileSync(devicePath(address, 'config')).toString('hex')
  const snapshot = others.map(config)
  const log = KernelLog.open()
  const engine = await VfioEngine.open(VICTIM)
  engine.reset('a test')
  while (engine.isDown) await sleep(5)
  await engine.device.reset()
  await engine.close()
  t.same(others.map(config), snapshot)
  // The kernel names each device that it resets (drivers/pci/pci.c).
  const reset = log.read().flatMap(({ text }) => /(\S+): resetting$/.exec(text)?.[1] ?? [])
  t.same([...new Set(reset)], [VICTIM])
  log.close()
})

t.test('somebody has the device, and no engine', async (t) => {
  const device = await VfioDevice.open(VICTIM)
  const registers = device.openRegisters(0)
  await within('a removal', write(devicePath(VICTIM, 'remove'), '1'))
  t.equal(device.closed, true, 'without a listener it closes itself')
  t.match(device.error, { code: 'ERR_DEVICE_LOST', hint: /open it again/ })
  t.throws(() => registers.read32(0), { code: 'ERR_CLOSED' })
  t.throws(() => device.mapRegion(0), { code: 'ERR_DEVICE_LOST' })
  await rescan()

  const again = await VfioDevice.open(VICTIM)
  const mapping = again.mapRegion(0)
  let isGone = false
  const asked = new Promise<void>((resolve) => again.once('request', resolve))
  const removal = write(devicePath(VICTIM, 'remove'), '1').then(() => (isGone = true))
  await within('a request', asked)
  await sleep(200)
  t.notOk(isGone, 'who listens is waited for')
  t.equal(mapping.closed, false)
  await again.close()
  await within('a removal', removal)
  await rescan()

  const third = await VfioDevice.open(VICTIM)
  await injectAer(Aer.COMPLETION_TIMEOUT)
  while (third.error === null) await sleep(5)
  t.match(third.error, { code: 'ERR_DEVICE' }, 'without a listener nothing is thrown')
  const errors: unknown[] = []
  third.on('error', (error) => errors.push(error))
  await injectAer(Aer.COMPLETION_TIMEOUT)
  while (errors.length === 0) await sleep(5)
  t.equal(third.config.hasMemory, true)
  await third.close()
})

t.test('a device whose memory others use', async (t) => {
  const work = await openWork()
  const { engine, peer } = work
  const bar = vfioBar(MEMORY)
  const buffer = await MovableBuffer.create(8 * ROOM, bar)
  const divided = await MovableBuffer.create(4096, slab(bar, { slabSize: 1 << 20 }))
  const into = engine.importer()
  const target = await into.attach(buffer)
  const source = await peer.importer().attach(buffer)
  await work.importer.attach(divided)
  await work.rx.close()
  const rx = into.channel({ queue: 'rx' })
  const first = rx.receive(target, 0, ROOM)
  await work.send(0)
  await within('a frame', first)
  const receives = [1, 2, 3].map((n) => rx.receive(target, n * ROOM, ROOM))
  const ended = Promise.allSettled(receives)
  const removal = write(devicePath(MEMORY, 'remove'), '1')
  for (const each of await within('work that rejects', ended)) {
    t.match(each, { status: 'rejected', reason: { code: 'ERR_DEVICE_LOST', hint: /removed/ } })
  }
  t.equal(await within('a removal', removal), 0)
  for (const each of [target, source]) {
    t.match(each.error, { code: 'ERR_DEVICE_LOST' })
    t.equal(each.state, 'revoked')
  }
  for (const each of [buffer, divided]) {
    t.equal(each.isRevoked, true)
    await t.rejects(each.move(memfd()), { code: 'ERR_DEVICE_LOST' })
    await t.rejects(
      each.withCpuAccess('r', () => 0),
      { code: 'ERR_DEVICE_LOST' },
    )
    await t.rejects(into.attach(each), { code: 'ERR_DEVICE_LOST' })
  }
  await t.rejects(bar.allocate(4096), { code: /^(ENODEV|ERR_DEVICE_LOST)$/ })
  t.equal(quarantined().length, 0)

  // The NICs go on.
  t.equal(engine.error ?? peer.error, null)
  const [other] = work.attachments
  await rx.close()
  const again = work.importer.channel({ queue: 'rx' })
  const frame = again.receive(other!, 0, ROOM)
  await work.send(1)
  t.match(await within('a frame', frame), { bytes: FRAME })

  await rescan(MEMORY)
  const fresh = await MovableBuffer.create(4096, bar)
  t.equal(await fresh.withCpuAccess('r', (cpu) => cpu.view(0, 8)[0]), 0)
  for (const each of [buffer, divided, fresh]) await each.close()
  await bar.close()
  await work.close()
  const device = await VfioDevice.open(MEMORY)
  await device.close()
})

t.test('nothing is left', async (t) => {
  await settled()
  t.equal(openFds(), before, listFds().join('\n'))
})

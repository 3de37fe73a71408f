/** The vfio engine on two NICs of one hub, behind the emulated IOMMU. */
import t from 'tap'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { engineChecks } from '../../lib/conformance/index.js'
import type { VfioEngine } from '../../lib/engines/index.js'
import { openEngine } from '../../lib/engines/index.js'
import { memfd, udmabuf, heap } from '../../lib/exporters/index.js'
import { Batch, Completions, Op, Status } from '../../lib/move-notify/importer/batch.js'
import { Access } from '../../lib/move-notify/importer/engine.js'
import type { ImporterOptions } from '../../lib/move-notify/importer/importer.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { pinnedBytes } from '../../lib/smoke/memory.js'
import { listFds, openFds, page, settled } from './support.js'

t.setTimeout(900_000)

const SENDER = '0000:00:11.0'
const RECEIVER = '0000:00:12.0'
const SLOT = 2048

const before = openFds()
const pinnedBefore = pinnedBytes()

const isMaster = (address: string) =>
  ((readFileSync(`/sys/bus/pci/devices/${address}/config`)[4] ?? 0) & 4) !== 0

class Rig {
  readonly sender: VfioEngine
  readonly receiver: VfioEngine
  readonly source: MovableBuffer
  readonly target: MovableBuffer

  private constructor(
    sender: VfioEngine,
    receiver: VfioEngine,
    source: MovableBuffer,
    target: MovableBuffer,
  ) {
    this.sender = sender
    this.receiver = receiver
    this.source = source
    this.target = target
  }

  static async open(size = 64 * SLOT): Promise<Rig> {
    const engines = [await openEngine(`vfio:${SENDER}`), await openEngine(`vfio:${RECEIVER}`)]
    const buffers = [
      await MovableBuffer.create(size, memfd()),
      await MovableBuffer.create(size, memfd()),
    ]
    const rig = new Rig(engines[0]!, engines[1]!, buffers[0]!, buffers[1]!)
    await rig.source.withCpuAccess('w', (access) => {
      const view = access.view()
      for (let i = 0; i < view.length; i++) view[i] = (i * 7 + (i >> 11)) & 0xff
    })
    return rig
  }

  async play(options: ImporterOptions = {}) {
    const from = this.sender.importer(options)
    const into = this.receiver.importer(options)
    return {
      from: await from.attach(this.source),
      into: await into.attach(this.target),
      tx: from.channel({ queue: 'tx', depth: 64 }),
      rx: into.channel({ queue: 'rx', depth: 64 }),
    }
  }

  /** The slots of the target that hold what the source has there. */
  async matching(slots: readonly number[], length: number): Promise<number[]> {
    const wanted = await this.source.withCpuAccess('r', (access) => access.view().slice())
    return this.target.withCpuAccess('r', (access) => {
      const got = access.view()
      const part = (bytes: Uint8Array, slot: number) =>
        bytes.subarray(slot * SLOT, slot * SLOT + length)
      return slots.filter((slot) => Buffer.compare(part(got, slot), part(wanted, slot)) === 0)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.sender.close()
    await this.receiver.close()
    await this.source.close()
    await this.target.close()
  }
}

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i)

t.test('a frame goes out of one buffer into the other', async (t) => {
  await using rig = await Rig.open()
  const { from, into, tx, rx } = await rig.play()
  t.match(rig.sender.mac, /^52:54:00:/)
  t.strictSame(rig.receiver.link, { isUp: true, speed: 1000, isFullDuplex: true })
  t.equal(isMaster(SENDER), true)
  const slots = range(0, 32)
  const received = slots.map((slot) => rx.receive(into, slot * SLOT, SLOT))
  const sent = slots.map((slot) => tx.send(from, slot * SLOT, 1000 + slot))
  t.strictSame(
    (await Promise.all(sent)).map(({ bytes }) => bytes),
    slots.map((slot) => 1000 + slot),
  )
  t.strictSame(
    (await Promise.all(received)).map(({ bytes }) => bytes),
    slots.map((slot) => 1000 + slot),
  )
  t.strictSame(await rig.matching(slots, 1000), slots)
  const { device, dropped } = rig.sender.stats()
  t.equal(device['packetsTransmitted'], 32)
  t.equal(dropped, 0)
})

t.test('the 2020 flow: the IOVA stays, posted receives stay, frames wait', async (t) => {
  await using rig = await Rig.open()
  const { from, into, tx, rx } = await rig.play()
  const iova = rig.receiver.iovaOf(into.id)
  const slots = range(0, 48)
  const received = slots.map((slot) => rx.receive(into, slot * SLOT, SLOT))
  await Promise.all(range(0, 16).map((slot) => tx.send(from, slot * SLOT, 1500)))
  await Promise.all(received.slice(0, 16))
  const old = rig.target.backing
  const moving = rig.target.move(udmabuf())
  // The receiver is off or going off; what is sent waits in the hub.
  const during = range(16, 32).map((slot) => tx.send(from, slot * SLOT, 1500))
  await moving
  t.equal(rig.target.placement, 'udmabuf')
  t.not(rig.target.backing, old)
  t.equal(rig.receiver.iovaOf(into.id), iova, 'the same IOVA')
  await Promise.all(during)
  await rig.source.move(memfd())
  await Promise.all(range(32, 48).map((slot) => tx.send(from, slot * SLOT, 1500)))
  await Promise.all(received)
  t.strictSame(await rig.matching(slots, 1500), slots)
  t.equal(rx.stats.forcedStops, 0)
  t.equal(rig.receiver.stats().dropped, 0)
})

t.test('what an IOMMU cannot take fails that attachment alone', async (t) => {
  await using rig = await Rig.open()
  const { into, rx } = await rig.play({ mapRetries: 0 })
  const heapBuffer = await MovableBuffer.create(page, heap('system'))
  await t.rejects(into.importer.attach(heapBuffer), { code: 'ERR_UNSUPPORTED', hint: /memfd/ })
  await heapBuffer.close()
  const posted = rx.receive(into, 0, SLOT)
  await t.rejects(rig.target.move(heap('system')), {
    code: 'EOPNOTSUPP',
    message: /vfio.* heap:system: an IOMMU takes memory with pages/,
  })
  t.equal(rig.target.placement, 'memfd', 'the buffer is where it was')
  t.same([into.state, rx.stats.stops], ['mapped', 0], 'and nothing was stopped')
  await rig.target.move(heap('system'), { force: true })
  await t.rejects(posted, { code: 'ERR_REMAP_FAILED' }, 'its work is rejected with the reason')
  t.equal(into.state, 'failed')
  t.equal(rx.state, 'running')
  await rig.target.move(memfd())
  while (into.state === 'invalid') await sleep(1)
  t.equal(into.state, 'mapped', 'the next move brings it back')
  await into.close()
  t.equal(rig.receiver.iovaOf(into.id), null, 'its IOVA is given back')
})

t.test('a row that the queue refuses: those before it are posted', async (t) => {
  await using rig = await Rig.open()
  const { from, into, tx, rx } = await rig.play()
  const readOnly = await from.importer.attach(rig.target, { access: Access.WRITE })
  const batch = new Batch(4)
  const fill = (row: number, length: number, offset = 0, op: number = Op.SEND, id = from.id) => {
    batch.op[row] = op
    batch.source[row] = id
    batch.target[row] = id
    batch.sourceOffset[row] = offset
    batch.targetOffset[row] = offset
    batch.length[row] = length
    batch.cookie[row] = row
  }
  const bad: [string, () => void][] = [
    ['batch.length[1]', () => fill(1, 16)],
    ['batch.length[1]', () => fill(1, 1519)],
    ['batch.length[1]', () => fill(1, 60.5)],
    ['batch.length[1]', () => fill(1, NaN)],
    ['batch.sourceOffset[1]', () => fill(1, 60, rig.source.size - 59)],
    ['batch.sourceOffset[1]', () => fill(1, 60, -1)],
    ['batch.sourceOffset[1]', () => fill(1, 60, 0.5)],
    ['batch.sourceOffset[1]', () => fill(1, 60, Infinity)],
    ['batch.source[1]', () => fill(1, 60, 0, Op.SEND, readOnly.id)],
    ['batch.op[1]', () => fill(1, 60, 0, Op.RECEIVE)],
    ['batch.op[1]', () => fill(1, 60, 0, Op.COPY)],
  ]
  fill(0, 60)
  const out = new Completions(8)
  for (const [argument, spoil] of bad) {
    spoil()
    t.throws(() => tx.post(batch, 0, 2), { code: /ERR/, argument, accepted: 1 })
    while (tx.reap(out) === 0) await tx.completions()
    t.equal(out.status[0], Status.OK)
  }
  fill(1, 60, 0, Op.SEND, 0xfffff)
  t.throws(() => tx.post(batch, 1, 1), { code: 'ERR_CLOSED' }, 'an id that nobody has')
  const receive = new Batch(1)
  receive.op[0] = Op.RECEIVE
  receive.target[0] = into.id
  receive.length[0] = SLOT - 1
  t.throws(() => rx.post(receive, 0, 1), {
    code: 'ERR_INVALID_ARG_VALUE',
    argument: 'batch.length[0]',
  })
  t.throws(() => from.importer.channel({ queue: 'tx' }), { code: 'EBUSY' })
  await tx.close()
  for (const depth of [0, 3, -1, 1.5, 32_768, '8'] as number[]) {
    t.throws(() => from.importer.channel({ queue: 'tx', depth }), {
      code: /ERR/,
      argument: 'depth',
    })
  }
  t.throws(() => from.importer.channel({ queue: 'ty' }), { code: 'ERR_INVALID_ARG_VALUE' })
  await from.importer.channel({ queue: 'tx', depth: 16_384 }).close()
})

t.test('the smallest ring and the largest, many times round', async (t) => {
  await using rig = await Rig.open()
  for (const depth of [1, 4, 1024]) {
    const from = rig.sender.importer()
    const into = rig.receiver.importer()
    const source = await from.attach(rig.source)
    const target = await into.attach(rig.target)
    const tx = from.channel({ queue: 'tx', depth })
    const rx = into.channel({ queue: 'rx', depth })
    for (let round = 0; round < 40; round++) {
      const slots = range(0, Math.min(depth, 16))
      const received = slots.map((slot) => rx.receive(target, slot * SLOT, SLOT))
      await Promise.all(slots.map((slot) => tx.send(source, slot * SLOT, 60 + round)))
      const bytes = (await Promise.all(received)).map((each) => each.bytes)
      if (bytes.some((each) => each !== 60 + round)) t.fail(`depth ${depth}: ${bytes.join()}`)
    }
    t.strictSame(
      await rig.matching(range(0, Math.min(depth, 16)), 99),
      range(0, Math.min(depth, 16)),
    )
    await from.close()
    await into.close()
  }
})

t.test('an attachment that goes takes its receives with it, and no others', async (t) => {
  await using rig = await Rig.open()
  const { from, into, tx, rx } = await rig.play()
  const other = await MovableBuffer.create(8 * SLOT, memfd())
  const second = await into.importer.attach(other)
  const kept: Promise<{ bytes: number }>[] = []
  const lost: Promise<string>[] = []
  for (let i = 0; i < 8; i++) {
    kept.push(rx.receive(into, i * SLOT, SLOT))
    lost.push(
      rx.receive(second, i * SLOT, SLOT).then(
        () => 'received',
        (e: { code: string }) => e.code,
      ),
    )
  }
  // The first frame is received and not yet seen when the attachment goes.
  await tx.send(from, 0, 1200)
  await second.close()
  t.strictSame(await Promise.all(lost), Array(8).fill('ERR_CLOSED'))
  await Promise.all(range(1, 8).map((slot) => tx.send(from, slot * SLOT, 1200)))
  t.strictSame(
    (await Promise.all(kept)).map(({ bytes }) => bytes),
    Array(8).fill(1200),
  )
  t.strictSame(await rig.matching(range(0, 8), 1200), range(0, 8), 'in order')
  await other.close()
})

t.test('a transmitter that hangs is forced; what it had not begun is sent again', async (t) => {
  await using rig = await Rig.open()
  const { from, into, tx, rx } = await rig.play({ stopTimeoutMs: 30 })
  const resets: string[] = []
  rig.sender.on('reset', (reason) => resets.push(reason))
  const received = range(0, 4).map((slot) => rx.receive(into, slot * SLOT, SLOT))
  rig.sender.inject({ kind: 'hang-tx' })
  const sent = range(0, 4).map((slot) => tx.send(from, slot * SLOT, 1400))
  await rig.source.move(memfd())
  t.equal(tx.stats.forcedStops, 1)
  await Promise.all(sent)
  await Promise.all(received)
  t.strictSame(await rig.matching(range(0, 4), 1400), range(0, 4))
  t.equal(resets.length, 1)
  t.match(resets[0], /tx did not stop/)
  t.equal(rig.sender.stats().resets, 1)
})

t.test('a reset by somebody else: sends are unknown, receives stay', async (t) => {
  await using rig = await Rig.open()
  const { from, into, tx, rx } = await rig.play()
  const received = range(0, 8).map((slot) => rx.receive(into, slot * SLOT, SLOT))
  await tx.send(from, 0, 700)
  await received[0]
  for (const side of [rig.receiver, rig.sender]) {
    const reset = once(side, 'reset')
    side.inject({ kind: 'reset' })
    t.match(await reset, ['somebody else has reset it'])
    while (side.isDown) await sleep(5)
  }
  rig.sender.inject({ kind: 'hang-tx' })
  const cut = tx.send(from, SLOT, 700)
  rig.sender.inject({ kind: 'reset' })
  await t.rejects(cut, { code: 'ERR_OUTCOME_UNKNOWN' })
  while (rig.sender.isDown) await sleep(5)
  await Promise.all(range(1, 8).map((slot) => tx.send(from, slot * SLOT, 700)))
  t.strictSame(
    (await Promise.all(received)).map(({ bytes }) => bytes),
    Array(8).fill(700),
  )
  t.strictSame(await rig.matching(range(0, 8), 700), range(0, 8))
  t.equal(isMaster(SENDER), true)
})

t.test('a reset in the middle of a move: receives stay', async (t) => {
  await using rig = await Rig.open()
  const { from, into, tx, rx } = await rig.play()
  const received = range(0, 8).map((slot) => rx.receive(into, slot * SLOT, SLOT))
  const exporter = udmabuf()
  const { placement, kind } = exporter
  const allocate = async (size: number) => {
    const backing = await exporter.allocate(size)
    const copy = backing.copyFrom.bind(backing)
    const value = async (source: Parameters<typeof copy>[0]) => {
      // Unmapped, and the receiver stopped for it.
      rig.receiver.inject({ kind: 'reset' })
      while (rig.receiver.stats().resets === 0 || rig.receiver.isDown) await sleep(5)
      await copy(source)
    }
    return Object.defineProperty(backing, 'copyFrom', { value })
  }
  await rig.target.move({ placement, kind, allocate })
  await Promise.all(range(0, 8).map((slot) => tx.send(from, slot * SLOT, 700)))
  const bytes = (await Promise.all(received)).map((each) => each.bytes)
  t.strictSame(bytes, Array(8).fill(700))
  t.strictSame(await rig.matching(range(0, 8), 700), range(0, 8))
})

t.test('the link goes down and comes up: frames wait', async (t) => {
  await using rig = await Rig.open()
  const { from, into, tx, rx } = await rig.play()
  const links: boolean[] = []
  rig.receiver.on('link', ({ isUp }) => links.push(isUp))
  const received = range(0, 8).map((slot) => rx.receive(into, slot * SLOT, SLOT))
  rig.receiver.inject({ kind: 'link-down' })
  await Promise.all(range(0, 8).map((slot) => tx.send(from, slot * SLOT, 900)))
  await Promise.all(received)
  while (!links.includes(true)) await sleep(10)
  t.equal(links.at(-1), true)
  t.equal(rig.receiver.link?.isUp, true)
  t.strictSame(await rig.matching(range(0, 8), 900), range(0, 8))
  t.throws(() => rig.receiver.inject({ kind: 'fire' as never }), { code: 'ERR_INVALID_ARG_VALUE' })
})

t.test('moves while frames flow', async (t) => {
  await using rig = await Rig.open()
  const { from, into, tx, rx } = await rig.play()
  let stop = false
  const mover = (async () => {
    let moves = 0
    while (!stop) {
      await (moves % 2 === 0 ? rig.target : rig.source).move(moves % 4 < 2 ? udmabuf() : memfd())
      moves++
    }
    return moves
  })()
  for (let round = 0; round < 60; round++) {
    const slots = range(0, 32)
    const received = slots.map((slot) => rx.receive(into, slot * SLOT, SLOT))
    await Promise.all(slots.map((slot) => tx.send(from, slot * SLOT, 1000 + round)))
    const bytes = (await Promise.all(received)).map((each) => each.bytes)
    if (bytes.some((each) => each !== 1000 + round)) t.fail(`round ${round}: ${bytes.join()}`)
  }
  stop = true
  t.ok((await mover) > 8)
  t.strictSame(await rig.matching(range(0, 32), 1059), range(0, 32))
  t.equal(rig.receiver.stats().dropped, 0)
})

t.test('closing in the middle of everything', async (t) => {
  for (let i = 0; i < 6; i++) {
    const rig = await Rig.open()
    const { from, into, tx, rx } = await rig.play()
    const work = [
      ...range(0, 16).map((slot) => rx.receive(into, slot * SLOT, SLOT)),
      ...range(0, 32).map((slot) => tx.send(from, slot * SLOT, 1500)),
      rig.target.move(udmabuf()),
    ]
    const ended = Promise.allSettled(work)
    for (let turns = 0; turns < i; turns++) await new Promise((r) => setImmediate(r))
    const closes = [rx.close(), rig.receiver.close(), into.close(), tx.close(), rig.sender.close()]
    await Promise.all(i % 2 === 0 ? closes : closes.reverse())
    await ended
    await rig[Symbol.asyncDispose]()
    t.equal(isMaster(SENDER), false)
    t.throws(() => rig.sender.importer(), { code: 'ERR_CLOSED' })
    t.throws(() => rig.sender.link, { code: 'ERR_CLOSED' })
    t.equal(rig.sender.stats().resets >= 0, true)
  }
})

t.test('a worker that ends while a device is open gives it back', async (t) => {
  const source = `
    import { openEngine } from ${JSON.stringify(
      new URL('../../lib/engines/index.js', import.meta.url).href,
    )}
    import { parentPort } from 'node:worker_threads'
    const engine = await openEngine('vfio:${SENDER}')
    engine.importer().channel({ queue: 'tx' })
    parentPort.postMessage('open')
    setInterval(() => {}, 1000)
  `
  const url = new URL(`data:text/javascript,${encodeURIComponent(source)}`)
  const worker = new Worker(url)
  await once(worker, 'message')
  await worker.terminate()
  await settled()
  const engine = await openEngine(`vfio:${SENDER}`)
  t.equal(engine.link?.isUp, true)
  await engine.close()
})

t.test('bad addresses', async (t) => {
  await t.rejects(openEngine('vfio:'), { code: 'ERR_INVALID_ARG_VALUE' })
  await t.rejects(openEngine('vfio:0000:99:00.0'), { code: 'ENODEV' })
  await t.rejects(openEngine('vfio:0000:00:10.0'), { code: 'ERR_UNSUPPORTED', hint: /e1000e/ })
  const engine = await openEngine(`vfio:${SENDER}`)
  await t.rejects(openEngine(`vfio:${SENDER}`), { code: /EBUSY|EINVAL/ })
  await engine.close()
  await engine.close()
})

t.test('the conformance suite', async (t) => {
  const open = async () => {
    const engine = await openEngine(`vfio:${SENDER}`)
    return { engine, queue: 'tx', close: () => engine.close() }
  }
  for (const check of engineChecks(open)) await t.test(check.name, () => check.run())
})

t.test('nothing is left', async (t) => {
  await settled()
  t.equal(openFds(), before, listFds().join('\n'))
  t.equal(pinnedBytes(), pinnedBefore)
})

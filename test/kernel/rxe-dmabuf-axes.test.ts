/** Who moves: we, the kernel while the NIC follows, or nobody; and RDMA while the kernel does. */
import t, { type Test } from 'tap'
import { readFileSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { heap, memfd, udmabuf, vfioBar } from '../../lib/exporters/index.js'
import { MappedBacking } from '../../lib/exporters/mapped-backing.js'
import { MappedFile } from '../../lib/exporters/mapped-file.js'
import type { Exporter } from '../../lib/move-notify/exporter/backing.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { trace } from '../../lib/move-notify/trace.js'
import { Mover } from './mover.js'
import { countInDebugfs, page } from './support.js'
import { KIB, buffer, bytes, granted, open } from './verbs-engine-support.js'

t.setTimeout(900_000)

const SIZE = 64 * KIB
const PIECE = 4 * KIB
const TYPE = 'ERR_INVALID_ARG_TYPE'

/** A `Mover`'s dma-buf as a placement: one buffer, from which nothing is allocated. */
function exporterOf(mover: Mover): Exporter {
  return {
    placement: 'p2pdma_mover',
    kind: 'kernel',
    allocate: (size) => {
      const file = new MappedFile('p2pdma_mover', mover.dmaBuf.dup())
      return Promise.resolve(new MappedBacking(file, 0, size))
    },
  }
}

async function ready(t: Test, depth = 64) {
  const ends = await open(t, depth)
  const mover = new Mover(SIZE)
  const target = await MovableBuffer.create(SIZE, exporterOf(mover))
  t.teardown(async () => {
    await target.close()
    mover[Symbol.dispose]()
  })
  const source = await buffer(t, SIZE, memfd())
  const from = await ends.a.attach(source)
  const { remote } = await granted(ends, target)
  const fill = (byte: number) => source.withCpuAccess('w', (cpu) => void cpu.view().fill(byte))
  /** All of it, in pieces. */
  const write = () =>
    Promise.all(
      Array.from({ length: SIZE / PIECE }, (_, i) =>
        ends.ours.copy(from, i * PIECE, remote, i * PIECE, PIECE),
      ),
    )
  const holds = async (byte: number) => (await bytes(target)).every((each) => each === byte)
  return { ...ends, mover, target, fill, write, holds }
}

t.test('what never moves by itself is ours to move', async (t) => {
  const { there, b } = await open(t)
  const bar = vfioBar('0000:00:10.0')
  t.teardown(() => bar.close())
  for (const [exporter, why] of [
    [udmabuf(), /udmabuf never moves/],
    [heap('system'), /dma-heap never moves/],
    [bar, /vfio revokes/],
  ] as const) {
    const target = await MovableBuffer.create(page, exporter)
    await b.attach(target)
    t.match(there.axes(target), { registration: 'dma-buf', mover: 'us', reason: null })
    t.match(there.axes(target).decidedBy, why, exporter.placement)
    await target.close()
  }
  const plain = await buffer(t, page, memfd())
  t.match(there.axes(plain), { registration: 'memory', mover: 'us', decidedBy: /ib_umem_get/ })
})

t.test('not known of this NIC, until it is tried', async (t) => {
  const { there, mover, target } = await ready(t)
  const before = there.axes(target)
  t.match(before, { registration: 'dma-buf', mover: 'us' })
  t.match(before.decidedBy, /p2pdma_mover moves .*; whether rxe1 follows a move is not known/)
  const tried = await there.tryMoving(target.backing, () => mover.move())
  t.match(tried, { registration: 'dma-buf', mover: 'kernel', reason: null })
  t.match(tried.decidedBy, /an attempt to move a registered page: rxe1 read it where it was then/)
  t.equal(mover.info().moves, 2)
  t.match(there.axes(target), { mover: 'kernel' }, 'and of any other of that exporter')
  const other = await buffer(t, page, udmabuf())
  t.match(there.axes(other), { mover: 'us' }, 'and of no other exporter')
  await t.rejects(
    there.tryMoving((await buffer(t, page, memfd())).backing, () => mover.move()),
    {
      code: 'ERR_UNSUPPORTED',
      argument: 'backing',
    },
  )
  const failed = new Error('its own')
  await t.rejects(
    there.tryMoving(target.backing, () => Promise.reject(failed)),
    failed,
  )
})

t.test('a NIC that pins, and one that loses what moves, are for us to move', async (t) => {
  {
    const { there, mover, target } = await ready(t)
    // As the exporter would have it with a NIC that pins, of which the rig has none.
    const busy = Object.assign(new Error('busy'), { code: 'EBUSY' })
    let moves = 0
    const fake = () => (moves++ === 0 ? mover.move() : Promise.reject(busy))
    t.match(await there.tryMoving(target.backing, fake), {
      mover: 'us',
      decidedBy: /rxe1 pins what it registers, EBUSY/,
    })
    t.match(there.axes(target), { mover: 'us', decidedBy: /p2pdma_mover moves .*rxe1 pins/ })
  }
  const { there, mover, target } = await ready(t)
  let moves = 0
  // The second one's fence fails, and the NIC is refused where it looks for it.
  const failing = () => mover.move(0, moves++ === 0 ? '' : 'fail')
  t.match(await there.tryMoving(target.backing, failing), { mover: 'us', decidedBy: /lost it/ })
  await t.rejects(there.tryMoving(null as never, failing), { code: TYPE, argument: 'backing' })
  await t.rejects(there.tryMoving(target.backing, null as never), { code: TYPE, argument: 'move' })
  t.throws(() => there.axes(null as never), { code: TYPE, argument: 'of' })
})

t.test('the kernel moves it, and nobody is stopped', async (t) => {
  const { there, mover, target, fill, write, holds, ours, theirs } = await ready(t)
  t.match(await there.tryMoving(target.backing, () => mover.move()), { mover: 'kernel' })
  const transitions: unknown[] = []
  const note = (message: unknown) => void transitions.push(message)
  trace.channel.subscribe(note)
  let moving = true
  let made = 0
  const moves = (async () => {
    for (; moving; made++) await mover.move()
  })()
  for (let round = 1; round <= 20 || made < 20; round++) {
    await fill(round % 251)
    await write()
    if (!(await holds(round % 251))) t.fail(`round ${round}: other bytes`)
  }
  moving = false
  await moves
  trace.channel.unsubscribe(note)
  await mover.dmaBuf.readable()
  const { stale, pins } = mover.info()
  t.ok(made >= 20, `${made} moves`)
  t.same({ stale, pins }, { stale: 0, pins: 0 }, 'nothing written to where it had been')
  t.same(transitions, [], 'no channel was stopped')
  t.same([ours.stats.stops, theirs.stats.stops], [0, 0])
})

t.test('pinned by another importer: nobody moves it', async (t) => {
  const { there, mover, target, fill, write, holds } = await ready(t)
  {
    using pin = mover.pin()
    t.ok(pin)
    const tried = await there.tryMoving(target.backing, () => mover.move())
    t.match(tried, { registration: 'dma-buf', mover: 'nobody' })
    t.match(tried.decidedBy, /EBUSY/)
    await t.rejects(mover.move(), { code: 'EBUSY' })
    t.not(there.axes(target).mover, 'nobody', 'no list says who has pinned it')
    await fill(5)
    await write()
    t.ok(await holds(5), 'RDMA goes on')
  }
  t.match(await there.tryMoving(target.backing, () => mover.move()), { mover: 'kernel' })
})

t.test('pinned through our own API: nobody moves it', async (t) => {
  const { there, target } = await ready(t)
  const ours = await buffer(t, page, udmabuf())
  for (const each of [ours, target]) {
    const pin = await each.pin()
    t.match(there.axes(each), { mover: 'nobody', decidedBy: /MovableBuffer\.pin/ })
    await t.rejects(each.move(udmabuf()), { code: 'EBUSY' })
    pin.unpin()
    t.match(there.axes(each), { mover: 'us' })
  }
})

t.test('a held move holds the write until it is released', async (t) => {
  const { mover, fill, ours, write, holds } = await ready(t)
  await fill(7)
  await mover.move(0, 'hold')
  let isDone = false
  const written = write().then(() => (isDone = true))
  await sleep(100)
  t.equal(isDone, false)
  t.equal(mover.info().pending, true)
  mover.release()
  await written
  t.ok(await holds(7))
  t.equal(ours.stats.stops, 0)
})

t.test('one that is held for too long is a typed error, and the channel recovers', async (t) => {
  const { mover, fill, write, holds } = await ready(t)
  const setting = '/sys/module/rdma_rxe/parameters/dmabuf_wait_ms'
  const usual = readFileSync(setting, 'utf8')
  writeFileSync(setting, '20')
  t.teardown(() => writeFileSync(setting, usual))
  await fill(3)
  await mover.move(0, 'hold')
  await t.rejects(write(), { code: 'EFAULT' })
  mover.release()
  await mover.dmaBuf.readable()
  await write()
  t.ok(await holds(3))
})

t.test('a move that fails is a typed error, and the channel recovers', async (t) => {
  const { here, mover, fill, ours, write, holds } = await ready(t)
  await fill(1)
  await write()
  await mover.move(0, 'fail')
  await mover.dmaBuf.readable()
  await t.rejects(write(), { code: 'EFAULT' })
  t.equal(ours.state, 'running')
  await mover.move()
  await fill(9)
  // Those that the first error left on their way are settled before.
  await write()
  t.ok(await holds(9), 'the next move mends it')
  t.ok(here.stats().resets > 0, 'by connecting the queue pair anew')
})

t.test('nothing is left', (t) => {
  t.equal(countInDebugfs('p2pdma_mover'), 0)
  t.end()
})

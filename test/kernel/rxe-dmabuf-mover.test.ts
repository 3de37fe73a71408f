/** The exporter whose buffers move, by itself: what the tests of importers rely on. */
import t from 'tap'
import { existsSync } from 'node:fs'
import { Mover } from './mover.js'
import { countInDebugfs, openFds, page, settled } from './support.js'

t.setTimeout(900_000)

t.test('the modules are ours', async (t) => {
  t.ok(existsSync('/sys/module/rdma_rxe/parameters/dmabuf_wait_ms'), 'soft-RoCE')
  t.ok(existsSync('/sys/class/infiniband/rxe1'), 'and its devices')
})

t.test('the bytes go along; the old backing is poisoned', async (t) => {
  const before = openFds()
  {
    using mover = new Mover(4 * page)
    const { dmaBuf } = mover
    t.equal(dmaBuf.info().exporter, 'p2pdma_mover')
    await dmaBuf.withCpuAccess('w', (view) => view.forEach((_, i) => (view[i] = i * 7)))
    const isWhole = () =>
      dmaBuf.withCpuAccess('r', (view) => view.every((byte, i) => byte === ((i * 7) & 0xff)))
    for (let moves = 1; moves <= 5; moves++) {
      t.equal(await mover.move(), moves)
      t.ok(await isWhole(), 'after its fence, every byte')
    }
    t.same(mover.info(), { moves: 5, pins: 0, pending: false, stale: 0 })
  }
  await settled()
  t.equal(openFds(), before)
  t.equal(countInDebugfs('p2pdma_mover'), 0)
})

t.test('a held move, a failed one, a pinned buffer', async (t) => {
  using mover = new Mover(page)
  const { dmaBuf } = mover
  await mover.move(0, 'hold')
  t.equal(mover.info().pending, true)
  await t.rejects(mover.move(), { code: 'EALREADY' })
  const signal = AbortSignal.timeout(100)
  await t.rejects(dmaBuf.readable({ signal }), { code: 'ABORT_ERR' }, 'its fence does not signal')
  mover.release()
  await dmaBuf.readable()
  t.throws(() => mover.release(), { code: 'EINVAL' })
  await dmaBuf.withCpuAccess('w', (view) => view.fill(1))
  await mover.move(0, 'fail')
  await dmaBuf.readable()
  const left = await dmaBuf.withCpuAccess('r', (view) => view.filter((byte) => byte === 1).length)
  t.equal(left, 0, 'nothing was copied')

  {
    using pin = mover.pin()
    t.ok(pin)
    t.equal(mover.info().pins, 1)
    await t.rejects(mover.move(), { code: 'EBUSY' })
  }
  t.equal(mover.info().pins, 0)
  await mover.move()
})

t.test('one that nobody lets go on ends with its last user', async (t) => {
  {
    using mover = new Mover(page)
    await mover.move(0, 'hold')
  }
  await settled()
  t.equal(countInDebugfs('p2pdma_mover'), 0)
})

t.test('refusals', async (t) => {
  for (const size of [0, 1, page + 1, 2 ** 40]) t.throws(() => new Mover(size), { code: 'EINVAL' })
  using mover = new Mover(page)
  await t.rejects(mover.move(-1), { code: 'EINVAL' })
  await t.rejects(mover.move(0, 'nonsense' as never), { code: 'EINVAL' })
})

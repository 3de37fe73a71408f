/**
 * Dma-bufs registered with soft-RoCE (test/modules/rxe_dmabuf.c): written, read
 * and updated by the peer, while they move, and after they are revoked.
 */
import t, { type Test } from 'tap'
import { readFileSync } from 'node:fs'
import { heap, type MappedBacking, udmabuf, vfioBar } from '../../lib/exporters/index.js'
import type { DmaBuf } from '../../lib/kernel/index.js'
import { VfioDevice } from '../../lib/kernel/vfio/index.js'
import { MemoryAccess, type MemoryRegion, QpState, SendOp } from '../../lib/kernel/verbs/index.js'
import { Mover } from './mover.js'
import { countInDebugfs, page } from './support.js'
import { close, completions, type End, IOVA, join, pair, send } from './verbs-support.js'

t.setTimeout(900_000)

const BAR = '0000:00:10.0'
const bar = vfioBar(BAR)
const ACCESS =
  MemoryAccess.LOCAL_WRITE |
  MemoryAccess.REMOTE_WRITE |
  MemoryAccess.REMOTE_READ |
  MemoryAccess.REMOTE_ATOMIC
const SIZE = 16 * page
/** In the middle of a page and of a word's line, so that the offset counts. */
const OFFSET = page + 104
const LENGTH = 30_000
/** What is written is at the start of the end's own memory, what is read back here. */
const BACK = 32 << 10

/** A peer that may wait for a held move. */
const patient = { timeout: 20 }

/** `start`: of the buffer in the dma-buf. */
const register = ({ domain }: End, dmaBuf: DmaBuf, start = 0) =>
  domain.registerDmabuf(dmaBuf, {
    offset: start + OFFSET,
    length: LENGTH,
    iova: 2 ** 40 + OFFSET,
    access: ACCESS,
  })

async function work(end: End, row: Parameters<typeof send>[1]): Promise<string> {
  send(end, row)
  return (await completions(end.cq, 1))[0]?.status ?? 'none'
}

function write(end: End, region: MemoryRegion, seed: number): Promise<string> {
  for (let i = 0; i < LENGTH; i++) end.bytes[i] = (i >> 8) * 31 + i * 7 + seed
  const to = { rkey: region.rkey, remoteAddress: region.iova }
  return work(end, { opcode: SendOp.RDMA_WRITE, length: LENGTH, ...to })
}

/** Reads what `write` wrote; whether it is that, byte for byte. */
async function isThere(end: End, region: MemoryRegion): Promise<boolean> {
  end.bytes.fill(0, BACK, BACK + LENGTH)
  const from = { rkey: region.rkey, remoteAddress: region.iova, address: IOVA + BACK }
  const status = await work(end, { opcode: SendOp.RDMA_READ, length: LENGTH, ...from })
  const written = Buffer.from(end.bytes.subarray(0, LENGTH))
  return status === 'SUCCESS' && written.equals(end.bytes.subarray(BACK, BACK + LENGTH))
}

async function atomics(t: Test, end: End, region: MemoryRegion): Promise<void> {
  const words = new DataView(end.bytes.buffer)
  const at = { rkey: region.rkey, remoteAddress: region.iova, address: IOVA + BACK, length: 8 }
  const old = words.getBigUint64(0, true)
  const add = { opcode: SendOp.ATOMIC_FETCH_AND_ADD, compareAdd: 5 }
  t.equal(await work(end, { ...add, ...at }), 'SUCCESS')
  t.equal(words.getBigUint64(BACK, true), old)
  t.equal(await work(end, { ...add, ...at }), 'SUCCESS')
  t.equal(words.getBigUint64(BACK, true), old + 5n, 'the first was kept')
}

for (const [name, exporter] of [
  ['udmabuf', udmabuf()],
  ['heap', heap('system')],
  ['vfio-bar', bar],
] as const) {
  t.test(name, async (t) => {
    const [a, b] = await pair()
    const backing: MappedBacking = await exporter.allocate(SIZE)
    const region = await register(b, backing.dmaBuf!, backing.offset)
    t.match(readFileSync('/sys/kernel/debug/dma_buf/bufinfo', 'utf8'), /0000:00:13\.0/, 'attached')
    t.equal(await write(a, region, 1), 'SUCCESS')
    t.ok(await isThere(a, region))
    const window = await backing.openCpuWindow('r')
    const seen = Buffer.from(window.view(0, SIZE))
    await window.end()
    t.ok(seen.subarray(OFFSET, OFFSET + LENGTH).equals(a.bytes.subarray(0, LENGTH)), 'by the CPU')
    t.ok(
      seen.subarray(0, OFFSET).every((byte) => byte === 0),
      'and nothing before it',
    )
    await atomics(t, a, region)
    await close(a, b)
    await backing.free()
  })
}

t.test('moves in the middle', async (t) => {
  const [a, b] = await pair(patient)
  using mover = new Mover(SIZE)
  const region = await register(b, mover.dmaBuf)
  let moving = true
  const moves = (async () => {
    while (moving) await mover.move()
  })()
  for (let round = 0; round < 50; round++) {
    if ((await write(a, region, round)) !== 'SUCCESS') t.fail('a write during moves')
    if (!(await isThere(a, region))) t.fail(`round ${round}: other bytes`)
  }
  moving = false
  await moves
  const { moves: count, stale, pins } = mover.info()
  t.ok(count > 10, `${count} moves`)
  t.same({ stale, pins }, { stale: 0, pins: 0 }, 'nothing written to where it had been')

  await t.test('work waits for a move that is held', async (t) => {
    await mover.move(0, 'hold')
    const written = write(a, region, 99)
    t.equal(mover.info().pending, true)
    mover.release()
    t.equal(await written, 'SUCCESS')
    t.ok(await isThere(a, region))
  })

  await t.test('a move that failed: refused, and well after the next', async (t) => {
    await mover.move(0, 'fail')
    await mover.dmaBuf.readable()
    t.equal(await write(a, region, 7), 'REM_ACCESS_ERR')
    await mover.move()
    for (const end of [a, b]) await end.qp.toReset()
    await Promise.all([join(a, b, patient), join(b, a, patient)])
    t.equal(await write(a, region, 8), 'SUCCESS')
    t.ok(await isThere(a, region))
  })
  await close(a, b)
})

t.test('the kernel revokes a BAR', async (t) => {
  const [a, b] = await pair()
  await bar.close() // It has the device open.
  const device = await VfioDevice.open(BAR)
  using dmaBuf = await device.exportDmaBuf(2, [{ offset: 0, size: SIZE }])
  const region = await register(b, dmaBuf)
  t.equal(await write(a, region, 1), 'SUCCESS')
  await device.close()
  t.equal(await write(a, region, 2), 'REM_ACCESS_ERR')
  t.equal((await a.qp.query()).qpState, QpState.ERR)
  await t.rejects(register(b, dmaBuf), { code: 'ENODEV' })
  await close(a, b)
})

t.test('refusals; nothing is left', async (t) => {
  const [a, b] = await pair()
  {
    using mover = new Mover(SIZE)
    await t.rejects(b.domain.registerDmabuf(mover.dmaBuf, { iova: 1 }), {
      code: 'ERR_OUT_OF_RANGE',
      argument: 'iova',
    })
    await t.rejects(b.domain.registerDmabuf(mover.dmaBuf, { length: SIZE + page }), {
      code: 'ERR_OUT_OF_RANGE',
      argument: 'length',
    })
    const region = await register(b, mover.dmaBuf)
    await region.close()
  }
  await close(a, b)
  t.equal(countInDebugfs('p2pdma_mover'), 0)
})

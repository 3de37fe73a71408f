/** Dma-buf regions, through the ioctl: the rig's soft-RoCE registers them, librxe does not. */
import t, { type Test } from 'tap'
import { DmaHeap, Memfd, Udmabuf, type DmaBuf } from '../../lib/kernel/index.js'
import { MemoryAccess, SendOp } from '../../lib/kernel/verbs/index.js'
import { close, completions, IOVA, pair, REMOTE, send } from './verbs-support.js'

t.setTimeout(900_000)

const SIZE = 16 << 10
const access = REMOTE & ~MemoryAccess.MW_BIND

async function exercise(t: Test, dmaBuf: DmaBuf): Promise<void> {
  const [a, b] = await pair()
  for (const offset of [0, 4096, 4196]) {
    const region =
      offset === 4096
        ? b.domain.registerDmabufNow(dmaBuf, { offset, iova: IOVA + offset, access })
        : await b.domain.registerDmabuf(dmaBuf, { offset, iova: IOVA + offset, access })
    t.match(region, { kind: 'dma-buf', length: SIZE - offset, iova: IOVA + offset })
    a.bytes.fill(offset % 251, 0, 5000)
    const there = { rkey: region.rkey, remoteAddress: IOVA + offset }
    send(a, { opcode: SendOp.RDMA_WRITE, length: 5000, ...there })
    t.match(await completions(a.cq, 1), [{ status: 'SUCCESS' }], `written at ${offset}`)
    const right = await dmaBuf.withCpuAccess('r', (view) =>
      view.subarray(offset, offset + 5000).every((byte) => byte === offset % 251),
    )
    t.ok(right, 'byte for byte')
    send(a, { opcode: SendOp.RDMA_READ, address: IOVA + 8192, length: 5000, ...there })
    await completions(a.cq, 1)
    t.ok(
      a.bytes.subarray(8192, 13192).every((byte) => byte === offset % 251),
      'and read',
    )
    if (offset === 4096) region.deregisterNow()
    else await region.close()
  }
  const left = await b.domain.registerDmabuf(dmaBuf, { access })
  await close(a, b)
  t.ok(left.closed)
}

t.test('a udmabuf', async (t) => {
  using memfd = Memfd.create(SIZE)
  using dmaBuf = await Udmabuf.create(memfd, 0, SIZE)
  await exercise(t, dmaBuf)
})

t.test('of a heap', async (t) => {
  using heap = DmaHeap.open('system')
  using dmaBuf = await heap.alloc(SIZE)
  await exercise(t, dmaBuf)
})

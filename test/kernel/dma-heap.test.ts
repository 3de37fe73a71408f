/** The assertions of the kernel's selftest for dma-heaps, for each heap there is. */
import t from 'tap'
import { constants } from 'node:fs'
import { DmaHeap, DrmDevice } from '../../lib/kernel/index.js'
import { native } from '../../lib/native.js'
import { countInDebugfs, openFds, page, settled } from './support.js'

t.setTimeout(900_000)

t.ok(DmaHeap.list().includes('system'), DmaHeap.list().join(' '))

for (const name of DmaHeap.list()) {
  t.test(`heap ${name}`, async (t) => {
    const before = openFds()
    using heap = DmaHeap.open(name)
    t.equal(heap.name, name)

    await t.test('allocates zeroed memory, rounded up', async (t) => {
      // Dirtied and freed, so that the pages handed out next were used before.
      for (let i = 0; i < 8; i++) {
        using dirty = await heap.alloc(256 * 1024)
        await dirty.withCpuAccess('w', (view) => view.fill(0xff))
      }
      using dmaBuf = await heap.alloc(256 * 1024 + 1)
      t.equal(dmaBuf.size, 256 * 1024 + page)
      const isFilled = (byte: number) =>
        dmaBuf.withCpuAccess('r', (view) =>
          Buffer.from(view).equals(Buffer.alloc(view.length, byte)),
        )
      t.ok(await isFilled(0))
      await dmaBuf.withCpuAccess('w', (view) => view.fill(0x5c))
      t.ok(await isFilled(0x5c))
    })

    await t.test('can be imported by another driver', async (t) => {
      using vgem = DrmDevice.open({ driver: 'vgem' })
      using dmaBuf = await heap.alloc(4 * page)
      using imported = vgem.importBuffer(dmaBuf)
      t.equal(imported.size, 4 * page)
      using again = imported.exportDmaBuf()
      t.ok(again.equals(dmaBuf), 'and comes out as the same dma-buf')
    })

    await t.test('refusals', async (t) => {
      const rw = constants.O_RDWR | 0o2000000
      const { handle } = heap
      const refused = { code: 'EINVAL', syscall: 'ioctl DMA_HEAP_IOCTL_ALLOC' }
      await t.rejects(native.dmaHeapAlloc(handle, page, 0, 0xffffffff, 0), refused, 'fd_flags')
      await t.rejects(native.dmaHeapAlloc(handle, page, 0, rw, 0xffffffff), refused, 'heap_flags')
      await t.rejects(native.dmaHeapAlloc(handle, page, 1, rw, 0), refused, 'fd must be 0 going in')
      await t.rejects(native.dmaHeapAlloc(handle, 0, 0, rw, 0), refused, 'no length')
      await t.rejects(heap.alloc(2 ** 50), { code: 'ENOMEM', argument: 'size' })
      for (const bad of [0, -1, NaN, 2 ** 53, 1.5]) {
        await t.rejects(heap.alloc(bad), { code: 'ERR_OUT_OF_RANGE', argument: 'size' })
      }
      await t.rejects(heap.alloc('4096' as never), { code: 'ERR_INVALID_ARG_TYPE' })
      const accepted = await native.dmaHeapAlloc(handle, page, 0, rw, 0)
      t.ok(accepted.number > 0, 'and this goes')
      accepted.close()
    })

    await t.test('the sync ioctl', async (t) => {
      using dmaBuf = await heap.alloc(page)
      for (const flags of [0, 4, 8, 0xffff]) {
        await t.rejects(native.dmaBufSync(dmaBuf.handle, flags), { code: 'EINVAL' })
      }
      for (const mode of ['r', 'w', 'rw'] as const) {
        await dmaBuf.beginCpuAccess(mode)
        await dmaBuf.endCpuAccess(mode)
      }
    })

    await t.test('nothing is left', async (t) => {
      const listed = countInDebugfs(name)
      for (let i = 0; i < 50; i++) (await heap.alloc(page)).close()
      await settled()
      t.equal(countInDebugfs(name), listed)
      const kept = await heap.alloc(page)
      t.equal(countInDebugfs(name), listed + 1)
      kept.close()
    })

    heap.close()
    await t.rejects(heap.alloc(page), { code: 'ERR_CLOSED' })
    await settled()
    t.equal(openFds(), before)
  })
}

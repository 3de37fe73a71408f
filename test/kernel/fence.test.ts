/** Fences on a real kernel: vgem's, as sync_files, and through dma-bufs. */
import t from 'tap'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { DrmDevice, Memfd, SyncFile, Udmabuf } from '../../lib/kernel/index.js'
import { native } from '../../lib/native.js'
import { listFds, openFds, page, settled } from './support.js'

t.setTimeout(900_000)
const before = openFds()
const vgem = DrmDevice.open({ driver: 'vgem' })

/** Whether a promise has settled by now. */
async function pending(promise: Promise<unknown>): Promise<boolean> {
  await settled()
  const mark = Symbol('pending')
  return (await Promise.race([promise, Promise.resolve(mark)])) === mark
}

t.test('vgem buffers, both directions', async (t) => {
  t.equal(vgem.driver, 'vgem')
  using buffer = vgem.createBuffer(3 * page + 1)
  t.equal(buffer.size, 4 * page)
  using dmaBuf = buffer.exportDmaBuf()
  t.equal(dmaBuf.size, 4 * page)
  using mapping = buffer.map()
  const bytes = new Uint8Array(mapping.view())
  for (let i = 0; i < 4; i++) bytes[i * page] = i + 1
  using part = dmaBuf.map({ offset: 2 * page })
  t.equal(new Uint8Array(part.view())[0], 3, 'a mapping at an offset is of that offset')
  bytes[page] = 7
  t.equal(await dmaBuf.withCpuAccess('r', (view) => view[page]), 7)
  using own = vgem.importBuffer(dmaBuf)
  t.equal(own.handle, buffer.handle, 'the handle that is held already')
  buffer.close()
  buffer.close()
  t.throws(() => buffer.handle, { code: 'ERR_CLOSED' })
  t.throws(() => buffer.exportDmaBuf(), { code: 'ERR_CLOSED' })
  own.exportDmaBuf().close()
  t.equal(own.size, 4 * page, 'the other hold on the handle is good')

  using memfd = Memfd.create(page)
  using foreign = await Udmabuf.create(memfd, 0, page)
  using imported = vgem.importBuffer(foreign)
  t.equal(imported.size, page)
  t.throws(() => vgem.importBuffer(memfd as never), { code: 'ERR_INVALID_ARG_TYPE' })
  for (const bad of [0, -1, NaN, 2 ** 53]) {
    t.throws(() => vgem.createBuffer(bad), { code: 'ERR_OUT_OF_RANGE', argument: 'size' })
  }
  t.throws(() => imported.attachFence('rw' as never), { code: 'ERR_INVALID_ARG_VALUE' })
  t.throws(
    () => {
      vgem.signalFence(12345)
    },
    { code: 'ENOENT' },
  )
  t.throws(
    () => {
      vgem.signalFence(-1)
    },
    { code: 'ERR_OUT_OF_RANGE' },
  )
})

t.test("a writer's fence holds back readers and writers", async (t) => {
  using buffer = vgem.createBuffer(page)
  using dmaBuf = buffer.exportDmaBuf()
  await dmaBuf.readable()
  await dmaBuf.writable()
  const fence = buffer.attachFence('w')
  t.throws(() => buffer.attachFence('w'), { code: 'EBUSY' })
  t.throws(() => buffer.attachFence('r'), { code: 'EBUSY' })
  const readable = dmaBuf.readable()
  const writable = dmaBuf.writable()
  const access = dmaBuf.beginCpuAccess('r')
  t.ok(await pending(readable))
  t.ok(await pending(writable))
  t.ok(await pending(access), 'CPU access waits too')
  await t.rejects(dmaBuf.readable({ timeoutMs: 1 }), { code: 'ETIMEDOUT' })
  await t.rejects(dmaBuf.readable({ signal: AbortSignal.abort() }), { code: 'ABORT_ERR' })
  const controller = new AbortController()
  const aborted = t.rejects(dmaBuf.beginCpuAccess('rw', { signal: controller.signal }), {
    code: 'ABORT_ERR',
  })
  controller.abort()
  await aborted
  vgem.signalFence(fence)
  await Promise.all([readable, writable, access])
  await dmaBuf.endCpuAccess('r')
  t.pass('all released by the signal')
})

t.test("a reader's fence holds back writers only", async (t) => {
  using buffer = vgem.createBuffer(page)
  using dmaBuf = buffer.exportDmaBuf()
  const fence = buffer.attachFence('r')
  await dmaBuf.readable()
  const writable = dmaBuf.writable()
  t.ok(await pending(writable))
  using forReading = dmaBuf.exportSyncFile('r')
  using forWriting = dmaBuf.exportSyncFile('w')
  t.equal(forReading.status, 1, 'nothing to wait for')
  t.equal(forWriting.status, 0)
  vgem.signalFence(fence)
  await writable
  t.equal(forWriting.status, 1)
})

t.test('sync_file: snapshot, info, merge, deadline, wait', async (t) => {
  using one = vgem.createBuffer(page)
  using two = vgem.createBuffer(page)
  using dmaBufOne = one.exportDmaBuf()
  using dmaBufTwo = two.exportDmaBuf()
  using empty = dmaBufOne.exportSyncFile('rw')
  const fenceOne = one.attachFence('w')
  t.equal(empty.status, 1, 'a snapshot: fences that come later are not in it')
  const fenceTwo = two.attachFence('w')
  using syncOne = dmaBufOne.exportSyncFile('r')
  using syncTwo = dmaBufTwo.exportSyncFile('r')
  const info = syncOne.info()
  t.equal(info.status, 0)
  t.equal(info.fences.length, 1)
  t.match(info.fences[0], { driver: 'vgem', timeline: /./, status: 0, timestampNs: 0n })

  using both = syncOne.merge(syncTwo, 'both')
  t.equal(both.info().name, 'both')
  t.equal(both.info().fences.length, 2)
  t.equal(both.status, 0)
  using cut = syncOne.merge(syncTwo, 'x'.repeat(40))
  t.equal(cut.info().name, 'x'.repeat(31))
  t.throws(() => syncOne.merge(dmaBufOne as never), { code: 'ERR_INVALID_ARG_TYPE' })
  t.throws(() => native.syncFileMerge(syncOne.handle, dmaBufOne.handle, 'x'), {
    code: 'ENOENT',
    syscall: 'ioctl SYNC_IOC_MERGE',
  })

  both.setDeadline(process.hrtime.bigint() + 1_000_000n)
  t.throws(
    () => {
      native.syncFileSetDeadline(both.handle, 1n, 1)
    },
    { code: 'EINVAL' },
  )
  for (const bad of [-1n, 1n << 64n]) {
    t.throws(
      () => {
        both.setDeadline(bad)
      },
      { code: 'ERR_OUT_OF_RANGE' },
    )
  }
  t.throws(
    () => {
      both.setDeadline(1 as never)
    },
    { code: 'ERR_INVALID_ARG_TYPE' },
  )

  const wait = both.wait()
  const first = syncOne.wait()
  t.ok(await pending(wait))
  vgem.signalFence(fenceOne)
  await first
  t.ok(await pending(wait), 'one of two is not enough')
  await t.rejects(both.wait({ timeoutMs: 1 }), { code: 'ETIMEDOUT' })
  vgem.signalFence(fenceTwo)
  await wait
  await both.wait()
  const done = both.info()
  t.equal(done.status, 1)
  t.ok(done.fences.every((fence) => fence.status === 1 && fence.timestampNs > 0n))
  using adopted = SyncFile.adopt(syncTwo.dup().release())
  t.equal(adopted.status, 1)
})

t.test('a fence goes from one exporter to another', async (t) => {
  using buffer = vgem.createBuffer(page)
  using source = buffer.exportDmaBuf()
  using memfd = Memfd.create(page)
  using target = await Udmabuf.create(memfd, 0, page)
  const fence = buffer.attachFence('w')
  using syncFile = source.exportSyncFile('r')
  target.importSyncFile('w', syncFile)
  const access = target.withCpuAccess('rw', (view) => view.length)
  t.ok(await pending(access), "the udmabuf waits for vgem's fence")
  t.throws(
    () => {
      target.importSyncFile('w', memfd as never)
    },
    { code: 'ERR_INVALID_ARG_TYPE' },
  )
  t.throws(() => native.dmaBufImportSyncFile(target.handle, 1, memfd.handle), { code: 'EINVAL' })
  t.throws(() => native.dmaBufImportSyncFile(target.handle, 0, syncFile.handle), { code: 'EINVAL' })
  t.throws(() => native.dmaBufExportSyncFile(target.handle, 0), { code: 'EINVAL' })
  t.throws(() => native.dmaBufExportSyncFile(target.handle, 8), { code: 'EINVAL' })
  vgem.signalFence(fence)
  t.equal(await access, page)
})

t.test('close while pending', async (t) => {
  using buffer = vgem.createBuffer(page)
  const dmaBuf = buffer.exportDmaBuf()
  const fence = buffer.attachFence('w')
  const syncFile = dmaBuf.exportSyncFile('w')
  const waits = [dmaBuf.readable(), dmaBuf.writable(), syncFile.wait(), dmaBuf.beginCpuAccess('w')]
  dmaBuf.close()
  syncFile.close()
  for (const wait of waits) await t.rejects(wait, { code: 'ERR_CLOSED' })
  await t.rejects(syncFile.wait(), { code: 'ERR_CLOSED' })
  await t.rejects(dmaBuf.beginCpuAccess('r'), { code: 'ERR_CLOSED' })
  vgem.signalFence(fence)
})

t.test('a worker terminated while it waits', async (t) => {
  const lib = fileURLToPath(new URL('../../lib/kernel/index.js', import.meta.url))
  const source = `(async () => {
    const { DrmDevice } = await import(${JSON.stringify(lib)})
    const { parentPort } = await import('node:worker_threads')
    const vgem = DrmDevice.open({ driver: 'vgem' })
    const buffer = vgem.createBuffer(4096)
    const dmaBuf = buffer.exportDmaBuf()
    const fence = buffer.attachFence('w')
    globalThis.kept = [dmaBuf.readable(), dmaBuf.writable(), dmaBuf.exportSyncFile('r').wait(),
      dmaBuf.withCpuAccess('rw', () => 0)]
    parentPort.postMessage('waiting')
  })()`
  const run = async () => {
    const worker = new Worker(source, { eval: true })
    await once(worker, 'message')
    await worker.terminate()
  }
  // The first worker opens what the process keeps for all.
  await run()
  const fds = listFds()
  await run()
  t.same(listFds(), fds, 'its descriptors are closed')
})

t.test('a fence that nobody signals expires after 10 s, as a success', async (t) => {
  using buffer = vgem.createBuffer(page)
  using dmaBuf = buffer.exportDmaBuf()
  const fence = buffer.attachFence('w')
  using syncFile = dmaBuf.exportSyncFile('w')
  await syncFile.wait()
  t.equal(syncFile.status, 1)
  t.throws(
    () => {
      vgem.signalFence(fence)
    },
    { code: 'ETIMEDOUT' },
  )
})

t.test('no descriptor left', async (t) => {
  vgem.close()
  vgem.close()
  t.throws(() => vgem.createBuffer(page), { code: 'ERR_CLOSED' })
  await settled()
  t.equal(openFds(), before)
})

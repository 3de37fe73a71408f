/** The assertions of the kernel's selftest for udmabuf, and what it does not ask. */
import t from 'tap'
import { closeSync, openSync } from 'node:fs'
import {
  DmaBuf,
  F_SEAL_FUTURE_WRITE,
  F_SEAL_GROW,
  F_SEAL_SHRINK,
  F_SEAL_WRITE,
  Mapping,
  Memfd,
  OwnedFd,
  SyncFile,
  Udmabuf,
} from '../../lib/kernel/index.js'
import { native } from '../../lib/native.js'
import { someBadValues, rowOf, walkArguments } from '../unit/surface-walk.js'
import { countInDebugfs, firstBytes, openFds, page, reserveHugePages, settled } from './support.js'

class AnyFile extends OwnedFd {
  static of(number: number): AnyFile {
    return new AnyFile(native.dupFd(number))
  }
  dup(): AnyFile {
    return AnyFile.of(this.fd)
  }
}

const invalid = { code: 'EINVAL', syscall: 'ioctl UDMABUF_CREATE' }

t.setTimeout(900_000)

t.test('refusals', async (t) => {
  const before = openFds()
  using memfd = Memfd.create(8 * page)
  await t.rejects(Udmabuf.create(memfd, page / 2, page), { ...invalid, hint: /offset/ })
  await t.rejects(Udmabuf.create(memfd, 0, page + 1), { ...invalid, hint: /size must/ })
  await t.rejects(Udmabuf.create(memfd, 0, 0), { ...invalid, hint: /size must/ })
  await t.rejects(Udmabuf.create(memfd, page, 8 * page), { ...invalid, hint: /inside/ })
  await t.rejects(Udmabuf.create(memfd, 100 * page, page), { ...invalid, hint: /inside/ })

  const plain = openSync('/etc/hostname', 'r')
  using file = AnyFile.of(plain)
  closeSync(plain)
  await t.rejects(Udmabuf.create(file, 0, page), { code: 'EBADFD', hint: /memfd/ })
  using unsealed = Memfd.create(page, { seals: 0 })
  await t.rejects(Udmabuf.create(unsealed, 0, page), { ...invalid, hint: /F_SEAL_SHRINK/ })
  using unsealable = Memfd.create(page, { sealable: false })
  await t.rejects(Udmabuf.create(unsealable, 0, page), { ...invalid, hint: /F_SEAL_SHRINK/ })
  for (const seal of [F_SEAL_WRITE, F_SEAL_FUTURE_WRITE]) {
    using sealed = Memfd.create(page, { seals: F_SEAL_SHRINK | seal })
    await t.rejects(Udmabuf.create(sealed, 0, page), { ...invalid, hint: /must not have/ })
  }
  const { sizeLimit, listLimit } = Udmabuf.limits()
  using large = Memfd.create(sizeLimit + page)
  await t.rejects(Udmabuf.create(large, 0, sizeLimit + page), { ...invalid, hint: /size_limit_mb/ })
  const list = { code: 'EINVAL', syscall: 'ioctl UDMABUF_CREATE_LIST' }
  const item = { memfd, offset: 0, size: page }
  await t.rejects(Udmabuf.createList([]), { ...list, hint: /empty/ })
  await t.rejects(Udmabuf.createList(Array.from({ length: listLimit + 1 }, () => item)), {
    ...list,
    hint: /list_limit/,
  })
  await t.rejects(Udmabuf.createList([item, { ...item, offset: 1 }]), { ...list, hint: /offset/ })
  memfd.close()
  await t.rejects(Udmabuf.create(memfd, 0, page), { code: 'ERR_CLOSED' })
  for (const one of [file, unsealed, unsealable, large]) one.close()
  await settled()
  t.equal(openFds(), before, 'nothing leaked')
})

t.test('without types: arguments left out, what only looks right', async (t) => {
  const before = openFds()
  using memfd = Memfd.create(8 * page)
  using dmaBuf = await Udmabuf.create(memfd, 0, page)
  const item = { memfd, offset: 0, size: page }
  const rows = {
    'Udmabuf.create': rowOf(Udmabuf.create, memfd, 0, page),
    'Udmabuf.createList': rowOf(Udmabuf.createList, [item]),
    'DmaBuf#equals': rowOf(dmaBuf.equals.bind(dmaBuf), dmaBuf),
    'DmaBuf#map': rowOf(dmaBuf.map.bind(dmaBuf), {}),
    'DmaBuf#setName': rowOf(dmaBuf.setName.bind(dmaBuf), 'name'),
    'DmaBuf#readable': rowOf(dmaBuf.readable.bind(dmaBuf), {}),
    'DmaBuf#withCpuAccess': rowOf(dmaBuf.withCpuAccess.bind(dmaBuf), 'r', () => 1, {}),
    'DmaBuf#exportSyncFile': rowOf(dmaBuf.exportSyncFile.bind(dmaBuf), 'r'),
    'DmaBuf.ofDuplicate': rowOf(DmaBuf.ofDuplicate, dmaBuf.fd),
  }
  const { wrong, calls } = await walkArguments(rows, someBadValues(), () => undefined)
  t.comment(`${calls} calls`)
  t.same(wrong, [])
  await settled()
  t.equal(openFds(), before + 2)
})

t.test("a valid one, in the kernel's own list", async (t) => {
  const before = countInDebugfs('udmabuf')
  using memfd = Memfd.create(8 * page, { seals: F_SEAL_SHRINK | F_SEAL_GROW })
  using dmaBuf = await Udmabuf.create(memfd, 2 * page, 4 * page)
  t.equal(dmaBuf.size, 4 * page)
  t.equal(dmaBuf.info().exporter, 'udmabuf')
  t.equal(countInDebugfs('udmabuf'), before + 1)
  t.equal(dmaBuf.name, '')
  dmaBuf.setName('grün '.repeat(5))
  t.equal(dmaBuf.name, 'grün '.repeat(5))
  t.throws(
    () => {
      dmaBuf.setName('x'.repeat(32))
    },
    { code: 'ERR_OUT_OF_RANGE', argument: 'name' },
  )
  t.throws(
    () => {
      dmaBuf.setName(1 as never)
    },
    { code: 'ERR_INVALID_ARG_TYPE' },
  )

  using copy = dmaBuf.dup()
  using adopted = DmaBuf.ofDuplicate(dmaBuf.fd)
  using other = await Udmabuf.create(memfd, 2 * page, 4 * page)
  t.ok(dmaBuf.equals(copy))
  t.ok(dmaBuf.equals(adopted))
  t.notOk(dmaBuf.equals(other), 'the same pages, another dma-buf')
  t.not(copy.fd, dmaBuf.fd)
  dmaBuf.close()
  dmaBuf.close()
  t.equal(copy.size, 4 * page)
  t.throws(() => dmaBuf.size, { code: 'ERR_CLOSED' })
  t.throws(() => dmaBuf.map(), { code: 'ERR_CLOSED' })
  t.throws(() => SyncFile.adopt(copy.fd), { code: 'ERR_NOT_SYNC_FILE' })
  t.throws(() => Memfd.adopt(copy.fd), { code: 'ERR_INVALID_ARG_VALUE' })
  const number = copy.dup().release()
  using taken = DmaBuf.adopt(number)
  t.equal(taken.fd, number)
  t.ok(taken.equals(copy))
})

t.test('shares its pages with the memfd, both ways', async (t) => {
  using memfd = Memfd.create(8 * page)
  using memory = memfd.map()
  const bytes = new Uint8Array(memory.view())
  for (let i = 0; i < 8; i++) bytes[i * page] = i + 1
  using dmaBuf = await Udmabuf.create(memfd, 2 * page, 4 * page)
  t.same(await firstBytes(dmaBuf), [3, 4, 5, 6], 'what was written before')
  bytes[3 * page] = 99
  t.same(await firstBytes(dmaBuf), [3, 99, 5, 6], 'and after')
  await dmaBuf.withCpuAccess('w', (view) => {
    view[2 * page] = 77
  })
  t.equal(bytes[4 * page], 77, 'and the other way')
  memory.unmap()
  memfd.close()
  t.same(await firstBytes(dmaBuf), [3, 99, 77, 6], 'the dma-buf holds the pages')
})

t.test('a list in its order', async (t) => {
  using one = Memfd.create(4 * page)
  using two = Memfd.create(4 * page)
  for (const [memfd, base] of [
    [one, 10],
    [two, 20],
  ] as const) {
    using memory = memfd.map()
    const bytes = new Uint8Array(memory.view())
    for (let i = 0; i < 4; i++) bytes[i * page] = base + i
  }
  using dmaBuf = await Udmabuf.createList([
    { memfd: two, offset: page, size: 2 * page },
    { memfd: one, offset: 3 * page, size: page },
    { memfd: two, offset: 0, size: page },
  ])
  t.equal(dmaBuf.size, 4 * page)
  t.same(await firstBytes(dmaBuf), [21, 22, 13, 20])
})

t.test('huge pages', async (t) => {
  const huge = reserveHugePages(8)
  using memfd = Memfd.create(3 * huge - 1, { hugetlb: true })
  t.equal(memfd.size, 3 * huge, 'rounded up to huge pages')
  t.equal(memfd.pageSize, huge)
  using memory = memfd.map()
  const bytes = new Uint8Array(memory.view())
  for (let i = 0; i < 3; i++) bytes.fill(i + 1, i * huge, i * huge + 5)
  bytes[huge + page] = 9
  using list = await Udmabuf.createList([
    { memfd, offset: 2 * huge, size: huge },
    { memfd, offset: 0, size: 2 * huge },
  ])
  t.same(await firstBytes(list, huge), [3, 1, 2])
  using whole = await Udmabuf.create(memfd, 0, 3 * huge)
  bytes[2 * huge] = 42
  t.same(await firstBytes(whole, huge), [1, 2, 42])
  using part = await Udmabuf.create(memfd, huge, huge)
  const second = await part.withCpuAccess('r', (view) => view[page])
  t.equal(second, 9)
  await t.rejects(Udmabuf.create(memfd, 4 * huge, huge), { code: 'EINVAL' })
})

t.test('the sync ioctl', async (t) => {
  using memfd = Memfd.create(page)
  using dmaBuf = await Udmabuf.create(memfd, 0, page)
  await t.rejects(dmaBuf.endCpuAccess('r'), {
    code: 'EINVAL',
    syscall: 'ioctl DMA_BUF_IOCTL_SYNC',
    hint: /beginning/,
  })
  const { handle } = dmaBuf
  for (const flags of [0, 4, 8, 0xffff]) {
    await t.rejects(native.dmaBufSync(handle, flags), { code: 'EINVAL' }, `flags ${flags}`)
  }
  await dmaBuf.beginCpuAccess('rw')
  await dmaBuf.endCpuAccess('rw')
  await t.rejects(
    Promise.resolve().then(() => dmaBuf.beginCpuAccess('x' as never)),
    {
      code: 'ERR_INVALID_ARG_VALUE',
    },
  )
})

t.test('mapping', async (t) => {
  using memfd = Memfd.create(4 * page)
  using dmaBuf = await Udmabuf.create(memfd, 0, 4 * page)
  t.throws(() => dmaBuf.map({ length: 5 * page }), { code: 'ERR_OUT_OF_RANGE' })
  t.throws(() => dmaBuf.map({ offset: 4 * page }), { code: 'ERR_OUT_OF_RANGE' })
  using mapping = Mapping.map(dmaBuf.fd, { offset: page })
  t.equal(mapping.length, 3 * page)
  using memory = memfd.map()
  const bytes = new Uint8Array(memory.view())
  bytes[page] = 1
  bytes[4 * page - 1] = 2
  const seen = new Uint8Array(mapping.view())
  t.same([seen[0], seen.at(-1)], [1, 2], 'from its offset on')
  await mapping.fill(5n)
  t.equal(await mapping.countRuns(5n), 0)
  const stale = mapping.view()
  mapping.unmap()
  t.equal(stale.byteLength, 0)
  let escaped: Uint8Array | null = null
  await dmaBuf.withCpuAccess(
    'rw',
    (view) => {
      escaped = view
      t.equal(view.length, page)
    },
    { offset: page, length: page },
  )
  t.equal((escaped as Uint8Array | null)?.length, 0, 'detached at the end of the bracket')
  const boom = new Error('mine')
  await t.rejects(
    dmaBuf.withCpuAccess('r', () => {
      throw boom
    }),
    boom,
  )
  await dmaBuf.withCpuAccess('r', () => {
    dmaBuf.close()
  })
  t.ok(dmaBuf.closed, 'closed inside its own bracket')
})

t.test('no descriptor left', async (t) => {
  const before = openFds()
  const listed = countInDebugfs('udmabuf')
  for (let i = 0; i < 50; i++) {
    const memfd = Memfd.create(page)
    const dmaBuf = await Udmabuf.create(memfd, 0, page)
    memfd.close()
    await firstBytes(dmaBuf)
    dmaBuf.exportSyncFile('w').close()
    dmaBuf.close()
  }
  await settled()
  t.equal(openFds(), before)
  t.equal(countInDebugfs('udmabuf'), listed, 'the kernel agrees')
})

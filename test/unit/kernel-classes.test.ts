import t from 'tap'
import { execFileSync } from 'node:child_process'
import { closeSync, openSync, readdirSync, statSync } from 'node:fs'
import {
  DmaBuf,
  DmaHeap,
  DrmDevice,
  F_SEAL_FUTURE_WRITE,
  F_SEAL_GROW,
  F_SEAL_SEAL,
  F_SEAL_SHRINK,
  Memfd,
  SyncFile,
  Udmabuf,
} from '../../lib/kernel/index.js'
import { call, callAsync, translate } from '../../lib/kernel/call.js'
import { beginCpuAccess, type CpuAccessMode, endCpuAccess } from '../../lib/kernel/cpu-access.js'
import { parseFdinfo } from '../../lib/kernel/fdinfo.js'
import { native } from '../../lib/native.js'

const page = native.pageSize
const openFds = () => readdirSync('/proc/self/fd').length

t.test('memfd', (t) => {
  const before = openFds()
  using memfd = Memfd.create(100, { name: 'grün' })
  t.equal(memfd.size, page, 'rounded up')
  t.equal(memfd.pageSize, page)
  t.equal(memfd.getSeals(), F_SEAL_SHRINK)
  memfd.truncate(3 * page)
  t.equal(memfd.size, 3 * page)
  t.throws(
    () => {
      memfd.truncate(page)
    },
    { code: 'EPERM', syscall: 'ftruncate', hint: /seal/ },
  )
  memfd.addSeals(F_SEAL_GROW | F_SEAL_SEAL)
  t.throws(
    () => {
      memfd.truncate(4 * page)
    },
    { code: 'EPERM' },
  )
  t.throws(
    () => {
      memfd.addSeals(F_SEAL_FUTURE_WRITE)
    },
    { code: 'EPERM', hint: /F_SEAL_SEAL/ },
  )
  using plain = Memfd.create(page, { sealable: false })
  t.equal(plain.getSeals(), F_SEAL_SEAL)
  t.throws(() => plain.map(), { code: 'EPERM' }, 'it can shrink, so it is not mapped')
  using copy = memfd.dup()
  t.equal(copy.stat().inode, memfd.stat().inode)
  t.not(copy.fd, memfd.fd)
  memfd.close()
  memfd.close()
  t.equal(memfd.fd, -1)
  t.ok(memfd.closed)
  t.throws(() => memfd.size, { code: 'ERR_CLOSED' })
  t.throws(() => memfd.dup(), { code: 'ERR_CLOSED' })
  t.throws(() => memfd.getSeals(), { code: 'ERR_CLOSED' })
  t.equal(copy.size, 3 * page)

  for (const bad of [-1, 0.5, NaN, Infinity, 2 ** 53]) {
    t.throws(() => Memfd.create(bad), { code: 'ERR_OUT_OF_RANGE', argument: 'size' })
    t.throws(
      () => {
        copy.truncate(bad)
      },
      { code: 'ERR_OUT_OF_RANGE', argument: 'size' },
    )
  }
  t.throws(() => Memfd.create('1' as never), { code: 'ERR_INVALID_ARG_TYPE' })
  t.throws(() => Memfd.create(1, { name: 'x'.repeat(250) }), { code: 'ERR_OUT_OF_RANGE' })
  t.throws(() => Memfd.create(1, { name: 'a\0b' }), { code: 'ERR_INVALID_ARG_VALUE' })
  t.throws(() => Memfd.create(1, { name: 1 as never }), { code: 'ERR_INVALID_ARG_TYPE' })
  t.throws(() => Memfd.create(1, { seals: 64 }), { code: 'ERR_OUT_OF_RANGE' })
  t.throws(() => Memfd.create(1, { hugetlb: 3 * 2 ** 20 }), { code: 'ERR_OUT_OF_RANGE' })
  t.throws(() => Memfd.create(1, { hugetlb: 2 ** 25 }), { code: 'ENODEV', hint: /hugepages/ })
  t.throws(() => Memfd.create(Number.MAX_SAFE_INTEGER), { code: 'ERR_OUT_OF_RANGE' })
  copy.close()
  plain.close()
  t.equal(openFds(), before, 'no descriptor left')
  t.end()
})

t.test('descriptors are close-on-exec', (t) => {
  using memfd = Memfd.create(1)
  using copy = memfd.dup()
  const inherited = openSync('/dev/null', 'r')
  using adopted = Memfd.adopt(execMemfd())
  for (const { fd } of [memfd, copy, adopted]) {
    const listing = execFileSync('/bin/sh', ['-c', 'ls /proc/self/fd; ls -l /proc/self/fd'])
    t.notOk(listing.toString().includes('memfd:'), `descriptor ${fd}`)
  }
  closeSync(inherited)
  t.end()

  /** A memfd opened through /proc, a descriptor like any other library's. */
  function execMemfd(): number {
    return openSync(`/proc/self/fd/${memfd.fd}`, 'r+')
  }
})

t.test('adopt checks what it is given', (t) => {
  const before = openFds()
  const plain = openSync('/dev/null', 'r')
  t.throws(() => Memfd.adopt(plain), { code: 'ERR_INVALID_ARG_VALUE', argument: 'fd' })
  t.throws(() => DmaBuf.adopt(plain), { code: 'ERR_NOT_DMA_BUF', argument: 'fd' })
  t.throws(() => DmaBuf.ofDuplicate(plain), { code: 'ERR_NOT_DMA_BUF', argument: 'fd' })
  t.throws(() => SyncFile.adopt(plain), { code: 'ERR_NOT_SYNC_FILE', argument: 'fd' })
  using memfd = Memfd.create(page)
  t.throws(() => DmaBuf.adopt(memfd.fd), { code: 'ERR_NOT_DMA_BUF' })
  t.throws(() => SyncFile.adopt(memfd.fd), { code: 'ERR_NOT_SYNC_FILE' })
  t.doesNotThrow(() => statSync(`/proc/self/fd/${plain}`), 'still open')
  for (const adopt of [Memfd.adopt, DmaBuf.adopt, SyncFile.adopt] as ((fd: number) => unknown)[]) {
    t.throws(() => adopt(19_998), { code: 'EBADF' })
    for (const bad of [-1, 2 ** 31, NaN, 1.5]) {
      t.throws(() => adopt(bad), { code: 'ERR_OUT_OF_RANGE', argument: 'fd' })
    }
    t.throws(() => adopt('3' as never), { code: 'ERR_INVALID_ARG_TYPE', argument: 'fd' })
  }
  closeSync(plain)
  memfd.close()
  t.equal(openFds(), before)
  t.end()
})

t.test('native guards: what is no Fd', (t) => {
  using memfd = Memfd.create(page)
  const bad = [undefined, null, 3, '3', {}, [], () => undefined, memfd, memfd.map().handle]
  for (const value of bad) {
    const fd = value as never
    const wrong = { code: 'ERR_INVALID_ARG_TYPE' }
    t.throws(() => native.statFd(fd), wrong)
    t.throws(() => native.getSeals(fd), wrong)
    t.throws(() => native.dmaBufSync(fd, 1), wrong)
    t.throws(() => native.syncFileInfo(fd, 0), wrong)
    t.throws(() => native.udmabufCreate(memfd.handle, fd, 0, 1), wrong)
    t.throws(() => native.udmabufCreateList(memfd.handle, fd, fd, fd), wrong)
    t.throws(
      () =>
        native.udmabufCreateList(memfd.handle, [fd], new BigUint64Array(1), new BigUint64Array(1)),
      wrong,
    )
    t.throws(() => native.dmaHeapAlloc(fd, 1, 0, 0, 0), wrong)
    t.throws(() => native.drmDriver(fd), wrong)
  }
  t.throws(() => native.dupFd({} as never), { code: 'ERR_INVALID_ARG_TYPE' })
  t.throws(() => native.openFd('/nowhere/at/all', 0), {
    code: 'ENOENT',
    errno: -2,
    syscall: 'open',
  })
  const Fake = memfd.handle.constructor as unknown as new (value?: unknown) => unknown
  t.throws(() => new Fake(), { code: 'ERR_ILLEGAL_CONSTRUCTOR' })
  t.end()
})

t.test('the wrong kind of file: a typed error from each ioctl', async (t) => {
  const before = openFds()
  using memfd = Memfd.create(page)
  const { handle } = memfd
  await t.rejects(native.dmaBufSync(handle, 1), { code: 'ENOTTY', errno: -25 })
  t.throws(() => native.dmaBufExportSyncFile(handle, 1), { code: 'ENOTTY' })
  t.throws(() => native.dmaBufImportSyncFile(handle, 1, handle), { code: 'ENOTTY' })
  t.throws(
    () => {
      native.dmaBufSetName(handle, 'x')
    },
    { code: 'ENOTTY' },
  )
  t.throws(() => native.syncFileMerge(handle, handle, 'x'), { code: 'ENOTTY' })
  t.throws(
    () => {
      native.syncFileSetDeadline(handle, 1n, 0)
    },
    { code: 'ENOTTY' },
  )
  await t.rejects(native.udmabufCreate(handle, handle, 0, page), { code: 'ENOTTY' })
  const one = BigUint64Array.of(0n)
  await t.rejects(native.udmabufCreateList(handle, [handle], one, one), { code: 'ENOTTY' })
  await t.rejects(native.dmaHeapAlloc(handle, page, 0, 2, 0), { code: 'ENOTTY' })
  t.throws(() => native.drmDriver(handle), { code: 'ENOTTY' })
  t.throws(() => native.drmFdToHandle(handle, handle), { code: 'ENOTTY' })
  t.throws(() => DrmDevice.open({ path: '/dev/null' }), { code: 'ERR_UNSUPPORTED' })
  memfd.close()
  t.equal(openFds(), before)
})

t.test('what this machine may not have says what would help', async (t) => {
  using memfd = Memfd.create(page)
  const absent = (path: string) => {
    try {
      statSync(path)
      return false
    } catch {
      return true
    }
  }
  if (absent('/dev/udmabuf')) {
    await t.rejects(Udmabuf.create(memfd, 0, page), { code: 'ENOENT', hint: /modprobe udmabuf/ })
    await t.rejects(Udmabuf.createList([]), { code: 'ENOENT', hint: /modprobe udmabuf/ })
  }
  t.throws(() => DmaHeap.open('no-such-heap'), { code: 'ENOENT', hint: /heap/ })
  t.throws(() => DrmDevice.open({ driver: 'no-such-driver' }), { code: 'ENOENT', hint: /modprobe/ })
  t.throws(() => DrmDevice.open({ path: '/dev/dri/card99' }), { code: 'ENOENT', hint: /vgem/ })
  for (const bad of ['../null', '', '.', '..', 'a/b', 'a\0b']) {
    t.throws(() => DmaHeap.open(bad), { code: 'ERR_INVALID_ARG_VALUE', argument: 'name' })
  }
  t.throws(() => DmaHeap.open(1 as never), { code: 'ERR_INVALID_ARG_TYPE' })
  t.throws(() => DrmDevice.open(null as never), { code: 'ERR_INVALID_ARG_TYPE' })
  t.throws(() => DrmDevice.open({ driver: 1 as never }), { code: 'ERR_INVALID_ARG_TYPE' })
  for (const bad of [null, 3, {}, memfd.handle]) {
    const wrong = { code: 'ERR_INVALID_ARG_TYPE' }
    await t.rejects(Udmabuf.create(bad as never, 0, page), { ...wrong, argument: 'memfd' })
    await t.rejects(Udmabuf.createList([{ memfd: bad as never, offset: 0, size: 1 }]), {
      ...wrong,
      argument: 'items[0].memfd',
    })
    await t.rejects(Udmabuf.createList(bad as never), { ...wrong, argument: 'items' })
  }
  for (const bad of [-1, NaN, 2 ** 53]) {
    await t.rejects(Udmabuf.create(memfd, bad, page), { code: 'ERR_OUT_OF_RANGE' })
    await t.rejects(Udmabuf.create(memfd, 0, bad), { code: 'ERR_OUT_OF_RANGE' })
  }
})

t.test('EINTR and EAGAIN are retried, nothing else', async (t) => {
  using memfd = Memfd.create(page)
  const calls: number[] = []
  /** Answers for the kernel: no dma-buf is there. */
  const fakeKernel = (answers: (string | null)[]) => ({
    dmaBufSync: (_fd: unknown, flags: number): Promise<void> => {
      calls.push(flags)
      const code = answers.shift()
      if (code === undefined || code === null) return Promise.resolve()
      return Promise.reject(Object.assign(new Error(code), { code, errno: -1, syscall: 'ioctl' }))
    },
  })
  await beginCpuAccess(memfd.handle, 'r', fakeKernel(['EINTR', 'EAGAIN', 'EINTR', null]))
  t.same(calls.splice(0), [1, 1, 1, 1])
  await endCpuAccess(memfd.handle, 'rw', fakeKernel(['EAGAIN', null]))
  t.same(calls.splice(0), [7, 7])
  await t.rejects(beginCpuAccess(memfd.handle, 'w', fakeKernel(['EINTR', 'EIO'])), {
    name: 'P2pdmaError',
    code: 'EIO',
    syscall: 'ioctl',
  })
  t.same(calls.splice(0), [2, 2])
  await t.rejects(beginCpuAccess(memfd.handle, 'r', fakeKernel(['EINVAL'])), {
    code: 'EINVAL',
    hint: /beginning/,
  })
  calls.length = 0
  for (const bad of ['', 'x', 'toString', 3, null] as unknown[] as CpuAccessMode[]) {
    t.throws(() => beginCpuAccess(memfd.handle, bad, fakeKernel([])), {
      code: 'ERR_INVALID_ARG_VALUE',
      argument: 'mode',
    })
  }
  t.equal(calls.length, 0)
})

t.test('an older kernel is ERR_UNSUPPORTED with the version that has it', async (t) => {
  const fail = (code: string): never => {
    throw Object.assign(new Error(code), { code, errno: -25, syscall: 'ioctl X' })
  }
  t.throws(() => call(() => fail('ENOTTY'), { doing: 'sync-file.deadline' }), {
    code: 'ERR_UNSUPPORTED',
    errno: -25,
    syscall: 'ioctl X',
    hint: /6\.6/,
  })
  t.throws(() => call(() => fail('EACCES'), { doing: 'vfio.group', path: '/x' }), {
    code: 'EACCES',
    message: "EACCES '/x'",
    hint: 'run as root, or give the user /x',
  })
  await t.rejects(
    callAsync(() => Promise.reject(new TypeError('a bug'))),
    TypeError,
    'no system error',
  )
  t.equal(translate('text'), 'text')
})

t.test('fdinfo', (t) => {
  const head = 'pos:\t0\nflags:\t02000002\nmnt_id:\t14\nino:\t5\n'
  t.same(parseFdinfo(`${head}size:\t4096\ncount:\t2\nexp_name:\tudmabuf\n`), {
    size: 4096,
    count: 2,
    exporter: 'udmabuf',
    name: '',
  })
  const named = parseFdinfo(`${head}size:\t1\ncount:\t1\nexp_name:\tsystem\nname:\ta\nsize:\t9\n`)
  t.same(named, { size: 1, count: 1, exporter: 'system', name: 'a\nsize:\t9' })
  t.equal(parseFdinfo(head), null)
  t.end()
})

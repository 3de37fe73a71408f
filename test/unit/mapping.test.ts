import t from 'tap'
import { randomFill } from 'node:crypto'
import { closeSync, fstatSync, openSync, read } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import { promisify } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Mapping } from '../../lib/kernel/mapping.js'
import { Memfd } from '../../lib/kernel/memfd.js'
import { native } from '../../lib/native.js'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

const page = native.pageSize
const POISON = 0xdeadbeefdeadbeefn

t.test('maps, reads and writes', (t) => {
  using memfd = Memfd.create(4 * page)
  using whole = memfd.map()
  using third = memfd.map({ offset: 2 * page, length: page })
  t.equal(whole.length, 4 * page)
  t.equal(third.length, page)
  new Uint8Array(third.view()).fill(7)
  t.equal(new Uint8Array(whole.view(2 * page, 1))[0], 7)
  t.equal(new Uint8Array(whole.view(2 * page - 1, 1))[0], 0)
  t.equal(whole.view(0, 0).byteLength, 0)
  memfd.close()
  t.equal(new Uint8Array(whole.view())[2 * page], 7, 'outlives its descriptor')
  t.end()
})

t.test('refuses what would crash', async (t) => {
  using memfd = Memfd.create(page, { seals: 0 })
  const seals = { code: 'ERR_SEAL_MISSING', argument: 'fd' }
  t.throws(() => Mapping.map(memfd.fd), seals)
  using mapping = memfd.map()
  t.throws(() => memfd.truncate(0), { code: 'EPERM', syscall: 'ftruncate' })
  t.throws(() => memfd.map({ length: 2 * page }), { code: 'ERR_OUT_OF_RANGE', argument: 'length' })
  t.throws(() => memfd.map({ offset: page }), { code: 'ERR_OUT_OF_RANGE' })
  t.throws(() => memfd.map({ offset: 1 }), { code: 'ERR_OUT_OF_RANGE', argument: 'offset' })
  t.throws(() => memfd.map({ length: 0 }), { code: 'ERR_OUT_OF_RANGE', argument: 'length' })
  t.throws(() => memfd.map({ offset: -page }), { code: 'ERR_OUT_OF_RANGE', argument: 'offset' })
  t.throws(() => memfd.map({ length: NaN }), { code: 'ERR_OUT_OF_RANGE', argument: 'length' })
  t.throws(() => memfd.map({ length: 2 ** 53 }), { code: 'ERR_OUT_OF_RANGE', argument: 'length' })
  for (const bad of ['4096', {}, 1n] as unknown as number[]) {
    t.throws(() => memfd.map({ length: bad }), { code: 'ERR_INVALID_ARG_TYPE', argument: 'length' })
  }
  t.throws(() => memfd.map({ write: 1 as unknown as boolean }), { code: 'ERR_INVALID_ARG_TYPE' })
  t.throws(() => Mapping.map(-1), { code: 'ERR_OUT_OF_RANGE', argument: 'fd' })
  t.throws(() => Mapping.map(19_999), { code: 'EBADF' })
  for (const bad of [undefined, {}, memfd, native]) {
    t.throws(() => Mapping.map(bad as unknown as number), { code: 'ERR_INVALID_ARG_TYPE' })
  }
  const plain = openSync(process.execPath, 'r')
  t.throws(() => Mapping.map(plain), { code: 'ERR_INVALID_ARG_VALUE', argument: 'fd' })
  closeSync(plain)

  t.throws(() => mapping.view(0, page + 1), { code: 'ERR_OUT_OF_RANGE' })
  t.throws(() => mapping.view(page + 1), { code: 'ERR_OUT_OF_RANGE' })
  t.throws(() => mapping.view(-1), { code: 'ERR_OUT_OF_RANGE' })
  using readOnly = memfd.map({ write: false })
  t.throws(() => readOnly.view(), { code: 'ERR_INVALID_STATE' })
  await t.rejects(readOnly.fill(0n), { code: 'ERR_INVALID_STATE' })
  memfd.close()
  t.throws(() => memfd.map(), { code: 'ERR_CLOSED' })
})

t.test('a view is at most 4 GiB', (t) => {
  using memfd = Memfd.create(2 ** 32 + page)
  using mapping = memfd.map()
  t.throws(() => mapping.view(), { code: 'ERR_OUT_OF_RANGE', argument: 'length' })
  const last = new Uint8Array(mapping.view(2 ** 32, page))
  last[0] = 1
  t.equal(last.length, page, 'a window beyond 4 GiB')
  t.end()
})

t.test('views are empty after unmap', async (t) => {
  using memfd = Memfd.create(page)
  const mapping = memfd.map()
  const buffer = mapping.view()
  const bytes = new Uint8Array(mapping.view(8, 8))
  const data = new DataView(mapping.view())
  mapping.unmap()
  mapping.unmap()
  t.equal(mapping.length, 0)
  t.ok(mapping.closed)
  t.equal(buffer.byteLength, 0)
  t.equal(bytes.length, 0)
  t.throws(() => data.getInt8(0), TypeError)
  t.throws(() => mapping.view(), { code: 'ERR_CLOSED' })
  await t.rejects(mapping.fill(0n), { code: 'ERR_CLOSED' })
  await t.rejects(mapping.countRuns(0n), { code: 'ERR_CLOSED' })
})

t.test('many views, few kept', (t) => {
  using memfd = Memfd.create(page)
  using mapping = memfd.map()
  for (let i = 0; i < 2000; i++) mapping.view(0, 8)
  collect()
  const kept = mapping.view()
  mapping.unmap()
  t.equal(kept.byteLength, 0)
  t.end()
})

t.test('randomFill in flight during unmap', { timeout: 900_000 }, async (t) => {
  const fill = promisify(randomFill)
  let late = 0
  for (let i = 0; i < 1000; i++) {
    using memfd = Memfd.create(16 * page)
    using witness = memfd.map()
    const mapping = memfd.map()
    const done = fill(new Uint8Array(mapping.view()))
    if (i % 3 === 0) await turn()
    mapping.unmap()
    const before = await witness.countRuns(0n)
    await done
    if ((await witness.countRuns(0n)) !== before) late++
    if (i % 100 === 0) collect()
  }
  t.equal(late, 0, 'nothing reached the memory after unmap returned')
})

t.test('fs.read in flight during unmap', { timeout: 900_000 }, async (t) => {
  const fd = openSync('/dev/zero', 'r')
  const length = 64 * page
  let survived = 0
  for (let i = 0; i < 1000; i++) {
    using memfd = Memfd.create(length)
    const mapping = memfd.map()
    const done = new Promise<number>((resolve, reject) => {
      read(fd, new Uint8Array(mapping.view()), 0, length, null, (error, count) => {
        if (error === null) resolve(count)
        else reject(error)
      })
    })
    mapping.unmap()
    if (i % 50 === 0) collect()
    if ((await done) === length) survived++
  }
  closeSync(fd)
  t.equal(survived, 1000)
})

t.test('the addresses are kept until the last view is gone', async (t) => {
  using memfd = Memfd.create(64 * page, { name: 'kept' })
  const ranges = async () => {
    const { readFile } = await import('node:fs/promises')
    const maps = await readFile('/proc/self/maps', 'utf8')
    return maps.split('\n').map((line) => line.split(' ')[0] ?? '')
  }
  const mapping = memfd.map()
  const { readFile } = await import('node:fs/promises')
  const line = (await readFile('/proc/self/maps', 'utf8'))
    .split('\n')
    .find((text) => text.includes('memfd:kept'))
  const range = line?.split(' ')[0] ?? ''
  t.match(range, /-/)
  const [start = 0n, end = 0n] = range.split('-').map((hex) => BigInt(`0x${hex}`))
  const covered = async () =>
    (await ranges()).some((text) => {
      const [from = 0n, to = 0n] = text.split('-').map((hex) => BigInt(`0x${hex || '0'}`))
      return from <= start && to >= end
    })
  const holder = { view: mapping.view() as ArrayBuffer | null }
  mapping.unmap()
  t.ok(await covered(), 'while the stale view lives')
  t.equal(holder.view?.byteLength, 0)
  holder.view = null
  for (let i = 0; i < 20 && (await covered()); i++) {
    collect()
    await turn()
  }
  t.notOk(await covered(), 'given back once the view is collected')
})

t.test('copy, fill and count', async (t) => {
  const size = (8 << 20) + 3 * page
  using from = Memfd.create(size)
  using to = Memfd.create(size)
  using source = from.map()
  using target = to.map()
  const words = new BigUint64Array(source.view())
  for (let i = 0; i < words.length; i++) words[i] = (BigInt(i) * 0x9e3779b97f4a7c15n) & POISON
  await target.copyFrom(source, 0, 0, size)
  t.ok(Buffer.from(target.view()).equals(Buffer.from(source.view())), 'across slices')
  await target.copyFrom(source, 3, 5, 9)
  const head = Buffer.from(target.view(0, 16))
  t.same(head.subarray(5, 14), Buffer.from(source.view(3, 9)))

  await target.fill(POISON)
  t.equal(await target.countRuns(POISON), 0)
  const view = new Uint8Array(target.view())
  view[0] = 1
  view[100] = 1
  view[104] = 1
  view[size - 1] = 1
  t.equal(await target.countRuns(POISON), 3, 'touching words are one run')
  view.fill(1, (8 << 20) - 64, (8 << 20) + 64)
  t.equal(await target.countRuns(POISON), 4, 'a run across two slices is one')
  t.equal(await target.countRuns(POISON, 96, 16), 1)
  await target.fill(0n, 8, 8)
  t.equal(new BigUint64Array(target.view())[1], 0n)
  t.equal(new BigUint64Array(target.view())[2], POISON)

  const range = { code: 'ERR_OUT_OF_RANGE' }
  await t.rejects(target.fill(0n, 4, 8), range)
  await t.rejects(target.fill(0n, 0, 4), range)
  await t.rejects(target.fill(0n, 0, size + 8), range)
  await t.rejects(target.fill(-1n), range)
  await t.rejects(target.fill(1n << 64n), range)
  await t.rejects(target.fill(1 as unknown as bigint), { code: 'ERR_INVALID_ARG_TYPE' })
  await t.rejects(target.copyFrom(source, 0, 1, size), range)
  await t.rejects(target.copyFrom(source, 1, 0, size), range)
  await t.rejects(target.copyFrom(source, 0, -1, 1), range)
  await t.rejects(target.copyFrom({} as unknown as Mapping, 0, 0, 1), {
    code: 'ERR_INVALID_ARG_TYPE',
  })
})

t.test('populate: the pages are there, few or many', async (t) => {
  for (const size of [4 * page, (8 << 20) + 3 * page]) {
    using memfd = Memfd.create(size)
    using mapping = memfd.map()
    const present = () => fstatSync(memfd.fd).blocks * 512
    t.equal(present(), 0, 'none is, where nobody has been')
    await mapping.populate(page, page)
    t.equal(present(), page)
    new Uint8Array(mapping.view())[page] = 7
    await mapping.populate()
    t.equal(present(), size)
    t.equal(new Uint8Array(mapping.view())[page], 7, 'what there was stays')
    const range = { code: 'ERR_OUT_OF_RANGE' }
    await t.rejects(mapping.populate(8), range)
    await t.rejects(mapping.populate(0, 8), range)
    await t.rejects(mapping.populate(page, size), range)
    using readOnly = memfd.map({ write: false })
    await t.rejects(readOnly.populate(), { code: 'ERR_INVALID_STATE' })
    mapping.unmap()
    await t.rejects(mapping.populate(0, 0), { code: 'ERR_CLOSED' })
  }
})

t.test('unmap in the middle of a copy', async (t) => {
  const size = 64 << 20
  using from = Memfd.create(size)
  using to = Memfd.create(size)
  using source = from.map()
  const target = to.map()
  const copy = target.copyFrom(source, 0, 0, size)
  const settled = t.rejects(copy, { code: 'ERR_CLOSED' })
  target.unmap()
  await settled
})

t.test('native guards hold below the typed classes', (t) => {
  using memfd = Memfd.create(page)
  using mapping = memfd.map()
  const bad = [undefined, null, 1, {}, [], memfd.handle, mapping, new ArrayBuffer(8)]
  for (const value of bad) {
    t.throws(() => native.fillSlice(value as never, 0, 8, 0n), { code: 'ERR_INVALID_ARG_TYPE' })
  }
  t.throws(() => native.fillSlice(mapping.handle, page, 8, 0n), { code: 'ERR_OUT_OF_RANGE' })
  t.throws(() => native.fillSlice(mapping.handle, 2 ** 52, 2 ** 52, 0n), {
    code: 'ERR_OUT_OF_RANGE',
  })
  for (const value of [-1, 0.5, NaN, Infinity, 2 ** 53]) {
    t.throws(() => mapping.handle.view(value, 8), { code: 'ERR_OUT_OF_RANGE' })
    t.throws(() => mapping.handle.view(0, value), { code: 'ERR_OUT_OF_RANGE' })
  }
  const Fake = mapping.handle.constructor as unknown as new (...args: unknown[]) => unknown
  t.throws(() => new Fake(), { code: 'ERR_ILLEGAL_CONSTRUCTOR' })
  t.throws(() => new Fake({}), { code: 'ERR_ILLEGAL_CONSTRUCTOR' })
  t.throws(() => mapping.handle.unmap.call({} as never))
  t.throws(() => mapping.handle.unmap.call(memfd.handle as never))
  t.end()
})

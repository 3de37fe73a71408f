import { spawnSync } from 'node:child_process'
import t from 'tap'
import { readdirSync } from 'node:fs'
import {
  availableExporters,
  exporterByName,
  type MappedBacking,
  memfd,
  POISON,
  slab,
} from '../../lib/exporters/index.js'
import { memoryDevices } from '../../lib/exporters/memory-devices.js'
import type { Backing } from '../../lib/move-notify/exporter/backing.js'
import { native } from '../../lib/native.js'

const page = native.pageSize
const openFds = () => readdirSync('/proc/self/fd').length

async function write(backing: Backing, byte: number): Promise<void> {
  const window = await backing.openCpuWindow('w')
  window.view(0, backing.size).fill(byte)
  await window.end()
}

async function read(backing: Backing): Promise<Buffer> {
  const window = await backing.openCpuWindow('r')
  const bytes = Buffer.from(Uint8Array.from(window.view(0, backing.size)))
  await window.end()
  return bytes
}

t.test('memfd: allocate, copy, poison, count, free', async (t) => {
  const before = openFds()
  const exporter = memfd()
  const from = await exporter.allocate(page + 1)
  const to = await exporter.allocate(page + 1)
  t.equal(from.size, 2 * page, 'rounded up')
  t.equal(from.placement, 'memfd')
  t.equal(exporter.kind, 'embedded')
  t.equal(from.isDmaBuf, false)
  t.equal(from.offset, 0)
  t.ok(from.fd > 0)
  t.ok(
    (await read(from)).every((byte) => byte === 0),
    'zeroed',
  )
  await write(from, 0x5a)
  await to.copyFrom(from)
  t.ok((await read(to)).every((byte) => byte === 0x5a))
  await from.poison()
  t.equal((await read(from)).readBigUInt64LE(), POISON)
  t.equal(await from.countStrayWrites(), 0)
  const window = await from.openCpuWindow('rw')
  window.view(16, 8).fill(1)
  window.view(4096, 8).fill(2)
  await window.end()
  t.equal(await from.countStrayWrites(), 2)
  for (let i = 0; i < 2; i++) {
    await from.free()
    await to.free()
  }
  t.equal(from.fd, -1)
  t.equal(from.mapping, null)
  await t.rejects(from.poison(), { code: 'ERR_CLOSED' })
  await t.rejects(Promise.all([from.countStrayWrites()]), { code: 'ERR_CLOSED' })
  await t.rejects(to.copyFrom(from), { code: 'ERR_UNSUPPORTED', argument: 'source' })
  await t.rejects(from.openCpuWindow('r'), { code: 'ERR_CLOSED' })
  t.equal(openFds(), before, 'no descriptor left')
})

t.test('sizes differ', async (t) => {
  const small = await memfd().allocate(page)
  const large = await memfd().allocate(3 * page)
  await write(large, 3)
  await small.copyFrom(large)
  t.ok((await read(small)).every((byte) => byte === 3))
  await write(small, 4)
  await large.copyFrom(small)
  const bytes = await read(large)
  t.equal(bytes[page - 1], 4)
  t.equal(bytes[page], 3)
  await small.free()
  await large.free()
})

t.test('a window is empty after its end, and after the free of its backing', async (t) => {
  const before = openFds()
  for (const make of [memfd(), slab(memfd(), { slabSize: 64 * page })]) {
    const backing = await make.allocate(page)
    const one = await backing.openCpuWindow('rw')
    const two = await backing.openCpuWindow('rw')
    const [first, second] = [one.view(0, page), two.view(8, 8)]
    first[9] = 7
    t.equal(second[1], 7, 'the same memory')
    await one.end()
    await one.end()
    t.equal(first.length, 0)
    t.equal(second.length, 8)
    t.throws(() => one.view(0, 1), { code: 'ERR_CLOSED' })
    t.throws(() => two.view(0, page + 1), { code: 'ERR_OUT_OF_RANGE' })
    t.throws(() => two.view(-1, 1), { code: 'ERR_OUT_OF_RANGE' })
    await backing.free()
    t.equal(second.length, 0)
    await two.end()
  }
  t.equal(openFds(), before)
})

t.test('free waits for the work under way', async (t) => {
  const size = 64 << 20
  const from = await memfd().allocate(size)
  const to = await memfd().allocate(size)
  const copy = to.copyFrom(from)
  const freed = Promise.all([from.free(), to.free()])
  await copy
  await freed
  t.equal(from.mapping, null)
})

t.test('slab: many backings, few files', async (t) => {
  const before = openFds()
  const exporter = slab(memfd(), { slabSize: 16 * page })
  const backings = await Promise.all(Array.from({ length: 64 }, () => exporter.allocate(100)))
  t.equal(openFds() - before, 4, 'sixteen to a file')
  const places = new Set(backings.map((backing) => `${backing.fd}:${backing.offset}`))
  t.equal(places.size, 64, 'no two in one place')
  t.ok(backings.every((backing) => backing.size === page && backing.offset % page === 0))
  await Promise.all(backings.map((backing, i) => write(backing, i + 1)))
  for (const [i, backing] of backings.entries()) {
    const bytes = await read(backing)
    if (!bytes.every((byte) => byte === i + 1)) t.fail(`backing ${i} was overwritten`)
  }
  const [first] = backings as [MappedBacking]
  const { offset, fd } = first
  await first.poison()
  await first.free()
  await first.free()
  await t.rejects(first.poison(), { code: 'ERR_CLOSED' })
  const again = await exporter.allocate(page)
  t.same([again.fd, again.offset], [fd, offset], 'the slot is used again')
  t.ok(
    (await read(again)).every((byte) => byte === 0),
    'and zeroed',
  )
  t.equal(openFds() - before, 4)
  await Promise.all([again, ...backings].map((backing) => backing.free()))
  t.equal(openFds(), before, 'the last backing of a slab frees it')

  const large = await exporter.allocate(9 * page)
  t.equal(large.size, 9 * page, 'more than half a slab has a file of its own')
  await large.free()
  t.equal(openFds(), before)
})

t.test('slab: waiters of one slab that cannot be had', async (t) => {
  let calls = 0
  const broken = {
    placement: 'broken',
    kind: 'embedded' as const,
    allocate: () => {
      calls++
      return Promise.reject(Object.assign(new Error('no memory'), { code: 'ENOMEM' }))
    },
  }
  const exporter = slab(broken)
  const settled = await Promise.allSettled([1, 2, 3].map(() => exporter.allocate(page)))
  t.ok(settled.every((result) => result.status === 'rejected'))
  t.equal(calls, 1)
  await t.rejects(exporter.allocate(page), { code: 'ENOMEM' })
  t.equal(calls, 2, 'asked again')
})

t.test('a hundred thousand slab backings', async (t) => {
  const before = openFds()
  const exporter = slab(memfd(), { slabSize: 4096 * page })
  const backings: MappedBacking[] = []
  for (let i = 0; i < 100_000; i++) backings.push(await exporter.allocate(page))
  t.ok(openFds() - before <= 30)
  for (const backing of backings) await backing.free()
  t.equal(openFds(), before)
})

t.test('what an IOMMU can be given', async (t) => {
  const sliced = await slab(memfd(), { slabSize: 16 * page }).allocate(page)
  const whole = await memfd().allocate(page)
  for (const each of [sliced, whole]) {
    t.equal(each.dmaMapping, each.mapping)
    await each.free()
    t.equal(each.dmaMapping, null)
  }
})

t.test('names', async (t) => {
  t.equal(exporterByName('vfio-bar:0000:00:10.0').placement, 'vfio-bar:0000:00:10.0')
  t.equal(exporterByName('vfio-bar:0000:00:10.0/2').placement, 'vfio-bar:0000:00:10.0/2')
  const [first] = memoryDevices()
  if (first === undefined) t.throws(() => exporterByName('vfio-bar'), { code: 'ERR_NO_DEVICE' })
  else t.equal(exporterByName('vfio-bar').placement, `vfio-bar:${first}`)
  for (const bad of ['vfio-bar:', 'vfio-bar:10.0', 'vfio-bar:0000:00:10.0/6']) {
    t.throws(() => exporterByName(bad), { code: 'ERR_INVALID_ARG_VALUE', argument: 'exporter' })
  }
  await t.rejects(exporterByName('vfio-bar:0000:ff:1f.7').allocate(page), { name: 'P2pdmaError' })

  t.equal(exporterByName('memfd').placement, 'memfd')
  t.equal(exporterByName('udmabuf').placement, 'udmabuf')
  t.equal(exporterByName('heap:system').placement, 'heap:system')
  t.equal(exporterByName('heap:system').kind, 'kernel')
  t.equal(exporterByName('drm:vgem').placement, 'drm:vgem')
  for (const bad of ['', 'udmabug', 'heap', 'heap:', 'heap:../x', 'memfd:', 'drm', '__proto__']) {
    t.throws(() => exporterByName(bad), { code: 'ERR_INVALID_ARG_VALUE', argument: 'exporter' })
  }
  t.throws(() => exporterByName(1 as unknown as string), { code: 'ERR_INVALID_ARG_TYPE' })
  const available = availableExporters()
  t.same(available[0], { placement: 'memfd', kind: 'embedded', available: true })
  for (const one of available) {
    t.equal(exporterByName(one.placement).kind, one.kind)
    t.equal(one.available, one.hint === undefined, one.placement)
  }
  for (const bad of [0, -1, NaN, 2 ** 53, 1.5]) {
    await t.rejects(memfd().allocate(bad), { code: 'ERR_OUT_OF_RANGE', argument: 'size' })
    await t.rejects(slab(memfd()).allocate(bad), { code: 'ERR_OUT_OF_RANGE', argument: 'size' })
  }
  await t.rejects(memfd().allocate('4096' as unknown as number), { code: 'ERR_INVALID_ARG_TYPE' })
})

t.test('a device file without its driver does not make an exporter available', (t) => {
  // In a mount namespace of its own; of a number that nobody has.
  const shell =
    'mount -t tmpfs tmpfs /dev && mknod /dev/null c 1 3 && mknod /dev/udmabuf c 511 77777 || exit 9; exec "$@"'
  const script = `
    const { availableExporters } = await import(process.argv[1])
    console.log(availableExporters().find(({ placement }) => placement === 'udmabuf'))`
  const module = new URL('../../lib/exporters/index.js', import.meta.url).href
  const node = [process.execPath, '--input-type=module', '-e', script, module]
  const { status, stdout, stderr } = spawnSync(
    'unshare',
    ['-m', 'sh', '-c', shell, 'sh', ...node],
    {
      encoding: 'utf8',
    },
  )
  if (status === 9 || /unshare failed/.test(stderr)) {
    t.pass('a device file', { skip: `it cannot be made here: ${stderr}` })
  } else {
    t.match({ stdout, stderr }, { stdout: /available: false/, stderr: '' })
  }
  t.end()
})

t.test('memfd: more than the machine has is refused before anything is made', async (t) => {
  await t.rejects(memfd().allocate(2 ** 50), { code: 'ENOMEM', argument: 'size' })
})

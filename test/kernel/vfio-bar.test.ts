/** A device's BAR as video memory: the rig's ivshmem device, bound to vfio-pci. */
import t, { type Test } from 'tap'
import { readFileSync } from 'node:fs'
import {
  availableExporters,
  exporterByName,
  type MappedBacking,
  memfd,
  POISON,
  slab,
  udmabuf,
  type VfioBarExporter,
  vfioBar,
} from '../../lib/exporters/index.js'
import { VfioDevice } from '../../lib/kernel/vfio/index.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { ResidentSet } from '../../lib/move-notify/exporter/residency/resident-set.js'
import { countInDebugfs, openFds, page, settled } from './support.js'

const ADDRESS = '0000:00:10.0'
const BAR = 64 << 20
const NIC = '0000:00:11.0'

t.setTimeout(900_000)

/** Bytes that say where they are. */
const pattern = (size: number, seed: number) =>
  Buffer.from(Uint8Array.from({ length: size }, (_, i) => (i >> 8) * 31 + i * 7 + seed))

async function write(backing: MappedBacking, bytes: Buffer): Promise<void> {
  const window = await backing.openCpuWindow('w')
  bytes.copy(window.view(0, bytes.length))
  await window.end()
}

async function read(backing: MappedBacking): Promise<Buffer> {
  const window = await backing.openCpuWindow('r')
  const bytes = Buffer.from(window.view(0, backing.size))
  await window.end()
  return bytes
}

/** Nothing of it is left, in this process and in the kernel. */
async function gone(t: Test, fds: number): Promise<void> {
  await settled()
  t.equal(openFds(), fds, 'no descriptor left')
  t.equal(countInDebugfs('vfio_pci_core'), 0, 'no dma-buf left')
  t.notMatch(readFileSync('/proc/self/maps', 'utf8'), /\[vfio/, 'no mapping left')
  await using device = await VfioDevice.open(ADDRESS)
  t.equal(device.vendorId, 0x1af4, 'another can open it')
}

t.test('byte for byte, to and from everything', async (t) => {
  const fds = openFds()
  const bar = vfioBar(ADDRESS)
  t.equal(bar.placement, `vfio-bar:${ADDRESS}`)
  t.equal(await bar.capacity(), BAR)
  const size = 3 * page
  const backing = await bar.allocate(size - 5)
  t.equal(backing.size, size)
  t.equal(backing.placement, bar.placement)
  t.ok((await read(backing)).equals(Buffer.alloc(size)), 'zeroed')
  t.ok(backing.mapping?.isDevice)
  t.equal(backing.dmaMapping, backing.mapping)
  t.ok(backing.isDmaBuf, 'this kernel can export a BAR')
  t.equal(countInDebugfs('vfio_pci_core'), 1, 'the kernel lists it')
  t.equal(backing.dmaBuf?.info().size, BAR, 'all of the BAR')
  t.throws(() => backing.mapping?.view(), { code: 'ERR_UNSUPPORTED' })

  const other = await bar.allocate(size)
  t.not(other.offset, backing.offset)
  const bytes = pattern(size, 3)
  await write(backing, bytes)
  t.ok((await read(backing)).equals(bytes), 'written and read')
  for (const exporter of [memfd(), udmabuf(), bar]) {
    const there = await exporter.allocate(size)
    await there.copyFrom(backing)
    t.ok((await read(there)).equals(bytes), `to ${exporter.placement}`)
    await other.poison()
    await other.copyFrom(there)
    t.ok((await read(other)).equals(bytes), `from ${exporter.placement}`)
    await there.free()
  }
  await other.poison()
  t.equal((await read(other)).readBigUInt64LE(size - 8), POISON)
  t.ok((await read(backing)).equals(bytes), 'the neighbour is untouched')

  // Two windows: each writes what was changed in it, and nothing else.
  const [one, two] = [await other.openCpuWindow('rw'), await other.openCpuWindow('rw')]
  one.view(64, 8).fill(1)
  two.view(page, 8).fill(2)
  const view = one.view(0, 8)
  await Promise.all([one.end(), two.end()])
  t.equal(view.length, 0, 'detached')
  t.throws(() => one.view(0, 8), { code: 'ERR_CLOSED' })
  t.equal(await other.countStrayWrites(), 2)
  t.same([...(await read(other)).subarray(64, 72)], Array<number>(8).fill(1))

  const late = await backing.openCpuWindow('w')
  await backing.free()
  await backing.free()
  t.throws(() => late.view(0, 1), { code: 'ERR_CLOSED' })
  await t.rejects(backing.poison(), { code: 'ERR_CLOSED' })
  t.equal(backing.dmaMapping, null)
  await bar.close()
  await bar.close()
  await t.rejects(bar.allocate(page), { code: 'ERR_CLOSED' })
  t.ok((await read(other)).subarray(64, 65).equals(Buffer.of(1)), 'works until it is freed')
  await other.free()
  await gone(t, fds)
})

t.test('names, and two exporters of one BAR', async (t) => {
  const fds = openFds()
  const byName = exporterByName(`vfio-bar:${ADDRESS}`)
  const byNumber = exporterByName(`vfio-bar:${ADDRESS}/2`)
  const [a, b] = await Promise.all([byName.allocate(page), byNumber.allocate(page)])
  t.same([a.placement, b.placement], [byName.placement, byNumber.placement])
  t.not(a.offset, b.offset, 'never the same bytes')
  t.equal(a.mapping, b.mapping)
  const status = availableExporters().find(({ placement }) => placement === byName.placement)
  t.match(status, { kind: 'kernel', available: true })
  for (const each of [a, b]) await each.free()
  for (const each of [byName, byNumber]) await (each as VfioBarExporter).close()
  await gone(t, fds)

  await using device = await VfioDevice.open(ADDRESS)
  await using ours = vfioBar(device, { region: 2 })
  await (await ours.allocate(page)).free()
  await ours.close()
  t.notOk(device.closed, "the caller's own device stays open")
})

t.test('registers are no memory', async (t) => {
  const fds = openFds()
  // None of its BARs is prefetchable, and one that is named is looked at.
  const unnamed = vfioBar(NIC)
  await t.rejects(unnamed.allocate(page), { code: 'ERR_NOT_MEMORY', hint: /name it: vfio-bar:/ })
  const named = vfioBar(NIC, { region: 0 })
  await t.rejects(named.allocate(page), { code: 'ERR_NOT_MEMORY', argument: 'region' })
  await t.rejects(named.capacity(), { code: 'ERR_NOT_MEMORY' }, 'and again')
  await gone(t, fds)
})

t.test('what cannot be', async (t) => {
  const fds = openFds()
  const bad: [() => Promise<unknown>, string][] = [
    [() => vfioBar('0000:00:1e.7').allocate(page), 'ENODEV'],
    [() => vfioBar('nonsense').allocate(page), 'ERR_INVALID_ARG_VALUE'],
    [() => vfioBar(ADDRESS, { region: 5 }).allocate(page), 'ERR_NOT_MAPPABLE'],
    [() => vfioBar(ADDRESS).allocate(BAR + 1), 'ENOSPC'],
    [() => vfioBar(ADDRESS).allocate(0), 'ERR_OUT_OF_RANGE'],
  ]
  for (const [call, code] of bad) await t.rejects(call(), { name: 'P2pdmaError', code })
  await gone(t, fds)
  await using again = vfioBar(ADDRESS)
  const whole = await again.allocate(BAR)
  await t.rejects(again.allocate(1), { code: 'ENOSPC' })
  t.equal(await again.available(), 0)
  await whole.free()
  t.equal(await again.available(), BAR)
})

t.test('memory pressure: filling the BAR evicts, using brings back', async (t) => {
  const bar = vfioBar(ADDRESS)
  const size = 16 << 20
  const set = new ResidentSet(bar, { budget: await bar.capacity(), evictTo: udmabuf() })
  const buffers: MovableBuffer[] = []
  const words = (i: number) => BigInt(i + 1) * 0x0101010101010101n
  for (let i = 0; i < 6; i++) {
    const buffer = await set.create(size)
    await (buffer.backing.mapping as NonNullable<MappedBacking['mapping']>).fill(
      words(i),
      buffer.backing.offset,
      size,
    )
    buffers.push(buffer)
  }
  const where = () => buffers.map(({ placement }) => placement[0]).join('')
  t.equal(where(), 'uuvvvv')
  await set.use(...buffers.slice(0, 2))
  t.equal(where(), 'vvuuvv')
  await t.rejects(set.use(...buffers), { code: 'ENOSPC' })
  const runs = []
  for (const [i, { backing }] of buffers.entries()) {
    runs.push(await backing.mapping?.countRuns(words(i), backing.offset, size))
  }
  t.same(runs, [0, 0, 0, 0, 0, 0], 'every byte')
  t.match(set.stats, { evictions: 4, restores: 2, residentBytes: BAR })
  await set.close()
  t.equal(await bar.available(), BAR)
  await bar.close()
})

t.test('to another place in the same BAR', async (t) => {
  await using bar = vfioBar(ADDRESS)
  await using buffer = await MovableBuffer.create(1 << 20, bar, { poison: true })
  await buffer.withCpuAccess('w', (cpu) => void pattern(1 << 20, 9).copy(cpu.view()))
  const { offset } = buffer.backing
  await buffer.move(bar)
  t.not(buffer.backing.offset, offset)
  t.ok(await buffer.withCpuAccess('r', (cpu) => pattern(1 << 20, 9).equals(cpu.view())))
  t.equal(await buffer.countStrayWrites(), 0)
})

t.test('its memory is switched off and on', async (t) => {
  const fds = openFds()
  const bar = vfioBar(ADDRESS)
  const small = slab(bar, { slabSize: 1 << 20 })
  const size = 3 * page
  const bytes = pattern(size, 5)
  const backing = await bar.allocate(size)
  const slot = await small.allocate(page)
  await write(backing, bytes)
  await write(slot, bytes.subarray(0, page))
  const elsewhere = await memfd().allocate(size)
  const buffer = await MovableBuffer.create(size, bar)
  // Longer than a slice: switching off waits for it.
  const large = await bar.allocate(24 << 20)
  const target = await memfd().allocate(24 << 20)
  await large.fill(7n)
  const copied = target.copyFrom(large)
  const window = await backing.openCpuWindow('rw')

  const off = await bar.switchOff()
  await copied
  const last = await target.openCpuWindow('r')
  t.equal(last.view((24 << 20) - 8, 8)[0], 7, 'what had begun is done')
  await last.end()
  t.notMatch(readFileSync('/proc/self/maps', 'utf8'), /\[vfio/, 'no mapping that could be touched')
  const isOff = { code: 'ERR_INVALID_STATE', hint: /switch it on/ }
  await t.rejects(bar.switchOff(), isOff, 'once')
  await t.rejects(bar.allocate(page), isOff)
  await t.rejects(backing.openCpuWindow('r'), isOff)
  await t.rejects(backing.poison(), isOff)
  await t.rejects(backing.countStrayWrites(), isOff)
  await t.rejects(backing.copyFrom(elsewhere), isOff)
  await t.rejects(elsewhere.copyFrom(backing), isOff)
  await t.rejects(slot.openCpuWindow('r'), isOff)
  t.throws(() => backing.copyNow(elsewhere), isOff)
  t.throws(() => elsewhere.copyNow(backing), isOff)
  t.throws(() => backing.mapping, isOff)
  await t.rejects(
    buffer.withCpuAccess('r', () => {}),
    isOff,
  )
  await t.rejects(buffer.move(memfd()), isOff)
  t.equal(buffer.placement, bar.placement, 'whole where it was')
  await t.rejects(buffer.move(bar), isOff)
  window.view(0, 8).fill(1)
  await t.rejects(window.end(), isOff, 'what has changed in it cannot be written back')

  await off.on()
  await off.on()
  t.ok((await read(backing)).equals(bytes), 'it holds what it held')
  t.ok((await read(slot)).equals(bytes.subarray(0, page)))
  await buffer.move(memfd())
  await buffer.move(bar)

  // Left to the close.
  await bar.switchOff()
  await bar.close()
  await buffer.close()
  t.ok((await read(backing)).equals(bytes), 'on again')
  for (const each of [backing, slot, elsewhere, large, target]) await each.free()
  await gone(t, fds)
})

t.test('it is not switched off under a mapping of somebody else', async (t) => {
  const fds = openFds()
  await using device = await VfioDevice.open(ADDRESS)
  const bar = vfioBar(device)
  const backing = await bar.allocate(page)
  const mapping = device.mapRegion(2)
  await t.rejects(bar.switchOff(), { code: 'EBUSY' })
  t.ok((await read(backing)).equals(Buffer.alloc(page)), 'and goes on')
  mapping.unmap()
  await (await bar.switchOff()).on()
  t.ok((await read(backing)).equals(Buffer.alloc(page)))
  await backing.free()
  await bar.close()
  await device.close()
  await gone(t, fds)
})

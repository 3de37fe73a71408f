/** The exporters on a real kernel: each placement, and copies between all pairs. */
import t from 'tap'
import {
  availableExporters,
  type ExporterName,
  exporterByName,
  POISON,
  slab,
} from '../../lib/exporters/index.js'
import { exporterChecks } from '../../lib/conformance/index.js'
import type { Backing } from '../../lib/move-notify/exporter/backing.js'
import { countInDebugfs, openFds, page, reserveHugePages, settled } from './support.js'

async function write(backing: Backing, byte: number): Promise<void> {
  const window = await backing.openCpuWindow('w')
  window.view(0, backing.size).fill(byte)
  await window.end()
}

async function read(backing: Backing): Promise<Buffer> {
  const window = await backing.openCpuWindow('r')
  const bytes = Buffer.from(window.view(0, backing.size))
  await window.end()
  return bytes
}

// Looked at natively: a loop over bytes is slow under emulation.
const isFilled = (bytes: Buffer, byte: number) => bytes.equals(Buffer.alloc(bytes.length, byte))

t.setTimeout(900_000)
reserveHugePages(8)
const placements = availableExporters()

const all = [
  ...['memfd', 'memfd:hugetlb', 'udmabuf', 'udmabuf:hugetlb', 'heap:system', 'drm:vgem'],
  // Drivers of devices, which the rig has here: test/rig/guest.test.ts.
  ...(process.env['P2PDMA_RIG'] === '1' ? ['drm:virtio_gpu', 'drm:bochs-drm'] : []),
]

t.test('this guest has them all', (t) => {
  t.ok(
    placements.every((one) => one.available),
    JSON.stringify(placements),
  )
  const names = placements.map((one) => one.placement)
  for (const name of all) {
    if (name !== 'udmabuf:hugetlb') t.ok(names.includes(name), name)
  }
  t.end()
})

/** exp_name of each placement's dma-bufs. */
const kernelNames: Readonly<Record<string, string>> = {
  udmabuf: 'udmabuf',
  'udmabuf:hugetlb': 'udmabuf',
  'heap:system': 'system',
  'drm:vgem': 'drm',
  'drm:virtio_gpu': 'virtio_gpu',
  'drm:bochs-drm': 'drm',
}

for (const name of all) {
  t.test(name, async (t) => {
    const before = openFds()
    const exporter = exporterByName(name as ExporterName)
    const kernelName = kernelNames[name]
    const listed = kernelName === undefined ? 0 : countInDebugfs(kernelName)
    const backing = await exporter.allocate(3 * page + 1)
    t.equal(backing.placement, name)
    t.equal(backing.isDmaBuf, kernelName !== undefined)
    t.equal(exporter.kind, kernelName === undefined ? 'embedded' : 'kernel')
    t.ok(backing.size >= 4 * page)
    if (kernelName !== undefined) {
      t.equal(countInDebugfs(kernelName), listed + 1, 'the kernel lists it')
      t.equal(backing.dmaBuf?.info().exporter, kernelName)
    }
    const pages = name.startsWith('memfd') || name.startsWith('udmabuf')
    t.equal(backing.dmaMapping !== null, pages, 'type1 takes what has pages')
    t.equal(backing.dmaMapping === backing.mapping, name.startsWith('memfd'))
    t.equal(backing.memfd !== null, name.startsWith('udmabuf'), 'a udmabuf keeps its memfd')
    await backing.poison()
    t.equal((await read(backing)).readBigUInt64LE(backing.size - 8), POISON)

    for (const other of all) {
      const target = await exporterByName(other as ExporterName).allocate(backing.size)
      await write(backing, other.length)
      await target.copyFrom(backing)
      const bytes = await read(target)
      t.ok(isFilled(bytes.subarray(0, backing.size), other.length), `to ${other}`)
      await target.free()
    }
    await backing.free()
    for (const check of exporterChecks(exporter)) {
      await t.test(check.name, () => check.run())
    }
    await settled()
    t.equal(openFds(), before)
    if (kernelName !== undefined) t.equal(countInDebugfs(kernelName), listed, 'and no more')
  })
}

t.test('slabs of dma-bufs', async (t) => {
  for (const name of all.filter((each) => !/^memfd|hugetlb/.test(each))) {
    const before = openFds()
    const exporter = slab(exporterByName(name as ExporterName), { slabSize: 16 * page })
    const backings = await Promise.all(Array.from({ length: 32 }, () => exporter.allocate(page)))
    t.equal(new Set(backings.map((backing) => backing.fd)).size, 2, name)
    await Promise.all(backings.map((backing, i) => write(backing, i)))
    const wrong = []
    for (const [i, backing] of backings.entries()) {
      if (!isFilled(await read(backing), i)) wrong.push(i)
    }
    t.same(wrong, [])
    await Promise.all(backings.map((backing) => backing.free()))
    await settled()
    t.equal(openFds(), before)
  }
})

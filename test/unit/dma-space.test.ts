/** IOMMU spaces without an IOMMU: device memory that is taken away, and which interface is taken. */
import t from 'tap'
import { setImmediate as turn } from 'node:timers/promises'
import { Memfd } from '../../lib/kernel/memfd.js'
import { type DeviceMemoryUse, noteDeviceMemory } from '../../lib/kernel/vfio/device-memory.js'
import { type DmaRequest, DmaSpace } from '../../lib/kernel/vfio/dma-space.js'
import { IovaAllocator } from '../../lib/kernel/vfio/iova-allocator.js'
import { takesDeviceMemory } from '../../lib/kernel/vfio/open-device.js'
import { RingRows } from '../../lib/engines/vfio/ring-rows.js'

const PAGE = 4096

/** What is unmapped off the loop goes when the test says so. */
class FakeSpace extends DmaSpace {
  readonly kind = 'type1'
  readonly group = '0'
  readonly pageSize = PAGE
  readonly iovas = new IovaAllocator([{ start: 0, end: 1024 * PAGE - 1 }], PAGE)
  protected readonly mapping = 'type1.map'
  readonly mapped = new Map<number, number>()
  readonly jobs: (() => void)[] = []

  protected startMap(request: DmaRequest): Promise<void> {
    this.mapOnLoop(request)
    return Promise.resolve()
  }

  protected mapOnLoop({ iova, size }: DmaRequest): void {
    if (this.mapped.has(iova)) throw Object.assign(new Error('mapped'), { code: 'EEXIST' })
    this.mapped.set(iova, size)
  }

  protected startUnmap(iova: number, size: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.jobs.push(() => {
        try {
          this.unmapOnLoop(iova, size)
          resolve()
        } catch (error) {
          reject(error)
        }
      })
    })
  }

  protected unmapOnLoop(iova: number, _size: number): void {
    if (!this.mapped.delete(iova)) throw Object.assign(new Error('gone'), { code: 'ENOENT' })
  }

  protected release(): void {
    this.mapped.clear()
  }

  work(): void {
    for (const job of this.jobs.splice(0)) job()
  }
}

t.test('an unmap waits for the revocation of what it takes away', async (t) => {
  const space = new FakeSpace()
  using memfd = Memfd.create(PAGE)
  using bar = memfd.map()
  using memory = memfd.map()
  const uses = new Set<DeviceMemoryUse>()
  noteDeviceMemory(bar, {
    uses,
    dmaBuf: () => {
      throw new Error('not asked for')
    },
  })
  space.mapNow(PAGE, bar, 0, PAGE, 3)
  const revoking = [...uses].map((use) => use.revoke())
  t.equal(revoking.length, 1)
  let isUnmapped = false
  const unmapping = space.unmap(PAGE, PAGE).then(() => (isUnmapped = true))
  await turn()
  t.notOk(isUnmapped, 'the device reaches it still')
  t.throws(() => space.mapNow(PAGE, memory, 0, PAGE, 3), { code: 'EBUSY', argument: 'iova' })
  const mapping = space.map(PAGE, memory, 0, PAGE, 3)
  await turn()
  space.work()
  await Promise.all([...revoking, unmapping, mapping])
  t.ok(space.mapped.has(PAGE), 'what came after it stays')
  space.unmapNow(PAGE, PAGE)

  space.mapNow(PAGE, bar, 0, PAGE, 3)
  const [use] = uses
  const revoked = use?.revoke()
  space.unmapNow(PAGE, PAGE)
  t.notOk(space.mapped.has(PAGE), 'gone when it returns')
  space.work()
  await revoked
  space.mapNow(PAGE, memory, 0, PAGE, 3)
  t.ok(space.mapped.has(PAGE))
  t.throws(() => space.unmapNow(2 * PAGE, PAGE), { code: 'ENOENT' })
  space.close()
  t.ok(space.closed)
})

t.test('iommufd only where it takes device memory', async (t) => {
  for (const [kernel, takes] of [
    ['6.6.0', false],
    ['6.18.3-amd64', false],
    ['6.19.0-rc1', true],
    ['7.3.4+deb13-amd64', true],
    ['5.20.1', false],
    ['', false],
  ] as const) {
    t.equal(takesDeviceMemory(kernel), takes, kernel)
  }
})

t.test('rows of a ring are brought to its beginning', async (t) => {
  for (let head = 0; head < 8; head++) {
    for (let count = 0; count <= 7; count++) {
      const rows = new RingRows(8)
      for (let i = 0; i < count; i++) {
        const slot = (head + i) & 7
        rows.ids[slot] = i + 1
        rows.cookies[slot] = 10 + i
        rows.offsets[slot] = 2 ** 40 + i
        rows.lengths[slot] = 100 + i
      }
      rows.rewind(head, count)
      const wanted = Array.from({ length: count }, (_, i) => [i + 1, 10 + i, 2 ** 40 + i, 100 + i])
      const got = wanted.map((_, i) => [
        rows.ids[i],
        rows.cookies[i],
        rows.offsets[i],
        rows.lengths[i],
      ])
      t.same(got, wanted, `${count} from ${head}`)
    }
  }
})

/** A VFIO device's DMA mappings and interrupts on a real kernel, and how they end. */
import t from 'tap'
import { DmaAccess, Memfd, VfioDevice, type InterruptKind } from '../../lib/kernel/index.js'
import { collect } from '../lifecycle/support.js'
import { listFds, openFds, page, settled } from './support.js'

const MEMORY = '0000:00:10.0'
const NIC = '0000:00:11.0'
const BOTH = DmaAccess.READ | DmaAccess.WRITE

/** The 82574's interrupt registers: cause, set cause, set mask, clear mask, vectors. */
const ICR = 0xc0
const ICS = 0xc8
const IMS = 0xd0
const IMC = 0xd8
const IVAR = 0xe4
/** Causes: link change; receive queue 0 and `other` of MSI-X. */
const LINK = 1 << 2
const RX0 = 1 << 20
const OTHER = 1 << 24

t.setTimeout(900_000)
const before = openFds()

t.test('mappings, and what is refused', async (t) => {
  await using device = await VfioDevice.open(NIC)
  const { space } = device
  t.equal(space.pageSize, page)
  t.same(
    space.iovas.ranges.map(({ start }) => start),
    [0, 0xfef0_0000],
    'the range of the interrupts is left out',
  )
  using memfd = Memfd.create(4 << 20)
  const memory = memfd.map()
  const iova = space.iovas.allocate(memory.length)
  await space.map(iova, memory, 0, memory.length, BOTH)
  const syscall = space.kind === 'type1' ? 'ioctl VFIO_IOMMU_MAP_DMA' : 'ioctl IOMMU_IOAS_MAP'
  const taken = { code: 'EEXIST', syscall, hint: /unmap it first/ }
  await t.rejects(space.map(iova, memory, 0, memory.length, BOTH), taken)
  await t.rejects(space.map(iova + page, memory, 0, page, BOTH), taken, 'within another')
  t.throws(() => space.mapNow(iova, memory, 0, page, BOTH), taken)
  await space.unmap(iova, memory.length)
  await t.rejects(space.unmap(iova, memory.length), { code: 'ENOENT' }, 'twice')
  t.throws(
    () => {
      space.unmapNow(iova, page)
    },
    { code: 'ENOENT' },
  )
  for (let round = 0; round < 20; round++) {
    space.mapNow(iova, memory, page, 2 * page, DmaAccess.READ)
    space.unmapNow(iova, 2 * page)
  }

  const interrupts = 0xfee0_0000
  const end = (space.iovas.ranges.at(-1)?.end ?? 0) + 1
  const bad: [string, Parameters<typeof space.map>][] = [
    ['iova', [interrupts, memory, 0, page, BOTH]],
    ['iova', [end, memory, 0, page, BOTH]],
    ['iova', [end - page, memory, 0, 2 * page, BOTH]],
    ['iova', [iova + 1, memory, 0, page, BOTH]],
    ['iova', [-page, memory, 0, page, BOTH]],
    ['iova', [NaN, memory, 0, page, BOTH]],
    ['iova', [2 ** 53, memory, 0, page, BOTH]],
    ['offset', [iova, memory, 1, page, BOTH]],
    ['offset', [iova, memory, -page, page, BOTH]],
    ['offset', [iova, memory, 2 * memory.length, page, BOTH]],
    ['size', [iova, memory, 0, 0, BOTH]],
    ['size', [iova, memory, 0, 1, BOTH]],
    ['size', [iova, memory, 0, -page, BOTH]],
    ['size', [iova, memory, page, memory.length, BOTH]],
    ['access', [iova, memory, 0, page, 0]],
    ['access', [iova, memory, 0, page, 4]],
  ]
  for (const [argument, args] of bad) {
    const error = { code: 'ERR_OUT_OF_RANGE', argument }
    await t.rejects(
      space.map(...args),
      error,
      `${argument}: ${[args[0], ...args.slice(2)].map(Number).join()}`,
    )
    t.throws(() => {
      space.mapNow(...args)
    }, error)
  }
  const types = { code: 'ERR_INVALID_ARG_TYPE' }
  await t.rejects(space.map(iova, {} as never, 0, page, BOTH), types)
  await t.rejects(space.map('0' as never, memory, 0, page, BOTH), types)
  await t.rejects(space.unmap(iova, 0), { code: 'ERR_OUT_OF_RANGE', argument: 'size' })
  await t.rejects(space.unmap(iova, 1), { code: 'ERR_OUT_OF_RANGE', argument: 'size' })

  using readOnly = memfd.map({ write: false })
  await t.rejects(space.map(iova, readOnly, 0, page, BOTH), { code: 'EFAULT', hint: /pages/ })

  // Unmapped while the kernel looks the pages up: what it has found is not left there.
  const racing = space.map(iova, memory, 0, memory.length, BOTH)
  memory.unmap()
  await t.rejects(racing, { code: 'ERR_CLOSED' })
  await t.rejects(space.unmap(iova, memfd.stat().size), { code: 'ENOENT' })
  await t.rejects(space.map(iova, memory, 0, page, BOTH), { code: 'ERR_CLOSED' })

  using last = memfd.map()
  const late = space.map(iova, last, 0, last.length, BOTH)
  await device.close()
  await late.catch((error: unknown) => t.match(error, { code: 'ERR_CLOSED' }))
  await t.rejects(space.map(iova, last, 0, page, BOTH), { code: 'ERR_CLOSED' })
  await t.rejects(space.unmap(iova, page), { code: 'ERR_CLOSED' })
  t.throws(
    () => {
      space.unmapNow(iova, page)
    },
    { code: 'ERR_CLOSED' },
  )
})

t.test("a BAR in another device's space", async (t) => {
  await using nic = await VfioDevice.open(NIC)
  const device = await VfioDevice.open(MEMORY)
  const { space } = nic
  const bar = device.mapRegion(2)
  const iova = space.iovas.allocate(4 << 20)
  await space.map(iova, bar, 4 << 20, 2 << 20, BOTH)
  space.mapNow(iova + (2 << 20), bar, 0, 2 << 20, BOTH)
  space.unmapNow(iova, 2 << 20)
  await space.map(iova, bar, 0, 2 << 20, BOTH)
  bar.unmap()
  await t.rejects(space.map(iova, bar, 0, page, BOTH), { code: 'ERR_CLOSED' })
  // Its memory is somebody else's from now on, so it is taken out of the NIC's space.
  await device.close()
  space.unmapNow(iova + (2 << 20), 2 << 20)
  t.pass('what was taken away can be unmapped once more')
  using memfd = Memfd.create(4 << 20)
  using memory = memfd.map()
  await space.map(iova, memory, 0, memory.length, BOTH)
  await space.unmap(iova, memory.length)
  t.throws(
    () => {
      space.unmapNow(iova, memory.length)
    },
    { code: 'ENOENT' },
    'and it was this that was unmapped',
  )
})

for (const kind of ['intx', 'msi', 'msix'] satisfies InterruptKind[]) {
  t.test(`interrupts: ${kind}`, async (t) => {
    await using device = await VfioDevice.open(NIC)
    const { interrupts } = device
    using registers = device.openRegisters(0)
    // A message is a write of the device's.
    device.config.setMaster(kind !== 'intx')
    registers.write32(IMC, 0xffff_ffff)
    registers.read32(ICR)
    const calls: number[] = []
    let wake = (): void => undefined
    const handlers = [0, 1, 2].slice(0, kind === 'msix' ? 3 : 1).map((vector) => () => {
      calls.push(vector)
      wake()
    })
    const next = () => new Promise<void>((resolve) => (wake = resolve))
    t.equal(interrupts.kind, null)
    t.equal(interrupts.count(kind), { intx: 1, msi: 1, msix: 5 }[kind])
    interrupts.enable(kind, handlers)
    t.equal(interrupts.kind, kind)
    t.throws(
      () => {
        interrupts.enable(kind, handlers)
      },
      { code: 'ERR_INVALID_STATE' },
    )
    registers.write32(IVAR, 0 | 8 | ((2 | 8) << 16))
    registers.write32(IMS, LINK | RX0 | OTHER)
    const causes = kind === 'msix' ? [RX0, OTHER] : [LINK, LINK, LINK]
    for (const cause of causes) {
      const arrived = next()
      interrupts.hold(kind === 'msix' && cause === OTHER ? 2 : 0, true)
      registers.write32(ICS, cause)
      await arrived
      registers.read32(ICR)
      registers.write32(IMS, LINK | RX0 | OTHER)
      if (kind === 'intx') interrupts.unmask()
    }
    t.same(calls, kind === 'msix' ? [0, 2] : [0, 0, 0])
    if (kind !== 'intx') t.throws(() => interrupts.unmask(), { code: 'ERR_INVALID_STATE' })
    t.throws(() => interrupts.hold(9, true), { code: 'ERR_OUT_OF_RANGE', argument: 'vector' })
    interrupts.close()
    interrupts.close()
    t.equal(interrupts.kind, null)
    registers.write32(ICS, causes[0] ?? 0)
    await settled()
    t.equal(calls.length, causes.length, 'none after the close')
    registers.read32(ICR)
    interrupts.enable('msi', [() => t.fail('nobody has raised it')])
    t.equal(interrupts.kind, 'msi', 'another kind')
  })
}

t.test('bad interrupts', async (t) => {
  await using device = await VfioDevice.open(NIC)
  const { interrupts } = device
  const handler = () => undefined
  for (const [kind, handlers, code] of [
    ['msi-x', [handler], 'ERR_INVALID_ARG_TYPE'],
    [undefined, [handler], 'ERR_INVALID_ARG_TYPE'],
    ['msi', [], 'ERR_OUT_OF_RANGE'],
    ['msi', [handler, handler], 'ERR_UNSUPPORTED'],
    ['msi', [5], 'ERR_INVALID_ARG_TYPE'],
    ['msi', handler, 'ERR_INVALID_ARG_TYPE'],
    ['msi', undefined, 'ERR_INVALID_ARG_TYPE'],
  ] as const) {
    t.throws(
      () => {
        interrupts.enable(kind as never, handlers as never)
      },
      { code },
      `${kind}: ${code}`,
    )
  }
  t.throws(() => interrupts.count('x' as never), { code: 'ERR_INVALID_ARG_TYPE' })
  t.throws(() => interrupts.unmask(), { code: 'ERR_INVALID_STATE' })
  t.equal(interrupts.kind, null, 'nothing was switched on')
})

t.test('closing in the midst of a reset', async (t) => {
  const device = await VfioDevice.open(NIC)
  using registers = device.openRegisters(0)
  device.interrupts.enable('msi', [() => undefined])
  const resets = [device.reset(), device.reset()]
  const closing = device.close()
  t.throws(() => registers.read32(8), { code: 'ERR_CLOSED' })
  await closing
  for (const each of await Promise.allSettled(resets)) {
    // The kernel lets one in at a time.
    if (each.status === 'rejected') t.match(each.reason, { code: 'EAGAIN' })
  }
  await using again = await VfioDevice.open(NIC)
  t.equal(again.config.isMaster, false)
  await again.reset()
})

t.test('a device that nobody has closed', async (t) => {
  await (async () => {
    const device = await VfioDevice.open(NIC)
    device.interrupts.enable('msi', [() => undefined])
    using memfd = Memfd.create(page)
    const memory = memfd.map()
    device.space.mapNow(page, memory, 0, page, BOTH)
    device.openRegisters(0)
  })()
  for (;;) {
    collect()
    await settled()
    try {
      const device = await VfioDevice.open(NIC)
      t.throws(() => device.space.unmapNow(page, page), { code: 'ENOENT' })
      await device.close()
      break
    } catch (error) {
      t.match(error, { code: 'EBUSY' })
    }
  }
})

t.teardown(async () => {
  for (let i = 0; i < 20 && openFds() > before; i++) {
    collect()
    await settled()
  }
  if (openFds() > before) throw new Error(`left open: ${listFds().join('; ')}`)
})

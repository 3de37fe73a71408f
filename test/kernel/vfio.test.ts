/** A VFIO device on a real kernel: what it is, its registers, and what could end the process. */
import t from 'tap'
import { spawnSync } from 'node:child_process'
import { Worker } from 'node:worker_threads'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { DrmDevice, Memfd, PciCommand, PciConfig, VfioDevice } from '../../lib/kernel/index.js'
import { pciDevice, unbindFromVfio, bindToVfio } from '../../lib/kernel/pci/index.js'
import { someBadValues, rowOf, walkArguments, walkReceivers } from '../unit/surface-walk.js'
import { iommu, listFds, openFds, page, settled } from './support.js'

const MEMORY = '0000:00:10.0'
const NIC = '0000:00:11.0'
const OTHER = '0000:00:12.0'
/** The size of the memory device's BAR 2. */
const SIZE = 64 << 20

t.setTimeout(900_000)
const before = openFds()

/** In a thread of its own: what opening the device comes to there. */
async function elsewhere(address: string): Promise<unknown> {
  const library = new URL('../../lib/kernel/index.js', import.meta.url).href
  const code = `const { parentPort } = require('node:worker_threads')
    import('${library}')
      .then(({ VfioDevice }) => VfioDevice.open('${address}'))
      .then(() => parentPort.postMessage('open'), ({ code }) => parentPort.postMessage(code))
      .then(() => setInterval(() => undefined, 1000))`
  const worker = new Worker(code, { eval: true })
  const [said] = (await once(worker, 'message')) as unknown[]
  await worker.terminate()
  return said
}

t.test('identity, regions and capabilities', async (t) => {
  for (const address of [NIC, OTHER]) {
    await using device = await VfioDevice.open(address)
    t.equal(device.address, address)
    t.equal(device.vendorId, 0x8086)
    t.equal(device.deviceId, 0x10d3)
    t.equal(device.config.read16(PciConfig.CLASS), 0x0200)
    t.equal(device.config.size, 4096)
    t.equal(device.resettable, true)
    t.same(
      device.config.capabilities().map(({ id }) => id),
      [0x01, 0x05, 0x10, 0x11],
      'power, MSI, PCI Express, MSI-X',
    )
    t.same(
      device.config.extendedCapabilities().map(({ id }) => id),
      [0x01, 0x03],
      'error reporting, serial number',
    )
    // Whether it has a ROM (6) is QEMU's affair.
    const present = device.regions.filter(({ size, index }) => size > 0 && index !== 6)
    t.same(
      present.map(({ index }) => index),
      [0, 1, 2, 3, 7],
    )
    t.match(device.region(0), { size: 128 << 10, mappable: true, readable: true, writable: true })
    t.match(device.region(2), { size: 32, mappable: false }, 'an I/O BAR')
    t.match(device.region(3), { msixMappable: true })
  }
  await using memory = await VfioDevice.open(MEMORY.toUpperCase())
  t.equal(memory.address, MEMORY)
  t.equal(memory.vendorId, 0x1af4)
  t.equal(memory.deviceId, 0x1110)
  t.equal(memory.resettable, false)
  await t.rejects(memory.reset(), { code: 'ERR_UNSUPPORTED', hint: /reset_method/ })
  t.match(memory.region(2), { size: SIZE, mappable: true })
  t.equal(memory.interrupts.count('msix'), 0)
})

t.test('config space', async (t) => {
  await using device = await VfioDevice.open(NIC)
  const { config } = device
  t.equal(config.read32(0), 0x10d3_8086)
  t.equal(config.read8(1), 0x80)
  t.equal(config.isMaster, false, 'no DMA at first')
  config.setMaster(true)
  t.equal(config.isMaster, true)
  t.equal(config.read16(PciConfig.COMMAND) & PciCommand.MASTER, PciCommand.MASTER)
  for (const offset of [-1, 1, 4096, 0.5, NaN]) {
    t.throws(() => config.read16(offset), { code: 'ERR_OUT_OF_RANGE', argument: 'offset' })
  }
  t.throws(() => config.read32('0' as never), { code: 'ERR_INVALID_ARG_TYPE' })
  t.throws(() => config.write8(4, 256), { code: 'ERR_OUT_OF_RANGE', argument: 'value' })
  t.throws(() => config.setMaster(1 as never), { code: 'ERR_INVALID_ARG_TYPE' })
})

t.test('registers, of each width', async (t) => {
  await using device = await VfioDevice.open(MEMORY)
  using registers = device.openRegisters(2)
  registers.write64(0x100, 0x0102_0304_0506_0708n)
  t.equal(registers.read64(0x100), 0x0102_0304_0506_0708n)
  t.equal(registers.read32(0x100), 0x0506_0708)
  t.equal(registers.read16(0x102), 0x0506)
  t.equal(registers.read8(0x107), 0x01)
  registers.write8(0x100, 0xff)
  registers.write16(0x102, 0xeeee)
  registers.write32(0x104, 0xdddd_dddd)
  t.equal(registers.read64(0x100), 0xdddd_dddd_eeee_07ffn, 'no neighbour was touched')
  registers.write32(SIZE - 4, 0xffff_ffff)
  t.equal(registers.read32(SIZE - 4), 0xffff_ffff)
  for (const offset of [-4, 2, SIZE, SIZE - 2, 0.5, NaN, Infinity, '4', undefined, {}]) {
    const error = { code: 'ERR_OUT_OF_RANGE', argument: 'offset' }
    t.throws(() => registers.read32(offset as never), error, JSON.stringify(offset))
    t.throws(() => registers.write32(offset as never, 0), error)
  }
  for (const value of [-1, 2 ** 32, 0.5, NaN]) {
    t.throws(() => registers.write32(0, value), { code: 'ERR_OUT_OF_RANGE', argument: 'value' })
  }
  t.throws(() => registers.write64(0, 1 as never), { code: 'ERR_INVALID_ARG_TYPE' })
  t.throws(() => registers.write64(0, -1n), { code: 'ERR_OUT_OF_RANGE' })

  await using nic = await VfioDevice.open(NIC)
  using own = nic.openRegisters(0)
  t.equal(own.read32(0x5400), 0x12005452, "the address's first half (RAL0)")
  t.equal(own.read32(0x5404) & 0xffff, 0x5634)
  t.throws(() => nic.mapRegion(2), { code: 'ERR_NOT_MAPPABLE', argument: 'index' })
  t.throws(() => nic.mapRegion(5), { code: 'ERR_NOT_MAPPABLE', hint: /no such region/ })
  for (const index of [-1, 99, 0.5, NaN]) {
    t.throws(() => nic.mapRegion(index), { code: 'ERR_OUT_OF_RANGE', argument: 'index' })
  }
  const mapping = nic.mapRegion(0)
  t.throws(() => mapping.view(), { code: 'ERR_UNSUPPORTED' }, 'registers have no view')
})

t.test('whatever takes the memory away is refused while it is mapped', async (t) => {
  await using device = await VfioDevice.open(NIC)
  const { config } = device
  const power = config.capabilities().find(({ id }) => id === 1)?.offset ?? 0
  const command = config.read16(PciConfig.COMMAND)
  const off = command & ~PciCommand.MEMORY
  const registers = device.openRegisters(0)
  const error = { code: 'EBUSY', syscall: 'pwrite' }
  const status = registers.read32(8)
  t.throws(() => config.write8(PciConfig.COMMAND, off & 0xff), error)
  t.throws(() => config.write16(PciConfig.COMMAND, off), error)
  t.throws(() => config.write32(PciConfig.COMMAND, off), error)
  t.throws(() => config.write8(power + 4, 3), error)
  t.throws(() => config.write16(power + 4, 3), error)
  t.throws(() => config.write32(power + 4, 3), error)
  t.equal(registers.read32(8), status, 'and it is still there')
  // What may be written does no harm: BARs are virtual, a reset holds the access back.
  const bar = config.read32(0x10)
  config.write32(0x10, 0)
  t.equal(registers.read32(8), status)
  config.write32(0x10, bar)
  const reset = device.reset()
  t.equal(registers.read32(0x5404) & 0xffff, 0x5634, 'in the midst of a reset')
  await reset
  t.equal(registers.read32(0x5404) & 0xffff, 0x5634)
  t.equal(config.read16(PciConfig.COMMAND), command, 'a reset leaves config space as it was')
  t.equal(config.hasMemory, true)

  registers.close()
  for (const [at, value] of [
    [PciConfig.COMMAND, off],
    [power + 4, 3],
  ] as const) {
    config.write16(at, value)
    t.equal(config.hasMemory, false)
    t.throws(() => device.mapRegion(0), { code: 'ERR_INVALID_STATE' })
    t.throws(() => device.openRegisters(0), { code: 'ERR_INVALID_STATE' })
    config.write16(at, at === PciConfig.COMMAND ? command : 0)
    t.equal(config.hasMemory, true)
  }
  using again = device.openRegisters(0)
  t.equal(again.read32(0x5404) & 0xffff, 0x5634)
})

t.test('what the refusals are for: the kernel ends who touches it then', (t) => {
  const program = fileURLToPath(new URL('vfio-gone-child.js', import.meta.url))
  const child = spawnSync(process.execPath, [program, NIC], { stdio: ['ignore', 2, 2] })
  t.equal(child.signal, 'SIGBUS')
  t.end()
})

t.test('a mapping that is gone', async (t) => {
  const device = await VfioDevice.open(MEMORY)
  const mapping = device.mapRegion(2)
  const registers = device.openRegisters(2)
  registers.write32(0, 7)
  registers.close()
  registers.close()
  t.throws(() => registers.read32(0), { code: 'ERR_CLOSED' })
  t.throws(() => registers.write32(0, 1), { code: 'ERR_CLOSED' })
  await mapping.fill(5n, 0, page)
  t.equal(await mapping.countRuns(5n, 0, page), 0)
  const late = device.openRegisters(2)
  const closing = device.close()
  t.equal(device.closed, true)
  t.equal(device.close(), closing, 'once')
  t.equal(mapping.closed, true)
  t.throws(() => late.read32(0), { code: 'ERR_CLOSED' })
  t.throws(() => device.config.read8(0), { code: 'ERR_CLOSED' })
  t.throws(() => device.vendorId, { code: 'ERR_CLOSED' })
  t.throws(() => device.region(0), { code: 'ERR_CLOSED' })
  t.throws(() => device.mapRegion(2), { code: 'ERR_CLOSED' })
  t.throws(() => device.interrupts.count('msi'), { code: 'ERR_CLOSED' })
  await t.rejects(device.reset(), { code: 'ERR_CLOSED' })
  await t.rejects(device.exportDmaBuf(2), { code: 'ERR_CLOSED' })
  await t.rejects(VfioDevice.open(MEMORY), { code: 'EBUSY' }, 'not before it is given back')
  await closing
  await using again = await VfioDevice.open(MEMORY)
  t.equal(again.vendorId, 0x1af4)
})

t.test('without types: wrong receivers, arguments left out, what only looks right', async (t) => {
  const device = await VfioDevice.open(NIC)
  const { config, interrupts, space } = device
  const registers = device.openRegisters(0)
  using memfd = Memfd.create(page)
  using mapping = memfd.map()
  const iova = space.iovas.allocate(page)
  // Reads only, and writes of what is there: what may go through is harmless.
  const rows = {
    'VfioDevice#region': rowOf(device.region.bind(device), 0),
    'VfioDevice#mapRegion': rowOf(device.mapRegion.bind(device), 0),
    'VfioDevice#openRegisters': rowOf(device.openRegisters.bind(device), 0),
    'VfioDevice#exportDmaBuf': rowOf(device.exportDmaBuf.bind(device), 0, [
      { offset: 0, size: page },
    ]),
    'ConfigSpace#read8': rowOf(config.read8.bind(config), 0),
    'ConfigSpace#read16': rowOf(config.read16.bind(config), 0),
    'ConfigSpace#read32': rowOf(config.read32.bind(config), 0),
    'ConfigSpace#setMaster': rowOf(config.setMaster.bind(config), false),
    'Interrupts#count': rowOf(interrupts.count.bind(interrupts), 'msi'),
    'Interrupts#enable': rowOf(interrupts.enable.bind(interrupts), 'none', [() => undefined]),
    'Interrupts#hold': rowOf(interrupts.hold.bind(interrupts), 0, false),
    'Registers#read8': rowOf(registers.read8.bind(registers), 0),
    'Registers#read16': rowOf(registers.read16.bind(registers), 0),
    'Registers#read32': rowOf(registers.read32.bind(registers), 0),
    'Registers#read64': rowOf(registers.read64.bind(registers), 0),
    'IommuSpace#map': rowOf(space.map.bind(space), iova, mapping, 0, page, 3),
    'IommuSpace#mapNow': rowOf(space.mapNow.bind(space), iova, mapping, 0, page, 3),
    'IommuSpace#unmap': rowOf(space.unmap.bind(space), iova, page),
    'IommuSpace#unmapNow': rowOf(space.unmapNow.bind(space), iova, page),
    'IovaAllocator#allocate': rowOf(space.iovas.allocate.bind(space.iovas), page),
  }
  const args = await walkArguments(rows, someBadValues(), () => undefined)
  t.comment(`${args.calls} calls`)
  t.same(args.wrong, [])
  const known = [device, config, interrupts, registers, space, space.iovas].map((instance) => {
    return { type: instance.constructor, instance }
  })
  t.same((await walkReceivers(known, () => undefined)).wrong, [])
  await device.close()
})

t.test('what cannot be opened', async (t) => {
  await t.rejects(VfioDevice.open('0000:00:1e.7'), { code: 'ENODEV', argument: 'address' })
  await t.rejects(VfioDevice.open('../x'), { code: 'ERR_INVALID_ARG_VALUE', argument: 'address' })
  await using device = await VfioDevice.open(NIC)
  await t.rejects(VfioDevice.open(NIC), { code: 'EBUSY' })
  t.equal(await elsewhere(NIC), 'EBUSY', 'nor by another thread')
  t.equal(device.space.kind, iommu)
  const iommufd = VfioDevice.open(OTHER, { space: 'iommufd' })
  if (iommu === 'iommufd') await (await iommufd).close()
  else {
    const absent = { code: 'ERR_UNSUPPORTED', argument: 'space', hint: /CONFIG_IOMMUFD/ }
    await t.rejects(iommufd, absent)
  }
  // Where both are: each group may go its own way.
  await using other = await VfioDevice.open(OTHER, { space: 'type1' })
  t.equal(other.space.kind, 'type1')

  await unbindFromVfio(MEMORY)
  t.equal(pciDevice(MEMORY).driver, null)
  await t.rejects(VfioDevice.open(MEMORY), { code: 'ERR_NOT_BOUND', hint: /p2pdma bind/ })
  await bindToVfio(MEMORY)
  t.equal(await elsewhere(MEMORY), 'open')
  // The thread has ended with the device open.
  const memory = await VfioDevice.open(MEMORY)
  await memory.close()
})

t.test('a BAR as a dma-buf', async (t) => {
  await using device = await VfioDevice.open(MEMORY)
  using whole = await device.exportDmaBuf(2)
  t.equal(whole.size, SIZE)
  t.match(whole.info(), { size: SIZE, exporter: 'vfio_pci' })
  using parts = await device.exportDmaBuf(2, [
    { offset: 8 * page, size: page },
    { offset: 0, size: 2 * page },
  ])
  t.equal(parts.size, 3 * page)
  t.equal(whole.equals(parts), false)
  t.throws(() => whole.map(), { code: 'EINVAL' }, 'it has no CPU mapping')
  for (const ranges of [
    [],
    [{ offset: 1, size: page }],
    [{ offset: 0, size: 1 }],
    [{ offset: 0, size: 0 }],
    [{ offset: SIZE, size: page }],
    [{ offset: -page, size: page }],
    [null],
    [{}],
    'text',
    5,
  ]) {
    const error = /^ranges must be/
    await t.rejects(device.exportDmaBuf(2, ranges as never), error)
  }
  await t.rejects(device.exportDmaBuf(7), { code: 'ERR_NOT_EXPORTABLE' })
  await t.rejects(device.exportDmaBuf(-1), { code: 'ERR_OUT_OF_RANGE', argument: 'index' })

  // Revoked and back. Nobody in user space is told: no fence is left, and its file is as before.
  const command = device.config.read16(PciConfig.COMMAND)
  device.config.write16(PciConfig.COMMAND, command & ~PciCommand.MEMORY)
  t.equal(whole.size, SIZE)
  await whole.readable()
  await whole.writable()
  device.config.write16(PciConfig.COMMAND, command)
  // An importer without peer-to-peer is refused at any time (vfio_pci_dma_buf_attach).
  using vgem = DrmDevice.open({ driver: 'vgem' })
  t.throws(() => vgem.importBuffer(whole), { code: 'EOPNOTSUPP' })
  await device.close()
  t.equal(whole.size, SIZE, 'it outlives the device, of no use to anybody')
})

t.teardown(async () => {
  await settled()
  if (openFds() > before) throw new Error(`left open: ${listFds().join('; ')}`)
})

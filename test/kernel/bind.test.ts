/** Devices taken from their drivers and given back, by the kernel itself. */
import { execFileSync, spawnSync } from 'node:child_process'
import { closeSync, constants, openSync, readdirSync, readlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { bindToVfio, pciDevice, pciDevices, unbindFromVfio } from '../../lib/kernel/pci/index.js'
import { VfioDevice } from '../../lib/kernel/vfio/index.js'

if (process.env['P2PDMA_RIG'] !== '1') {
  throw new Error('this takes devices from their drivers: run it in the rig')
}

const MEMORY = '0000:00:10.0'
const NIC = '0000:00:11.0'
const OTHER = '0000:00:12.0'

const interfacesOf = (address: string) => readdirSync(`/sys/bus/pci/devices/${address}/net`)

t.before(() => void execFileSync('modprobe', ['e1000e']))
t.teardown(() => bindToVfio([MEMORY, NIC, OTHER]))

t.test('the rig has bound them at boot', async (t) => {
  for (const address of [MEMORY, NIC, OTHER]) {
    const facts = { driver: 'vfio-pci', driverOverride: 'vfio-pci', iommuGroup: /^\d+$/ }
    t.match(pciDevice(address), facts)
  }
  t.match(pciDevice(MEMORY), { vendor: 0x1af4, device: 0x1110, class: 0x050000 })
  t.match(pciDevice(NIC), { vendor: 0x8086, device: 0x10d3, class: 0x020000 })
  t.ok(pciDevices().length > 5)
})

t.test('given back, a NIC has its network interface again; taken, it has none', async (t) => {
  t.same(await unbindFromVfio([NIC, MEMORY]), [
    { address: NIC, from: 'vfio-pci', to: 'e1000e' },
    { address: MEMORY, from: 'vfio-pci', to: null },
  ])
  t.equal(pciDevice(NIC).driverOverride, null)
  const [name = ''] = interfacesOf(NIC)
  execFileSync('ip', ['link', 'set', name, 'up'])
  await t.rejects(bindToVfio([MEMORY, NIC]), { code: 'EBUSY', message: `${name} is up` })
  t.equal(pciDevice(MEMORY).driver, null, 'nothing was changed')
  execFileSync('ip', ['link', 'set', name, 'down'])
  t.same(await bindToVfio([MEMORY, NIC]), [
    { address: MEMORY, from: null, to: 'vfio-pci' },
    { address: NIC, from: 'e1000e', to: 'vfio-pci' },
  ])
  t.throws(() => interfacesOf(NIC), { code: 'ENOENT' })
  const device = await VfioDevice.open(NIC)
  t.equal(device.vendorId, 0x8086, 'it can be driven')
  await device.close()
})

t.test('what is open is not given back', async (t) => {
  const device = await VfioDevice.open(NIC)
  const error = { code: 'EBUSY', message: `process ${process.pid} (node)` }
  await t.rejects(unbindFromVfio([OTHER, NIC]), error)
  t.equal(pciDevice(OTHER).driver, 'vfio-pci', 'nothing was changed')
  const own = readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith('/dev/vfio/')
    } catch {
      return false
    }
  })
  t.equal(own.length, 2, 'the container and the group')
  await device.close()
  t.match(await unbindFromVfio(NIC), [{ to: 'e1000e' }])
  t.match(await bindToVfio(NIC), [{ to: 'vfio-pci' }])
})

t.test('a disk that somebody has claimed', async (t) => {
  execFileSync('modprobe', ['nvme'])
  const disk = pciDevices().find((each) => each.class === 0x010802)
  if (disk === undefined) throw new Error('the rig has no disk for this test')
  let fd = -1
  while (fd === -1) {
    try {
      fd = openSync('/dev/nvme0n1', constants.O_RDONLY | constants.O_EXCL)
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 50)) // Its namespaces are scanned later.
    }
  }
  await t.rejects(bindToVfio(disk.address), { code: 'EBUSY', message: 'nvme0n1 is claimed' })
  closeSync(fd)
  t.match(await bindToVfio(disk.address), [{ from: 'nvme', to: 'vfio-pci' }])
  t.match(await unbindFromVfio(disk.address), [{ to: 'nvme' }])
})

t.test('refused: what nobody can take', async (t) => {
  const bridge = pciDevices().find((each) => each.class >> 16 === 0x06)
  await t.rejects(bindToVfio(bridge?.address ?? ''), { code: 'ERR_UNSUPPORTED' })
  const main = join(dirname(fileURLToPath(import.meta.url)), '../../lib/cli/main.js')
  const outcome = spawnSync(process.execPath, [main, 'bind', '11.0', NIC], { encoding: 'utf8' })
  t.match(outcome, { status: 2, stdout: '' })
  const again = spawnSync(process.execPath, [main, 'bind', NIC], { encoding: 'utf8' })
  t.match(again, { status: 0, stderr: '', stdout: `${NIC}: vfio-pci already\n` })
})

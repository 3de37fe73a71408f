/** Binding to vfio-pci and back, on a made-up machine; the real one: test/kernel/bind.test.ts. */
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import * as binding from '../../lib/kernel/pci/bind.js'
import { findDevice, listDevices } from '../../lib/kernel/pci/device.js'
import { bindToVfio, parseBdf, unbindFromVfio } from '../../lib/kernel/pci/index.js'
import { UndoJournal } from '../../lib/kernel/undo/journal.js'
import { FakePci } from './fake-pci.js'

const NIC = '0000:03:00.0'
const UP = 0x1003
const DOWN = 0x1002

function machine(t: Test): FakePci {
  const system = new FakePci()
  t.teardown(() => system.remove())
  return system
}

const journalOf = (system: FakePci) => new UndoJournal(join(system.root, 'run'), system)

const bindDevices = (addresses: string | readonly string[], system: FakePci) =>
  binding.bindDevices(addresses, system, journalOf(system))

const unbindDevices = (addresses: string | readonly string[], system: FakePci) =>
  binding.unbindDevices(addresses, system, journalOf(system))

void t.test('addresses', async (t) => {
  t.equal(parseBdf('0000:00:1F.7'), '0000:00:1f.7')
  t.equal(parseBdf('03:00.0'), '0000:03:00.0')
  t.equal(parseBdf('10000:03:00.0'), '10000:03:00.0')
  for (const bad of ['', '0000:00:20.0', '00:00.8', '0:0.0', ' 00:00.0', '00:00.0\n', '../x']) {
    t.throws(() => parseBdf(bad), { code: 'ERR_INVALID_ARG_VALUE', argument: 'address' }, bad)
  }
  t.throws(() => parseBdf(5 as never), { code: 'ERR_INVALID_ARG_TYPE' })
})

void t.test('what sysfs says of a device', async (t) => {
  const system = machine(t)
  system.add(NIC, { driver: 'e1000e', group: '7' })
  system.add('0000:00:02.0', { class: 0x030000, group: null, files: { driver_override: 'x' } })
  t.same(
    listDevices(system).map((each) => each.address),
    ['0000:00:02.0', NIC],
  )
  t.same(findDevice('03:00.0', system), {
    address: NIC,
    vendor: 0x8086,
    device: 0x10d3,
    class: 0x020000,
    driver: 'e1000e',
    driverOverride: null,
    iommuGroup: '7',
  })
  t.match(findDevice('00:02.0', system), { driver: null, driverOverride: 'x', iommuGroup: null })
  t.throws(() => findDevice('04:00.0', system), { code: 'ENODEV' })
})

void t.test('bound, and given back', async (t) => {
  const system = machine(t)
  system.add(NIC, { driver: 'e1000e' })
  system.net(NIC, 'eth0', DOWN)
  system.add('0000:04:00.0')
  t.same(await bindDevices([NIC, '04:00.0', NIC], system), [
    { address: NIC, from: 'e1000e', to: 'vfio-pci' },
    { address: '0000:04:00.0', from: null, to: 'vfio-pci' },
  ])
  t.same(system.loaded, ['vfio-pci', 'vfio_iommu_type1'])
  t.same(system.writes.slice(0, 3), [
    `devices/${NIC}/driver_override "vfio-pci"`,
    `drivers/e1000e/unbind "${NIC}"`,
    `drivers_probe "${NIC}"`,
  ])
  system.writes.length = 0
  t.same(await bindDevices(NIC, system), [{ address: NIC, from: 'vfio-pci', to: 'vfio-pci' }])
  t.same(system.writes, [], 'a second time changes nothing')
  t.same(await unbindDevices([NIC, '04:00.0'], system), [
    { address: NIC, from: 'vfio-pci', to: 'e1000e' },
    { address: '0000:04:00.0', from: 'vfio-pci', to: null },
  ])
  t.equal(findDevice(NIC, system).driverOverride, null)
  system.writes.length = 0
  t.same(await unbindDevices(NIC, system), [{ address: NIC, from: 'e1000e', to: 'e1000e' }])
  t.same(system.writes, [])
})

interface Refusal {
  code: string
  message?: RegExp
  hint?: RegExp
}

const refusals: [string, (system: FakePci) => void, Refusal][] = [
  [
    'an interface that is up',
    (s) => s.net(NIC, 'eth0', UP),
    { code: 'EBUSY', message: /eth0 is up/ },
  ],
  [
    'a program that does RDMA on it',
    (s) => {
      const home = `/sys/devices/pci0000:00/${NIC}/infiniband_verbs/uverbs0`
      s.file(`${home}/uevent`, 'MAJOR=231\nDEVNAME=infiniband/uverbs0\n')
      s.symlink('/sys/dev/char/231:192', home)
      s.file('/proc/41/comm', 'ib_write_bw\n')
      s.symlink('/proc/41/fd/3', '/dev/infiniband/uverbs0')
    },
    { code: 'EBUSY', message: /process 41 \(ib_write_bw\) has it open/, hint: /end it/ },
  ],
  [
    'a member of a bond',
    (s) => {
      s.net(NIC, 'eth0', DOWN)
      s.symlink('/sys/class/net/eth0/master', '../bond0')
    },
    { code: 'EBUSY', message: /eth0 is part of bond0/ },
  ],
  [
    'a partition that is mounted',
    (s) => {
      s.block(NIC, 'nvme/nvme0/nvme0n1', '259:0')
      s.block(NIC, 'nvme/nvme0/nvme0n1/nvme0n1p1', '259:1')
      s.file('/proc/1/mountinfo', '30 1 259:1 / /a\\040b rw shared:1 - ext4 /dev/root rw\n')
    },
    { code: 'EBUSY', message: /nvme0n1p1 is mounted on \/a b$/, hint: /umount/ },
  ],
  [
    'a mounted file system with a number of its own',
    (s) => {
      s.block(NIC, 'nvme/nvme0/nvme0n1', '259:0')
      s.file('/proc/self/mountinfo', '30 1 0:44 / /home rw - btrfs /dev/nvme0n1 rw\n')
    },
    { code: 'EBUSY', message: /nvme0n1 is mounted on \/home$/ },
  ],
  [
    'a disk with several paths',
    (s) => {
      s.block(NIC, 'nvme/nvme0/nvme0c0n1', '259:7')
      s.file('/sys/class/block/nvme0n1/dev', '259:3\n')
      s.file('/proc/self/mountinfo', '30 1 259:3 / /srv rw - xfs /dev/nvme0n1 rw\n')
    },
    { code: 'EBUSY', message: /nvme0n1 is mounted on \/srv$/ },
  ],
  [
    'swap',
    (s) => {
      s.block(NIC, 'virtio0/block/vda', '254:0')
      s.file('/proc/swaps', 'Filename Type\n/dev/vda partition 1 0 -2\n')
    },
    { code: 'EBUSY', message: /vda is swap/ },
  ],
  [
    'a member of a volume',
    (s) => s.block(NIC, 'ata1/host0/block/sda', '8:0', ['dm-0', 'dm-1']),
    { code: 'EBUSY', message: /sda is held by dm-0, sda is held by dm-1/ },
  ],
  [
    "the boot's display",
    (s) => s.file(`/sys/bus/pci/devices/${NIC}/boot_vga`, '1\n'),
    { code: 'EBUSY', message: /display/ },
  ],
  [
    'virtual functions',
    (s) => s.file(`/sys/bus/pci/devices/${NIC}/sriov_numvfs`, '4\n'),
    { code: 'EBUSY', message: /4 virtual functions/ },
  ],
  [
    'an idle neighbour in its group',
    (s) => s.add('0000:03:00.1', { driver: 'snd_hda_intel' }),
    {
      code: 'ERR_GROUP_NOT_VIABLE',
      message: /0000:03:00.1 \(snd_hda_intel\)/,
      hint: /p2pdma bind 0000:03:00.0 0000:03:00.1/,
    },
  ],
  [
    'a neighbour in use, and one more',
    (s) => {
      s.add('0000:03:00.1', { driver: 'e1000e' })
      s.net('0000:03:00.1', 'eth1', UP)
      s.add('0000:03:00.2', { driver: 'nvme' })
    },
    {
      code: 'ERR_GROUP_NOT_VIABLE',
      message: /0000:03:00.1 \(e1000e, eth1 is up\) and 0000:03:00.2 \(nvme\)/,
      hint: /slot/,
    },
  ],
]

for (const [what, prepare, error] of refusals) {
  void t.test(`refused: ${what}`, async (t) => {
    const system = machine(t)
    system.add(NIC, { driver: 'e1000e' })
    system.add('0000:04:00.0', { driver: 'e1000e' })
    prepare(system)
    await t.rejects(bindDevices(['04:00.0', NIC], system), error)
    t.same(system.writes, [], 'nothing was changed')
    t.same(system.loaded, [])
  })
}

void t.test('refused: no IOMMU, a bridge, no such device', async (t) => {
  const system = machine(t)
  system.add(NIC, { driver: 'e1000e', group: null })
  system.add('0000:00:01.0', { class: 0x060400, driver: 'pcieport' })
  await t.rejects(bindDevices(NIC, system), { code: 'ERR_NO_IOMMU', hint: /intel_iommu=on/ })
  await t.rejects(bindDevices('00:01.0', system), { code: 'ERR_UNSUPPORTED', message: /bridge/ })
  await t.rejects(bindDevices('09:00.0', system), { code: 'ENODEV' })
  t.same(system.writes, [])
})

void t.test('bridges and what has no driver stand in nobody’s way', async (t) => {
  const system = machine(t)
  system.add(NIC, { driver: 'e1000e' })
  system.add('0000:03:00.1', { class: 0x060400, driver: 'pcieport' })
  system.add('0000:03:00.2')
  system.add('0000:03:00.3', { driver: 'mlx5-vfio-pci' })
  await t.resolves(bindDevices(NIC, system))
})

void t.test('neighbours that are named together', async (t) => {
  const system = machine(t)
  system.add(NIC, { driver: 'e1000e' })
  system.add('0000:03:00.1', { driver: 'e1000e' })
  t.equal((await bindDevices([NIC, '03:00.1'], system)).length, 2)
})

void t.test('no module', async (t) => {
  const system = machine(t)
  system.add(NIC, { driver: 'e1000e' })
  system.onLoad = () => {}
  await t.rejects(bindDevices(NIC, system), { code: 'ERR_MODULE' }, 'nothing came of it')
  system.onLoad = () => {
    throw new Error('modprobe: FATAL: fake')
  }
  await t.rejects(bindDevices(NIC, system), { code: 'ERR_MODULE', message: /FATAL: fake/ })
  t.same(system.writes, [])
})

void t.test('what vfio-pci refuses goes back to its driver', async (t) => {
  const system = machine(t)
  system.add(NIC, { driver: 'e1000e' })
  system.refuses = true
  await t.rejects(bindDevices(NIC, system), { code: 'ERR_BIND_FAILED', message: /fake: refused/ })
  t.match(findDevice(NIC, system), { driver: 'e1000e', driverOverride: null })
  t.same(readdirSync(join(system.root, 'run')), [], 'and nothing is left to put back')
})

void t.test('where one is refused, none is taken', async (t) => {
  const system = machine(t)
  system.add(NIC, { driver: 'e1000e', files: { driver_override: 'e1000e' } })
  system.add('0000:04:00.0', { driver: 'nvme' })
  system.refuses = '0000:04:00.0'
  await t.rejects(bindDevices([NIC, '04:00.0'], system), { code: 'ERR_BIND_FAILED' })
  t.match(findDevice(NIC, system), { driver: 'e1000e', driverOverride: 'e1000e' })
  t.match(findDevice('04:00.0', system), { driver: 'nvme', driverOverride: null })
})

void t.test('nothing is taken that could not be given back', async (t) => {
  const system = machine(t)
  system.add(NIC, { driver: 'e1000e' })
  system.file('/run', 'in the way of the folder')
  await t.rejects(bindDevices(NIC, system), { code: 'ERR_NO_JOURNAL', message: /0000:03:00.0/ })
  t.match(findDevice(NIC, system), { driver: 'e1000e', driverOverride: null })
})

void t.test('what a killed process has taken, the next one gives back', async (t) => {
  const system = machine(t)
  system.add(NIC, { driver: 'e1000e' })
  const killed = { pid: 2 ** 22 + 1, startTime: 5, bootId: '', pidNamespace: '' }
  const before = { kind: 'driver', address: NIC, driver: 'e1000e', override: null } as const
  new UndoJournal(join(system.root, 'run'), system, killed).note(before)
  system.writeSync(`/sys/bus/pci/devices/${NIC}/driver_override`, 'vfio-pci')
  system.writeSync('/sys/bus/pci/drivers/e1000e/unbind', NIC)
  t.match(findDevice(NIC, system), { driver: null, driverOverride: 'vfio-pci' })
  const [found, ...more] = journalOf(system).recover()
  t.match(found, { pid: killed.pid, what: /0000:03:00.0 was taken from e1000e/, error: null })
  t.same(more, [])
  t.match(findDevice(NIC, system), { driver: 'e1000e', driverOverride: null })
  t.same(journalOf(system).recover(), [], 'once')
})

void t.test('what vfio-pci claims by its ids does not come back', async (t) => {
  const system = machine(t)
  system.add(NIC, { driver: 'vfio-pci' })
  await t.rejects(unbindDevices(NIC, system), { code: 'ERR_BIND_FAILED', message: /ids/ })
})

void t.test('what somebody has open is not taken away', async (t) => {
  const system = machine(t)
  system.add(NIC, { driver: 'e1000e', group: '7' })
  await bindDevices(NIC, system)
  system.writes.length = 0
  system.file('/proc/41/comm', 'smoke\n')
  const ways: [string, string, string][] = [
    ['its group', '/dev/vfio/7', ''],
    ['its character device', '/dev/vfio/devices/vfio3', ''],
    [
      'the device',
      'anon_inode:[vfio-device]',
      `pos:\t0\nvfio-device-syspath: /sys/devices/pci0000:00/${NIC}\n`,
    ],
  ]
  system.folder(`/sys/bus/pci/devices/${NIC}/vfio-dev/vfio3`)
  for (const [what, target, info] of ways) {
    system.symlink('/proc/41/fd/5', target)
    system.file('/proc/41/fdinfo/5', info)
    const error = { code: 'EBUSY', message: /process 41 \(smoke\)/ }
    await t.rejects(unbindDevices(NIC, system), error, what)
  }
  t.same(system.writes, [])
  system.symlink('/proc/41/fd/5', '/dev/vfio/77')
  system.file('/proc/41/fdinfo/5', '')
  await t.resolves(unbindDevices(NIC, system), 'another group')
})

void t.test('bad input', async (t) => {
  for (const bad of [undefined, null, 5, {}, [5], [null]]) {
    await t.rejects(bindToVfio(bad as never), { code: 'ERR_INVALID_ARG_TYPE' })
    await t.rejects(unbindFromVfio(bad as never), { code: 'ERR_INVALID_ARG_TYPE' })
  }
  await t.rejects(bindToVfio(['03:00.0', 'x']), { code: 'ERR_INVALID_ARG_VALUE' })
})

void t.test('the commands', async (t) => {
  const main = join(dirname(fileURLToPath(import.meta.url)), '../../lib/cli/main.js')
  const run = (...args: string[]) =>
    spawnSync(process.execPath, [main, ...args], { encoding: 'utf8' })
  for (const name of ['bind', 'unbind']) {
    t.match(run(name), { status: 2, stdout: '', stderr: /a device is missing/ })
    t.match(run(name, 'xyz'), { status: 2, stdout: '', stderr: /not the address of a PCI device/ })
    t.match(run(name, '--nope', '03:00.0'), { status: 2, stderr: /--nope/ })
    t.match(run(name, '--help'), { status: 0, stdout: new RegExp(`usage: p2pdma ${name} BDF`) })
    t.match(run(name, 'ffff:ff:1f.7'), { status: 1, stdout: '', stderr: /ENODEV[^]*hint:/ })
  }
})

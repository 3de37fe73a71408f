/** What an interface carries, on a made-up machine; the real one: test/kernel/verbs-harm.test.ts. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { isInterfaceName, NetInterface } from '../../lib/kernel/net/interface.js'
import { usersOfRdmaDevice, usesOfInterface } from '../../lib/kernel/net/use.js'
import { System } from '../../lib/kernel/system.js'

class Machine {
  readonly root = mkdtempSync(join(tmpdir(), 'p2pdma-fake-net-'))
  readonly system = new System(this.root)

  constructor(t: Test) {
    t.teardown(() => rmSync(this.root, { recursive: true }))
    this.file('/sys/class/net/eth1/flags', '0x1003')
    this.file('/sys/class/net/eth1/ifindex', '7')
  }

  file(path: string, text: string): void {
    mkdirSync(dirname(join(this.root, path)), { recursive: true })
    writeFileSync(join(this.root, path), text)
  }

  link(path: string, target: string): void {
    mkdirSync(dirname(join(this.root, path)), { recursive: true })
    symlinkSync(target, join(this.root, path))
  }

  uses(addresses: string[] = []): string[] {
    return usesOfInterface('eth1', this.system, () => addresses)
  }
}

const LINK_LOCAL = 'fe80::5054:ff:fe12:3460'

void t.test('what every interface that is up has is no use', async (t) => {
  const machine = new Machine(t)
  t.same(machine.uses([LINK_LOCAL]), [])
  machine.file(
    '/proc/net/if_inet6',
    'fe80000000000000505400fffe123460 07 40 20 80     eth1\n00000000000000000000000000000001 01 80 10 80       lo\n',
  )
  machine.file(
    '/proc/net/ipv6_route',
    [
      'fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth1',
      'fe80000000000000505400fffe123460 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000002 00000000 80200001     eth1',
      'ff000000000000000000000000000000 08 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000003 00000000 00000001     eth1',
      '00000000000000000000000000000000 00 00000000000000000000000000000000 00 20010db8000000000000000000000001 00000400 00000001 00000000 00000003     eth0',
    ].join('\n'),
  )
  t.same(machine.uses([]), [])
})

void t.test('addresses and routes', async (t) => {
  const machine = new Machine(t)
  machine.file(
    '/proc/net/if_inet6',
    '20010db8000000000000000000000005 07 40 00 80     eth1\n20010db8000000000000000000000006 02 40 00 80     eth0\n',
  )
  machine.file(
    '/proc/net/route',
    [
      'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT',
      'eth1\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0',
      'eth1\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0',
      'eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0',
    ].join('\n'),
  )
  machine.file(
    '/proc/net/ipv6_route',
    '00000000000000000000000000000000 00 00000000000000000000000000000000 00 20010db8000000000000000000000001 00000400 00000001 00000000 00000003     eth1\n' +
      '20010db8007700000000000000000000 30 00000000000000000000000000000000 00 20010db8000000000000000000000009 00000400 00000001 00000000 00000003     eth1\n',
  )
  t.same(machine.uses(['10.0.0.1', LINK_LOCAL]), [
    '10.0.0.1',
    '2001:db8::5',
    'the default route',
    'the route to 10.0.0.0/24',
    'the default route of IPv6',
    'the route to 2001:db8:77::/48',
  ])
})

void t.test('connections: ssh, over IPv4, IPv6, and IPv4 by a socket of IPv6', async (t) => {
  const machine = new Machine(t)
  const head = '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt'
  machine.file(
    '/proc/net/tcp',
    [
      head,
      '   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000',
      '   1: 0100000A:0016 0900000A:C386 01 00000000:00000000 02:000A 00000000',
      '   2: 0100000A:0017 0900000A:C387 06 00000000:00000000 03:00 00000000',
      '   3: 0500A8C0:0016 0900A8C0:C386 01 00000000:00000000 02:000A 00000000',
    ].join('\n'),
  )
  machine.file(
    '/proc/net/tcp6',
    [
      head,
      '   0: 0000000000000000FFFF00000100000A:0050 0000000000000000FFFF00000900000A:C388 01 00000000',
      '   1: 000080FE00000000FF005450603412FE:00B3 000080FE00000000FF005450613412FE:C389 01 00000000',
    ].join('\n'),
  )
  t.same(machine.uses(['10.0.0.1', LINK_LOCAL]), [
    '10.0.0.1',
    'a connection from 10.0.0.1:22 to 10.0.0.9:50054',
    'a connection from 10.0.0.1:80 to 10.0.0.9:50056',
    'a connection from [fe80::5054:ff:fe12:3460]:179 to [fe80::5054:ff:fe12:3461]:50057',
  ])
  const many = Array.from({ length: 9 }, () => '   1: 0100000A:0016 0900000A:C386 01 0:0')
  machine.file('/proc/net/tcp', [head, ...many].join('\n'))
  t.match(machine.uses(['10.0.0.1']).at(-1), /^7 more connections$/)
})

void t.test('part of a bond, or under a VLAN, or with virtual functions', async (t) => {
  const machine = new Machine(t)
  machine.link('/sys/class/net/eth1/master', '../bond0')
  machine.link('/sys/class/net/eth1/upper_bond0', '../bond0')
  machine.link('/sys/class/net/eth1/upper_eth1.7', '../eth1.7')
  machine.file('/sys/class/net/eth1/device/sriov_numvfs', '4\n')
  t.same(machine.uses(), [
    'it is part of bond0',
    'eth1.7 stands on it',
    'it has 4 virtual functions',
  ])
})

void t.test("somebody else's RDMA", async (t) => {
  const machine = new Machine(t)
  machine.file('/sys/class/infiniband_verbs/uverbs3/ibdev', 'mlx5_1\n')
  machine.file('/proc/41/comm', 'ib_write_bw\n')
  machine.link('/proc/41/fd/9', '/dev/infiniband/uverbs3')
  machine.link('/proc/42/fd/9', '/dev/infiniband/uverbs4')
  machine.link(`/proc/${process.pid}/fd/9`, '/dev/infiniband/uverbs3')
  t.same(await usersOfRdmaDevice('mlx5_1', machine.system), [
    'process 41 (ib_write_bw) has mlx5_1 open',
  ])
})

void t.test('the link of an interface', async (t) => {
  const machine = new Machine(t)
  const found = NetInterface.find('eth1', machine.system)
  t.match(found, { name: 'eth1', index: 7, isUp: true })
  found?.set(false)
  t.equal(found?.isUp, false)
  t.equal(machine.system.read('/sys/class/net/eth1/flags'), String(0x1002), 'nothing else of it')
  machine.file('/sys/class/net/eth1/ifindex', '8')
  t.throws(() => found?.set(true), { code: 'ENODEV' }, 'another one of that name')
  for (const name of ['eth2', '', '.', '..', '../net/eth1', 'a/b', 'much-too-long-a-name']) {
    t.equal(NetInterface.find(name, machine.system), null, name)
  }
  t.equal(isInterfaceName('eth0.7'), true)
})

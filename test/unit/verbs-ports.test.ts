/**
 * Which port of an RDMA device is used, and which GID: of devices with several ports, and of
 * tables as NICs have them, which soft-RoCE does not.
 */
import t from 'tap'
import { LocalPort } from '../../lib/engines/verbs/local-port.js'
import { gidAddress } from '../../lib/kernel/verbs/gid.js'
import type { GidEntry, GidType, PortState, VerbsDevice } from '../../lib/kernel/verbs/index.js'
import { chooseGid, choosePort, splitPort } from '../../lib/kernel/verbs/port.js'
import { parsePeer } from '../../lib/smoke/verbs/peer-plant.js'
import { PORT } from '../../lib/smoke/options.js'
import { fakePeers, FakeVerbs } from './fake-verbs.js'

/** An address as a GID: of IPv4 the mapped one. */
function gid(address: string): string {
  const [head = '', tail] = address.split('::')
  const groups = (text: string) => (text === '' ? [] : text.split(':'))
  if (address.includes('.')) {
    const hex = Buffer.from(address.split('.').map(Number)).toString('hex')
    return gid(`::ffff:${hex.slice(0, 4)}:${hex.slice(4)}`)
  }
  const right = tail === undefined ? [] : groups(tail)
  const left = groups(head)
  const zeros = Array<string>(8 - left.length - right.length).fill('0')
  return [...left, ...zeros, ...right].map((group) => group.padStart(4, '0')).join(':')
}

/** `v2 10.0.0.1`, ..., the first at index 0. */
function table(words: string, portNum = 1): GidEntry[] {
  const types: Record<string, GidType> = { v1: 'roce-v1', v2: 'roce-v2', ib: 'ib' }
  return words.split(', ').map((word, index) => {
    const [type = '', address = ''] = word.split(' ')
    return { index, portNum, gid: gid(address), type: types[type] ?? 'ib', interfaceIndex: 2 }
  })
}

t.test('how far an address reaches', (t) => {
  const scopes = {
    routable: [
      ...['10.102.9.101', '200.0.209.6', '169.253.255.255', '169.255.0.0', '100.64.0.1'],
      ...['2001:db8::1', 'fd93:0:0:1::2', 'fec0::1', 'fe7f::1', '::a9fe:1'],
    ],
    link: ['fe80::ac0:ebff:feda:1cfb', 'febf::1', 'fe80:1::1', '169.254.0.0', '169.254.255.255'],
    host: ['::', '::1', '127.0.0.1', '127.8.0.1', '0.0.0.0'],
  }
  for (const [scope, addresses] of Object.entries(scopes)) {
    for (const address of addresses) t.equal(gidAddress(gid(address)).scope, scope, address)
  }
  t.equal(gidAddress(gid('10.0.0.1')).isIpv4, true)
  t.equal(gidAddress(gid('2001:db8::1')).isIpv4, false)
  t.end()
})

t.test('the GID: RoCE v2, what reaches furthest, IPv4, the lower index', (t) => {
  const tables: readonly [string, number][] = [
    ['v1 fe80::1, v2 fe80::1, v1 200.0.209.6, v2 200.0.209.6', 3],
    ['v2 fe80::1, v2 10.102.9.101', 1],
    ['v1 fe80::1, v2 fe80::1, v1 fd93::2, v2 fd93::2', 3],
    // IPv4's link-local addresses are no better than IPv6's.
    ['v2 169.254.3.4, v2 fd93::2', 1],
    ['v2 169.254.3.4, v2 10.0.0.1', 1],
    ['v2 fe80::1, v2 169.254.3.4', 1],
    ['v2 fd93::2, v2 10.0.0.1', 1],
    ['v2 10.0.0.2, v2 10.0.0.1', 0],
    // Loopback, of a soft one over lo, is what nobody else reaches.
    ['v2 127.0.0.1, v2 ::1, v2 fe80::1', 2],
    // Nothing routes RoCE v1, whatever its address.
    ['v1 10.0.0.1, v2 fe80::1', 1],
    ['v1 fe80::1, v1 10.0.0.1', 1],
    ['ib fe80::1, ib fd93::1', 1],
  ]
  for (const [words, index] of tables) {
    t.equal(chooseGid('mlx5_0', table(words), {}).index, index, words)
  }
  const both = [...table('v2 10.0.0.1'), ...table('v2 fe80::1, v2 10.0.1.1', 2)]
  t.match(chooseGid('mlx5_0', both, { portNum: 2 }), { portNum: 2, index: 1 })
  t.match(chooseGid('mlx5_0', both, { portNum: 2, index: 0 }), { gid: gid('fe80::1') })
  t.end()
})

const ports = (...states: PortState[]) => states.map((state) => ({ state }))

t.test('the port: the first that is active', (t) => {
  t.equal(choosePort('mlx5_0', ports('active')), 1)
  t.equal(choosePort('mlx5_0', ports('down', 'active')), 2)
  t.equal(choosePort('mlx5_0', ports('active', 'active')), 1)
  t.equal(choosePort('mlx5_0', ports('active', 'active'), 2), 2)
  const down = { code: 'ERR_PORT_DOWN', argument: 'portNum', hint: /`rdma link`/ }
  const cases: readonly [PortState[], number | undefined, string][] = [
    [['down'], undefined, 'Port 1 of mlx5_0 is down'],
    [['active', 'init'], 2, 'Port 2 of mlx5_0 is init'],
    [['down', 'armed'], undefined, 'No port of mlx5_0 is active: 1 is down, 2 is armed'],
  ]
  for (const [states, portNum, message] of cases) {
    t.throws(() => choosePort('mlx5_0', ports(...states), portNum), { ...down, message })
  }
  const beyond = { code: 'ERR_OUT_OF_RANGE', argument: 'portNum', hint: 'its ports are 1 to 2' }
  t.throws(() => choosePort('mlx5_0', ports('active', 'active'), 3), beyond)
  t.throws(() => choosePort('mlx5_0', ports('active'), 0), { code: 'ERR_OUT_OF_RANGE' })
  t.throws(() => choosePort('mlx5_0', ports('active'), 1.5), { code: 'ERR_OUT_OF_RANGE' })
  t.end()
})

t.test('a port by its name', (t) => {
  t.same(splitPort('mlx5_0'), { device: 'mlx5_0' })
  t.same(splitPort('mlx5_0', 1), { device: 'mlx5_0', portNum: 1 })
  t.same(splitPort('mlx5_0/2'), { device: 'mlx5_0', portNum: 2 })
  t.same(splitPort('mlx5_0/2', 2), { device: 'mlx5_0', portNum: 2 })
  const other = { code: 'ERR_INVALID_ARG_VALUE', argument: 'portNum' }
  t.throws(() => splitPort('mlx5_0/2', 1), other)
  for (const bad of ['mlx5_0/0', 'mlx5_0/256']) {
    t.throws(() => splitPort(bad), { code: 'ERR_OUT_OF_RANGE', argument: 'portNum' })
  }
  // No device is named so, and none is found.
  for (const odd of ['mlx5_0/', 'mlx5_0/x', '/2']) t.same(splitPort(odd), { device: odd })
  t.end()
})

t.test('--peer', (t) => {
  const good: readonly [string, string, number][] = [
    ['10.0.0.2', '10.0.0.2', PORT],
    ['far.example:99', 'far.example', 99],
    ['[2001:db8::1]', '2001:db8::1', PORT],
    ['[2001:db8::1]:99', '2001:db8::1', 99],
    ['[fe80::1%eth0]:99', 'fe80::1%eth0', 99],
    ['[fe80::1%enp3s0f0np0.100]', 'fe80::1%enp3s0f0np0.100', PORT],
  ]
  for (const [text, host, port] of good) t.same(parsePeer(text), { host, port }, text)
  const wrong = ['fe80::1%eth0', '[fe80::1%]:99', '[fe80::1%a b]:9', '[eth0]:99', '[::1]:0', '[]:9']
  for (const text of wrong) {
    const refused = { code: 'ERR_INVALID_ARG_VALUE', argument: 'peer', hint: /fe80::1%eth0/ }
    t.throws(() => parsePeer(text), refused, text)
  }
  t.end()
})

/** Of two ports the second one is active. */
function fakeDevice(states: readonly PortState[], gids: readonly GidEntry[]): VerbsDevice {
  const device = {
    name: 'fake_0',
    attributes: () => ({ ports: states.length }),
    activePortNum: (portNum?: number) => choosePort('fake_0', ports(...states), portNum),
    port: (portNum: number) => ({ state: states[portNum - 1], activeMtu: 4096 }),
    gid: (choice: object) => chooseGid('fake_0', gids, choice),
  }
  return device as unknown as VerbsDevice
}

t.test('what an engine sends by', (t) => {
  const gids = [...table('v2 fe80::1'), ...table('v2 fe80::2, v2 10.0.0.2', 2)]
  const device = fakeDevice(['down', 'active'], gids)
  const port = new LocalPort(device, {})
  t.same(port.path, { sgidIndex: 1, portNum: 2 })
  t.equal(port.name, 'fake_0/2')
  t.equal(port.trouble(), null)
  t.same(new LocalPort(device, { gidIndex: 0 }).path, { sgidIndex: 0, portNum: 2 })
  t.throws(() => new LocalPort(device, { portNum: 1 }), { code: 'ERR_PORT_DOWN' })
  t.throws(() => new LocalPort(device, { gidIndex: 9 }), { code: 'ERR_NO_GID' })
  t.equal(new LocalPort(fakeDevice(['active'], gids), {}).name, 'fake_0')
  t.end()
})

t.test('a queue pair is of its port, and so is its path', async (t) => {
  const fake = new FakeVerbs()
  const [near, far] = await fakePeers(fake)
  const accepted = new Promise((resolve) => far.peer.once('queue', resolve))
  await near.peer.openQueue({ depth: 4 })
  await accepted
  const of = (call: string) =>
    fake.requests.flatMap((each) => (each.call.endsWith(call) ? [each.request] : []))
  t.match(of('toInit'), [{ portNum: 2 }, { portNum: 2 }])
  const ahAttr = { sgidIndex: 1, portNum: 2 }
  t.match(of('toRtr'), [{ ahAttr }, { ahAttr }])
  await near.peer.close()
  await far.peer.close()
})

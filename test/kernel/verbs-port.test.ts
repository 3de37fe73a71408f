/** A device that cannot be used: its port is down, it has no such GID, it is not there. */
import { execFileSync } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { VerbsEngine } from '../../lib/engines/verbs/engine.js'
import { memfd } from '../../lib/exporters/index.js'
import { VerbsDevice } from '../../lib/kernel/verbs/index.js'
import { buffer, granted, KIB, open } from './verbs-engine-support.js'
import { rdmaResources } from './verbs-support.js'

const ip = (...words: string[]) => void execFileSync('ip', words)

async function reaches(device: VerbsDevice, state: string): Promise<void> {
  for (let i = 0; i < 100 && device.port().state !== state; i++) await sleep(50)
}

t.test('a port that is down, and up again', async (t) => {
  await using device = await VerbsDevice.open('rxe0')
  await using peer = await VerbsDevice.open('rxe1')
  const events: string[] = []
  device.onAsyncEvent(({ name }) => void events.push(name)).hold(true)
  const before = rdmaResources()
  const down = {
    code: 'ERR_PORT_DOWN',
    argument: 'portNum',
    message: 'Port 1 of rxe0 is down',
    hint: /`rdma link` and `ip link`/,
  }
  ip('link', 'set', 'p2p0', 'down')
  try {
    await reaches(device, 'down')
    t.equal(device.port().state, 'down')
    t.throws(() => device.activePort(), down)
    await t.rejects(VerbsEngine.open('rxe0'), down)
    // Its carrier is gone.
    await reaches(peer, 'down')
    await t.rejects(VerbsEngine.open('rxe1'), { ...down, message: 'Port 1 of rxe1 is down' })
    t.equal(rdmaResources(), before, 'nothing of theirs stays open')
  } finally {
    ip('link', 'set', 'p2p0', 'up')
  }
  await Promise.all([reaches(device, 'active'), reaches(peer, 'active')])
  t.equal(device.activePort().state, 'active')
  await sleep(50)
  t.same(
    events.filter((name) => name.startsWith('PORT')),
    ['PORT_ERR', 'PORT_ACTIVE'],
  )
  const ends = await open(t)
  const source = await buffer(t, 4 * KIB, memfd(), 3)
  const target = await buffer(t, 4 * KIB, memfd())
  const { remote } = await granted(ends, target)
  await ends.ours.copy(await ends.a.attach(source), 0, remote, 0, 4 * KIB)
})

t.test('no such GID', async (t) => {
  const before = rdmaResources()
  // In the table, and empty; and beyond it.
  for (const gidIndex of [7, 200]) {
    await t.rejects(VerbsEngine.open('rxe0', { gidIndex }), {
      code: 'ERR_NO_GID',
      argument: 'index',
      message: `Port 1 of rxe0 has no GID ${gidIndex}`,
      hint: /^there are 0, 1/,
    })
  }
  t.equal(rdmaResources(), before)

  await t.test('an interface without an address has that of its hardware only', async (t) => {
    ip('link', 'add', 'lone0', 'type', 'veth', 'peer', 'name', 'lone1')
    t.teardown(() => ip('link', 'delete', 'lone0'))
    ip('link', 'set', 'lone0', 'addrgenmode', 'none', 'up')
    ip('link', 'set', 'lone1', 'up')
    execFileSync('rdma', ['link', 'add', 'rxe9', 'type', 'rxe', 'netdev', 'lone0'])
    await using device = await VerbsDevice.open('rxe9')
    await reaches(device, 'active')
    t.ok(device.gids().every(({ gid }) => gid.startsWith('fe80:')))
    const none = { code: 'ERR_NO_GID', argument: 'portNum', hint: /`ip address add`/ }
    t.throws(() => device.gid({ type: 'ib' }), { ...none, message: 'Port 1 of rxe9 has no ib' })
    await t.rejects(VerbsEngine.open('rxe9', { gidIndex: 1 }), { code: 'ERR_NO_GID' })
    ip('address', 'add', '10.9.0.1/24', 'dev', 'lone0')
    for (let i = 0; i < 100 && device.gids().length < 2; i++) await sleep(50)
    t.match(device.gid(), { type: 'roce-v2', gid: /:ffff:0a09:0001$/ })
  })
})

t.test('no such device: the names that there are', async (t) => {
  const none = {
    code: 'ENODEV',
    errno: -19,
    argument: 'name',
    message: /'mlx5_7'/,
    hint: /^there are rxe0, rxe1/,
  }
  await t.rejects(VerbsDevice.open('mlx5_7'), none)
  await t.rejects(VerbsEngine.open('mlx5_7'), none)
})

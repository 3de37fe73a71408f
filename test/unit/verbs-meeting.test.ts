/** How peers come together over TCP, with real sockets, and those who only get in the way. */
import { spawn } from 'node:child_process'
import { getEventListeners, once } from 'node:events'
import net from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { Link } from '../../lib/engines/verbs/link/link.js'
import {
  checkConnect,
  checkListen,
  type Greeting,
  listenForPeers,
  type ListenOptions,
  meet,
} from '../../lib/engines/verbs/meeting.js'
import { introduction, samples } from './verbs-link-help.js'

const host = '127.0.0.1'

const greetAs = (role: 'opener' | 'accepter') => (socket: net.Socket, greeting: Greeting) =>
  Link.open(socket, introduction, { role, ...greeting })

async function listen(t: Test, options: ListenOptions) {
  const links: Link[] = []
  const waiting: ((link: Link) => void)[] = []
  const listener = await listenForPeers(
    checkListen({ host, ...options }),
    greetAs('accepter'),
    (link) => {
      links.push(link)
      waiting.shift()?.(link)
    },
    () => {},
  )
  t.teardown(async () => {
    await listener.close()
    for (const link of links) await link.close()
  })
  return { listener, next: () => new Promise<Link>((resolve) => waiting.push(resolve)) }
}

/** A connection that says nothing by itself. */
async function silent(t: Test, port: number): Promise<net.Socket> {
  const socket = net.connect({ host, port })
  socket.on('error', () => {})
  t.teardown(() => socket.destroy())
  await once(socket, 'connect')
  return socket
}

const meetAt = async (port: number, options: { timeoutMs?: number; signal?: AbortSignal } = {}) =>
  meet(checkConnect({ host, port, ...options }), greetAs('opener'))

/** Until that is so; fails by the test's own time limit. */
async function until(isTrue: () => boolean): Promise<void> {
  while (!isTrue()) await sleep(5)
}

t.test('a flood of silent connections keeps no peer out', async (t) => {
  const { listener, next } = await listen(t, { maxHandshakes: 8 })
  const flood: net.Socket[] = []
  for (let i = 0; i < 100; i++) flood.push(await silent(t, listener.port))
  const open = () => flood.filter((each) => !each.readableEnded && !each.destroyed)
  for (const each of flood) each.resume()
  await until(() => open().length === 8)
  t.same(open(), flood.slice(-8), 'the oldest have gone')
  const accepted = next()
  const link = await meetAt(listener.port)
  t.teardown(() => link.close())
  t.equal((await accepted).peer.device, introduction.device)
  await until(() => open().length === 7)
  t.equal(link.closed, false, 'and it stays, whoever comes after it')
  for (let i = 0; i < 20; i++) await silent(t, listener.port)
  t.equal(link.closed, false)
})

t.test('who has begun to say something goes after those who are silent', async (t) => {
  const { listener, next } = await listen(t, { maxHandshakes: 4 })
  const slow = await silent(t, listener.port)
  slow.resume()
  const line = `${JSON.stringify({ seq: 1, ...samples.hello })}\n`
  slow.write(line.slice(0, 10))
  await sleep(50)
  for (let i = 0; i < 20; i++) await silent(t, listener.port)
  t.notOk(slow.readableEnded || slow.destroyed)
  const accepted = next()
  slow.write(line.slice(10))
  t.equal((await accepted).peer.device, samples.hello.device)
})

t.test('a handshake has its time', async (t) => {
  const { listener } = await listen(t, { handshakeTimeoutMs: 20 })
  const socket = await silent(t, listener.port)
  socket.resume()
  await once(socket, 'end')
  t.pass('it was dropped')
})

t.test('a listener that is closed drops those on their way', async (t) => {
  const { listener } = await listen(t, {})
  const socket = await silent(t, listener.port)
  socket.resume()
  await listener.close()
  await once(socket, 'end')
  await t.rejects(meetAt(listener.port), { code: 'ECONNREFUSED', hint: /p2pdma serve/ })
})

t.test('a link-local address, and whose link is meant', async (t) => {
  const at = (host: string) => meet(checkConnect({ host, port: 9 }), greetAs('opener'))
  const refused = { code: 'EINVAL', syscall: 'connect' }
  await t.rejects(at('fe80::1'), { ...refused, hint: /fe80::1%eth0$/ })
  await t.rejects(at('fe80::1%nope0'), { ...refused, hint: /no interface nope0 .*`ip link`/ })
})

t.test('options', (t) => {
  const range = { code: 'ERR_OUT_OF_RANGE' }
  t.throws(() => checkListen({ maxHandshakes: 0 }), { ...range, argument: 'maxHandshakes' })
  t.throws(() => checkListen({ handshakeTimeoutMs: -1 }), {
    ...range,
    argument: 'handshakeTimeoutMs',
  })
  t.throws(() => checkListen({ host: 5 as unknown as string }), {
    code: 'ERR_INVALID_ARG_TYPE',
    argument: 'host',
  })
  t.throws(() => checkConnect({ host, port: 1, timeoutMs: -1 }), {
    ...range,
    argument: 'timeoutMs',
  })
  t.throws(() => checkConnect({ host, port: 1, signal: 5 as unknown as AbortSignal }), {
    code: 'ERR_INVALID_ARG_TYPE',
    argument: 'signal',
  })
  t.end()
})

/** A listener of a process that is stopped: its kernel takes a few connections, and then none. */
const STOPPED = `
  const server = require('node:net').createServer().listen({ host: '${host}', port: 0, backlog: 1 },
    () => process.stdout.write(server.address().port + '\\n', () => process.kill(process.pid, 'SIGSTOP')))`

async function stopped(t: Test): Promise<number> {
  const child = spawn(process.execPath, ['-e', STOPPED], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  const [line] = (await once(child.stdout, 'data')) as [Buffer]
  return Number(line.toString())
}

t.test('a connection that is never made ends in time, or by a signal', async (t) => {
  const port = await stopped(t)
  // Its queue is full then, and what is sent to it is dropped.
  for (let i = 0; i < 8; i++) {
    const socket = net.connect({ host, port })
    socket.on('error', () => {})
    t.teardown(() => socket.destroy())
  }
  await sleep(200)
  await t.rejects(meetAt(port, { timeoutMs: 100 }), { code: 'ETIMEDOUT', hint: /firewall/ })
  const controller = new AbortController()
  const aborted = meetAt(port, { signal: controller.signal })
  setImmediate(() => controller.abort(new Error('enough')))
  await t.rejects(aborted, { code: 'ABORT_ERR', cause: { message: 'enough' } })
  t.equal(getEventListeners(controller.signal, 'abort').length, 0, 'no listener is left')
  await t.rejects(meetAt(port, { signal: controller.signal }), { code: 'ABORT_ERR' }, 'at once')
})

t.test('one who takes the connection and says nothing', async (t) => {
  const server = net.createServer((socket) => void socket.on('error', () => {}).resume())
  server.listen(0, host)
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as net.AddressInfo
  await t.rejects(meetAt(port, { timeoutMs: 100 }), { code: 'ETIMEDOUT', message: /hello/ })
  const controller = new AbortController()
  const aborted = meetAt(port, { signal: controller.signal })
  setTimeout(() => controller.abort(), 50)
  await t.rejects(aborted, { code: 'ABORT_ERR' })
  t.equal(getEventListeners(controller.signal, 'abort').length, 0)
})

/** The control link: hellos, messages, and what is refused. */
import net from 'node:net'
import type { Duplex } from 'node:stream'
import { once } from 'node:events'
import t from 'tap'
import type { PeerRefusal } from '../../lib/move-notify/trace.js'
import { Link } from '../../lib/engines/verbs/link/link.js'
import { memoryPair } from '../../lib/engines/verbs/link/memory-pair.js'
import { LINE_MAX, UPDATES_MAX } from '../../lib/engines/verbs/link/messages.js'
import { trace } from '../../lib/move-notify/trace.js'
import {
  accepter,
  introduction,
  openBoth,
  opener,
  openToRaw,
  RawPeer,
  samples,
  settle,
  socketPair,
  turn,
  until,
  watched,
} from './verbs-link-help.js'

for (const [kind, pair] of [
  ['memory', async (): Promise<[Duplex, Duplex]> => memoryPair()],
  ['TCP', socketPair as () => Promise<[Duplex, Duplex]>],
] as const) {
  t.test(`two links over ${kind}`, async (t) => {
    const [a, b] = await pair()
    const [one, two] = await openBoth(a, b)
    t.match(one.link.peer, { type: 'hello', version: 1, ...introduction })
    t.match(one.link.peer.nonce, /^[0-9a-f]{32}$/)
    t.not(one.link.peer.nonce, two.link.peer.nonce)
    one.link.send(samples.queue)
    await until(() => two.delivered.length === 1)
    t.strictSame(two.delivered, [samples.queue])
    two.link.send(samples['queue-ok'])
    two.link.send(samples.credit)
    await until(() => one.delivered.length === 2)
    t.strictSame(one.delivered, [samples['queue-ok'], samples.credit])
    await one.link.close()
    await two.link.close()
    t.strictSame([one.closes, two.closes], [[null], [null]])
    t.ok(a.destroyed && b.destroyed)
    t.notOk(one.link.send(samples.credit), 'after the close')
    await Promise.all([one.link.close(), two.link.close('twice')])
    t.strictSame([one.closes, two.closes], [[null], [null]], 'told once')
  })

  t.test(`a peer that disappears, over ${kind}`, async (t) => {
    const [a, b] = await pair()
    const [one, two] = await openBoth(a, b)
    b.destroy()
    await until(() => one.closes.length > 0 && two.closes.length > 0)
    t.match(one.closes, [{ code: 'ERR_PEER_LOST' }])
    t.match(two.closes, [{ code: 'ERR_PEER_LOST' }])
    t.notOk(one.link.send(samples.queue))
    await one.link.close()
    t.ok(a.destroyed)
  })

  t.test(`closed with a word, over ${kind}`, async (t) => {
    const [one, two] = await openBoth(...(await pair()))
    await one.link.close('no such\ndevice')
    await until(() => two.closes.length > 0)
    t.strictSame(one.closes, [null])
    t.match(two.closes, [{ code: 'ERR_PEER_LOST', message: /no such device/ }])
    await two.link.close()
  })
}

t.test('a connection reset', async (t) => {
  const [a, b] = await socketPair()
  const [one, two] = await openBoth(a, b)
  b.resetAndDestroy()
  await until(() => one.closes.length > 0)
  t.match(one.closes, [{ code: 'ERR_PEER_LOST', cause: { code: 'ECONNRESET' } }])
  await two.link.close()
})

t.test('nobody listens', async (t) => {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as net.AddressInfo
  server.close()
  await once(server, 'close')
  const opening = Link.open(net.connect(port, '127.0.0.1'), introduction, opener)
  await t.rejects(opening, { code: 'ERR_PEER_LOST', cause: { code: 'ECONNREFUSED' } })
})

t.test('messages wait for who takes them', async (t) => {
  const [ours, theirs] = memoryPair()
  const raw = new RawPeer(theirs)
  const opening = Link.open(ours, introduction, accepter)
  const text = [samples.hello, samples.queue, { ...samples.queue, queue: 2 }, { type: 'bye' }]
  raw.write(text.map((one, index) => `${JSON.stringify({ seq: index + 1, ...one })}\n`).join(''))
  const link = await opening
  await settle()
  const { delivered, closes } = watched(link)
  t.equal(delivered.length, 0, 'not within the assignment')
  await settle()
  t.strictSame(delivered, text.slice(1, 3))
  t.strictSame(closes, [null])
})

t.test('a peer whose messages nobody takes is held back', async (t) => {
  const [ours, theirs] = memoryPair()
  const raw = new RawPeer(theirs)
  const opening = Link.open(ours, introduction, accepter)
  raw.say(samples.hello)
  const link = await opening
  for (let i = 0; i < 3000; i++) {
    raw.say({ ...samples.queue, queue: 2 * i })
    if (i % 500 === 0) await turn()
  }
  await settle()
  t.ok(theirs.writableLength > 0, 'some of it is still on the other side')
  const { delivered } = watched(link)
  await until(() => delivered.length === 3000)
  await link.close()
})

t.test('unread bytes do not cost a peer the last words', async (t) => {
  const [ours, theirs] = await socketPair()
  const raw = new RawPeer(theirs)
  const errors: unknown[] = []
  theirs.on('error', (error) => void errors.push(error))
  const opening = Link.open(ours, introduction, accepter)
  raw.say(samples.hello)
  const link = await opening
  // More than the kernel's buffers hold.
  raw.write(Buffer.alloc(16 << 20, ' '))
  await Promise.all([once(theirs, 'close'), link.close('enough')])
  t.match(raw.heard.at(-1), { type: 'bye', message: 'enough' })
  t.strictSame(errors, [], 'no reset')
})

t.test('what crosses our end of a queue is not delivered', async (t) => {
  const { link, raw, delivered, closes } = await openToRaw('accepter')
  raw.say(samples.queue)
  await settle()
  link.send(samples['queue-ok'])
  link.send(samples['queue-error'])
  raw.say(samples.credit)
  raw.say(samples['queue-error'])
  await settle()
  t.strictSame(delivered, [samples.queue, samples['queue-error']])
  t.strictSame(closes, [])
  raw.stream.destroy()
  await link.close()
})

t.test('told once, whoever asks', async (t) => {
  const { link, raw, closes } = await openToRaw('accepter')
  raw.stream.destroy()
  await link.close()
  link.onClose = () => t.fail('told again')
  await settle()
  t.strictSame(closes, [null])
})

t.test('a line without an end, bit by bit', async (t) => {
  const { raw, closes, link } = await openToRaw('accepter')
  for (let i = 0; i < 5; i++) {
    raw.write(' '.repeat(LINE_MAX / 4 + 1))
    await settle()
    t.equal(closes.length, i < 3 ? 0 : 1, `${i}`)
  }
  t.match(closes, [{ code: 'ERR_PROTOCOL' }])
  raw.stream.destroy()
  await link.close()
})

t.test('lines come in pieces, and many at once', async (t) => {
  const { link, raw, delivered, closes } = await openToRaw('accepter')
  const lines: string[] = []
  for (let i = 0; i < 50; i++) {
    lines.push(JSON.stringify({ seq: i + 2, ...samples.queue, queue: 2 * i }))
  }
  const bytes = Buffer.from(`${lines.slice(0, 10).join('\n')}\n`)
  for (const byte of bytes) raw.write(Buffer.of(byte))
  await until(() => delivered.length === 10)
  raw.write(`${lines.slice(10).join('\n')}\n`)
  await until(() => delivered.length === 50)
  t.strictSame(closes, [])
  await link.close()
})

t.test('a resume longer than a line arrives as one', async (t) => {
  const [one, two] = await openBoth(...memoryPair())
  one.link.send(samples.queue)
  await settle()
  two.link.send(samples['queue-ok'])
  await settle()
  const updates = []
  for (let buffer = 0; buffer < 3 * UPDATES_MAX; buffer++) {
    one.link.send({ ...samples.grant, buffer })
    updates.push({
      buffer,
      iova: 2 ** 52 + buffer * 65536,
      rkey: 0xffffffff - buffer,
      generation: 2,
    })
  }
  one.link.send(samples.pause)
  t.ok(one.link.send({ ...samples.resume, updates }))
  one.link.send(samples.credit)
  await until(() => two.delivered.length >= updates.length + 4)
  t.strictSame(two.delivered.at(-2), { ...samples.resume, updates })
  t.strictSame(two.delivered.at(-1), samples.credit, 'the numbers go on')
  const newer = updates.map((update) => ({ ...update, generation: 3 }))
  one.link.send({ ...samples.pause, n: 2 })
  one.link.send({ ...samples.resume, n: 2, updates: newer })
  await settle()
  t.strictSame(two.delivered.at(-1), { ...samples.resume, n: 2, updates: newer })
  t.strictSame(two.closes, [])
  await Promise.all([one.link.close(), two.link.close()])
})

t.test('a wrong beginning', async (t) => {
  const hello = JSON.stringify({ seq: 1, ...samples.hello })
  const beginnings: Record<string, string | Uint8Array> = {
    'another message first': `${JSON.stringify({ seq: 1, ...samples.queue })}\n`,
    'a bye first': '{"seq":1,"type":"bye"}\n',
    'another version': `${hello.replace('"version":1', '"version":2')}\n`,
    'number 2': `${hello.replace('"seq":1', '"seq":2')}\n`,
    HTTP: 'GET / HTTP/1.1\r\nHost: x\r\n\r\n',
    'an empty line': `\n${hello}\n`,
    binary: Buffer.from([0x16, 3, 1, 0, 0xff, 0xfe, 10, 10]),
    'no newline': 'x'.repeat(LINE_MAX + 1),
    'many bytes': Buffer.alloc(10 * LINE_MAX),
    'our own hello': `${JSON.stringify({ seq: 1, ...samples.hello, nonce: 'a'.repeat(32) })}\n`,
  }
  for (const [what, bytes] of Object.entries(beginnings)) {
    const [ours, theirs] = memoryPair()
    const raw = new RawPeer(theirs)
    raw.write(bytes)
    const options = { ...accepter, name: 'raw' }
    const opening = Link.open(ours, { ...introduction, nonce: 'a'.repeat(32) }, options)
    await t.rejects(opening, { code: 'ERR_PROTOCOL' }, what)
    await settle()
    t.match(raw.heard, [
      { type: 'hello', seq: 1 },
      { type: 'bye', seq: 2, message: /^refused/ },
    ])
    theirs.destroy()
    await until(() => ours.destroyed)
  }
})

t.test('what comes after the hello', async (t) => {
  const queue = JSON.stringify({ seq: 2, ...samples.queue })
  const next = JSON.stringify({ seq: 3, ...samples.queue, queue: 2 })
  const good = `${queue}\n${next}\n`
  /** Bytes, and how many messages in front of the fault are right. */
  const faults: Record<string, readonly [string | Uint8Array, number, (string | null)?]> = {
    'a second hello': [`${JSON.stringify({ seq: 2, ...samples.hello })}\n`, 0, 'hello'],
    'a replay': [`${queue}\n${queue}\n`, 1, 'queue'],
    'a gap': [`${queue}\n${next.replace('"seq":3', '"seq":4')}\n`, 1, 'queue'],
    'another order': [`${next}\n${queue}\n`, 0, 'queue'],
    'a line cut off': [`${queue.slice(0, -5)}\n${next}\n`, 0, null],
    'two in one line': [`${queue}${next}\n`, 0, null],
    'an unknown type': ['{"seq":2,"type":"queue-no"}\n', 0, 'queue-no'],
    'an empty line': [`${queue}\n\n${next}\n`, 1, null],
    'a line too long': [`${queue}\n${' '.repeat(LINE_MAX)}${next}\n`, 1, null],
    'a line without end': [`${queue}\n${' '.repeat(LINE_MAX + 1)}`, 1, null],
    'binary garbage': [Buffer.from([0xff, 0, 10, 0x80, 10, 10]), 0, null],
    'garbage behind': [Buffer.concat([Buffer.from(good), Buffer.from([1, 10])]), 2, null],
  }
  for (const [what, [bytes, right, type = null]] of Object.entries(faults)) {
    const { link, raw, delivered, closes } = await openToRaw('accepter')
    const told: PeerRefusal[] = []
    const listener = (message: unknown) => void told.push(message as PeerRefusal)
    trace.peer.subscribe(listener)
    raw.write(bytes)
    raw.write(`\n${good}`)
    await settle()
    trace.peer.unsubscribe(listener)
    t.match(closes, [{ code: 'ERR_PROTOCOL' }], what)
    t.equal(delivered.length, right, `${what}: ${right} delivered`)
    t.match(told, [{ peer: 'raw', type, reason: /^The peer sent / }], `${what}: told`)
    if (what === 'a second hello') t.match(told[0]?.reason, what)
    t.notOk(link.send(samples['queue-ok']))
    raw.stream.destroy()
    await link.close()
  }
})

t.test('the stream ends within a line', async (t) => {
  const { raw, delivered, closes, link } = await openToRaw('accepter')
  raw.stream.end(JSON.stringify({ seq: 2, ...samples.queue }))
  await settle()
  t.match(closes, [{ code: 'ERR_PROTOCOL' }])
  t.strictSame(delivered, [])
  await link.close()
})

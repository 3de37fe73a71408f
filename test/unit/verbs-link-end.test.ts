/** The control link: every way to fail at the beginning, and every way to end. */
import type { Duplex } from 'node:stream'
import t from 'tap'
import type { LinkOptions } from '../../lib/engines/verbs/link/link-options.js'
import type { QueueMessage } from '../../lib/engines/verbs/link/messages.js'
import { Link } from '../../lib/engines/verbs/link/link.js'
import { memoryPair } from '../../lib/engines/verbs/link/memory-pair.js'
import {
  accepter,
  introduction,
  openBoth,
  opener,
  openToRaw,
  samples,
  settle,
  turn,
  watched,
} from './verbs-link-help.js'

/** What the opener's side of a conversation sends, and what the other answers. */
async function talk(one: Link, two: Link): Promise<void> {
  one.send(samples.queue)
  await settle()
  two.send(samples['queue-ok'])
  one.send({ ...samples.queue, queue: 2 })
  await settle()
  one.send(samples.grant)
  one.send(samples.pause)
  await settle()
  two.send(samples.paused)
  one.send(samples.resume)
  one.send(samples.credit)
  await settle()
}

t.test('no hello in time', async (t) => {
  const [ours, theirs] = memoryPair()
  const opening = Link.open(ours, introduction, { ...opener, name: 'host:1', timeoutMs: 5 })
  await t.rejects(opening, { code: 'ETIMEDOUT', message: /host:1/, hint: /p2pdma/ })
  t.ok(ours.destroyed)
  theirs.destroy()
})

t.test('given up', async (t) => {
  const early = memoryPair()
  const signal = AbortSignal.abort('why')
  await t.rejects(Link.open(early[0], introduction, { ...opener, signal }), {
    code: 'ABORT_ERR',
    cause: 'why',
  })
  t.ok(early[0].destroyed)

  const [ours, theirs] = memoryPair()
  const controller = new AbortController()
  const opening = Link.open(ours, introduction, { ...opener, signal: controller.signal })
  setImmediate(() => controller.abort())
  await t.rejects(opening, { code: 'ABORT_ERR' })
  t.ok(ours.destroyed)
  theirs.destroy()

  const late = new AbortController()
  const pair = memoryPair()
  const links = await Promise.all([
    Link.open(pair[0], introduction, { ...opener, signal: late.signal }),
    Link.open(pair[1], introduction, accepter),
  ])
  late.abort()
  await settle()
  t.notOk(links[0].closed, 'an open link is no longer the signal’s')
  await Promise.all(links.map((link) => link.close()))
})

t.test('a stream that is dead already', async (t) => {
  const [a, b] = memoryPair()
  a.destroy()
  await t.rejects(Link.open(a, introduction, opener), { code: 'ERR_PEER_LOST' })
  await settle()
  b.destroy()
  const [c, d] = memoryPair()
  d.destroy()
  await t.rejects(Link.open(c, introduction, opener), { code: 'ERR_PEER_LOST' })
})

t.test('bad arguments', async (t) => {
  const bad: [unknown, unknown, unknown][] = [
    [null, introduction, opener],
    [{}, introduction, opener],
    [undefined, null, opener],
    [undefined, { ...introduction, mtu: 1000 }, opener],
    [undefined, { ...introduction, device: 'a b' }, opener],
    [undefined, { ...introduction, nonce: 'x' }, opener],
    [undefined, introduction, null],
    [undefined, introduction, {}],
    [undefined, introduction, { role: 'both' }],
    [undefined, introduction, { ...opener, name: 1 }],
    [undefined, introduction, { ...opener, timeoutMs: NaN }],
    [undefined, introduction, { ...opener, timeoutMs: '1' }],
    [undefined, introduction, { ...opener, signal: {} }],
  ]
  for (const [stream, hello, options] of bad) {
    const [ours, theirs] = memoryPair()
    const opening = Link.open(
      (stream === undefined ? ours : stream) as Duplex,
      hello as typeof introduction,
      options as LinkOptions,
    )
    await t.rejects(opening, { code: /^ERR_(INVALID|OUT)_/ })
    t.equal(ours.destroyed, stream === undefined, 'the stream is the link’s from the call on')
    theirs.destroy()
    ours.destroy()
  }
  const { link, raw, closes } = await openToRaw('opener')
  for (const message of [null, undefined, 1, 'queue', {}, { type: 'queue' }, samples.hello]) {
    t.throws(() => link.send(message as QueueMessage), { code: /^ERR_(INVALID|OUT)_/ })
  }
  t.throws(() => link.send(samples.credit), { code: 'ERR_INVALID_STATE' })
  await t.rejects(link.close(1 as unknown as string), { code: 'ERR_INVALID_ARG_TYPE' })
  t.ok(link.send(samples.queue), 'none of it has closed the link')
  await settle()
  t.match(raw.heard.at(-1), { seq: 2, type: 'queue' }, 'nor used a number')
  t.strictSame(closes, [])
  raw.stream.destroy()
  await link.close()
})

t.test('a peer that does not read', async (t) => {
  const [ours, theirs] = memoryPair()
  theirs.write(`${JSON.stringify({ seq: 1, ...samples.hello })}\n`)
  const { link, closes } = watched(await Link.open(ours, introduction, opener))
  let sent = 0
  while (link.send({ ...samples.queue, queue: 2 * sent }) && sent < 4000) sent++
  t.equal(sent, 4000, 'a few hundred KiB wait for it')
  theirs.write(`${JSON.stringify({ seq: 2, ...samples['queue-ok'] })}\n`)
  await settle()
  let more = 0
  while (link.send({ ...samples.credit, posted: more }) && more < 100_000) more++
  t.ok(more < 30_000, 'and no more than about 1 MiB')
  t.ok(ours.destroyed)
  await settle()
  t.match(closes, [{ code: 'ERR_PEER_LOST', message: /unread/ }])
  theirs.destroy()
})

t.test('a peer that does not hear the goodbye', async (t) => {
  const [ours, theirs] = memoryPair()
  theirs.write(`${JSON.stringify({ seq: 1, ...samples.hello })}\n`)
  const { link, closes } = watched(await Link.open(ours, introduction, opener))
  await link.close()
  t.ok(ours.destroyed, 'the close has an end nevertheless')
  t.strictSame(closes, [null])
  theirs.destroy()
})

t.test('a handler that throws', async (t) => {
  const { link, raw } = await openToRaw('accepter')
  const closes: (Error | null)[] = []
  let calls = 0
  link.onClose = (error) => void closes.push(error)
  link.onMessage = () => {
    calls++
    throw new Error('of the engine')
  }
  raw.say(samples.queue)
  raw.say({ ...samples.queue, queue: 2 })
  await settle()
  t.equal(calls, 1)
  t.match(closes, [{ message: 'of the engine' }])
  t.match(raw.heard.at(-1), { type: 'bye', message: /fault/ })
  t.notMatch(raw.heard.at(-1), { message: /engine/ }, 'what went wrong here is not the peer’s')
  raw.stream.destroy()
  await link.close()
})

t.test('closed by who takes a message', async (t) => {
  const { link, raw, closes } = await openToRaw('accepter')
  const seen: QueueMessage[] = []
  link.onMessage = (message) => {
    seen.push(message)
    void link.close()
    t.strictSame(closes, [], 'not told within a call of ours')
  }
  const text = [0, 2].map((queue) =>
    JSON.stringify({ seq: 2 + queue / 2, ...samples.queue, queue }),
  )
  raw.write(`${text.join('\n')}\n`)
  await settle()
  t.strictSame(seen, [samples.queue])
  t.strictSame(closes, [null])
  raw.stream.destroy()
  await link.close()
})

t.test('close at every moment', async (t) => {
  for (const who of [0, 1] as const) {
    for (const how of ['close', 'destroy', 'end'] as const) {
      for (let moment = 0; moment < 100; moment += 3) {
        const streams = memoryPair()
        const sides = await openBoth(...streams)
        const talking = talk(sides[0].link, sides[1].link).catch((error: unknown) => {
          // The answers of `talk` need what was said before.
          t.match(error, { code: 'ERR_INVALID_STATE' })
        })
        for (let i = 0; i < moment; i++) await turn()
        if (how === 'close') await sides[who].link.close()
        else if (how === 'destroy') streams[who].destroy()
        else streams[who].end()
        await talking
        await settle()
        for (const { closes } of sides) {
          if (how === 'close') t.strictSame(closes, [null], `${how} ${moment}`)
          else t.match(closes, [{ code: 'ERR_PEER_LOST' }], `${how} ${moment}`)
          t.equal(closes.length, 1)
        }
        t.ok(streams[0].destroyed && streams[1].destroyed)
      }
    }
  }
})

t.test('given up at every moment of the opening', async (t) => {
  for (let moment = 0; moment < 8; moment++) {
    const [a, b] = memoryPair()
    const controller = new AbortController()
    const opened = Promise.allSettled([
      Link.open(a, introduction, { ...opener, signal: controller.signal }),
      Link.open(b, introduction, accepter),
    ])
    for (let i = 0; i < moment; i++) await turn()
    controller.abort()
    const results = await opened
    const closing: Promise<void>[] = []
    for (const [index, result] of results.entries()) {
      if (result.status === 'fulfilled') closing.push(result.value.close())
      else t.match(result.reason, { code: index === 0 ? 'ABORT_ERR' : 'ERR_PEER_LOST' })
    }
    await Promise.all(closing)
    t.ok(a.destroyed && b.destroyed)
  }
})

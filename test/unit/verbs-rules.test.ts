/** What may be said when, by either end of a control link. */
import t from 'tap'
import type { QueueMessage } from '../../lib/engines/verbs/link/messages.js'
import type { P2pdmaError } from '../../lib/errors.js'
import { Conversation, GRANTS_MAX, QUEUES_MAX } from '../../lib/engines/verbs/link/checks.js'
import { UPDATES_MAX } from '../../lib/engines/verbs/link/messages.js'
import { openToRaw, samples, settle } from './verbs-link-help.js'

/** The asker of the queue, or its other end. */
type End = 'asker' | 'other'
type Said = readonly [End, QueueMessage]

const { queue, grant, ungrant, ungranted, pause, paused, resume, credit, reset } = samples
const queueOk = samples['queue-ok']
const queueError = samples['queue-error']
const resetOk = samples['reset-ok']
const update = { buffer: 7, iova: 0x200000000, rkey: 1, generation: 2 }

const opened: Said[] = [
  ['asker', queue],
  ['other', queueOk],
]
const granted: Said[] = [...opened, ['asker', grant]]
const pausing: Said[] = [...granted, ['asker', pause]]
const resetting: Said[] = [...opened, ['asker', reset]]
const high = Number.MAX_SAFE_INTEGER - 1

/** What has been said, and what may not be said then. */
const wrong: Record<string, readonly [Said[], Said]> = {
  'a queue twice': [opened, ['asker', queue]],
  'a queue with an id of the other end': [[], ['asker', { ...queue, queue: 1 }]],
  'a queue with a lower id': [
    [['asker', { ...queue, queue: 4 }]],
    ['asker', { ...queue, queue: 2 }],
  ],
  'an answer that nobody asked for': [[], ['other', queueOk]],
  'an answer to oneself': [[['asker', queue]], ['asker', queueOk]],
  'an answer twice': [opened, ['other', queueOk]],
  'an answer for another queue': [[['asker', queue]], ['other', { ...queueOk, queue: 2 }]],
  'an error for no queue': [[], ['other', queueError]],
  'an error by the asker before the answer': [[['asker', queue]], ['asker', queueError]],
  'an answer after an error': [
    [
      ['asker', queue],
      ['other', queueError],
    ],
    ['other', queueOk],
  ],
  'a grant on no queue': [[], ['asker', grant]],
  'a grant before the answer': [[['asker', queue]], ['asker', grant]],
  'a grant twice': [granted, ['asker', grant]],
  'a grant that ends too high': [opened, ['asker', { ...grant, iova: high, size: 2 }]],
  'an ungrant of another buffer': [granted, ['asker', { ...ungrant, buffer: 8 }]],
  'an ungrant of what the other has granted': [granted, ['other', ungrant]],
  'a grant while the last is being taken back': [
    [...granted, ['asker', ungrant]],
    ['asker', grant],
  ],
  'an ungranted that was not asked for': [granted, ['other', ungranted]],
  'an ungranted by who asks': [
    [...granted, ['asker', ungrant]],
    ['asker', ungranted],
  ],
  'an ungranted twice': [
    [...granted, ['asker', ungrant], ['other', ungranted]],
    ['other', ungranted],
  ],
  'an ungrant twice': [
    [...granted, ['asker', ungrant]],
    ['asker', ungrant],
  ],
  'a pause on no queue': [[], ['other', pause]],
  'a pause again': [pausing, ['asker', pause]],
  'a pause with fewer receives': [
    [...opened, ['asker', { ...credit, posted: 13 }]],
    ['asker', pause],
  ],
  'paused without a pause': [opened, ['other', paused]],
  'paused by who pauses': [pausing, ['asker', paused]],
  'paused of another number': [pausing, ['other', { ...paused, n: 2 }]],
  'paused twice': [
    [...pausing, ['other', paused]],
    ['other', paused],
  ],
  'a resume without a pause': [granted, ['asker', resume]],
  'a resume of the other one’s pause': [pausing, ['other', { ...resume, updates: [] }]],
  'a resume of another number': [pausing, ['asker', { ...resume, n: 2 }]],
  'a resume twice': [
    [...pausing, ['asker', resume]],
    ['asker', { ...resume, updates: [] }],
  ],
  'a resume of a pause replaced': [
    [...pausing, ['asker', { ...pause, n: 2 }]],
    ['asker', resume],
  ],
  'an update of a buffer never granted': [
    pausing,
    ['asker', { ...resume, updates: [update, { ...update, buffer: 8 }] }],
  ],
  'an update of a buffer no longer granted': [
    [...pausing, ['asker', ungrant]],
    ['asker', resume],
  ],
  'an update of the same generation': [
    pausing,
    ['asker', { ...resume, updates: [{ ...update, generation: 1 }] }],
  ],
  'an update twice in one': [pausing, ['asker', { ...resume, updates: [update, update] }]],
  'an update of an older generation': [
    [...pausing, ['asker', resume], ['asker', { ...pause, n: 2 }]],
    ['asker', { ...resume, n: 2 }],
  ],
  'an update that ends too high': [
    pausing,
    ['asker', { ...resume, updates: [{ ...update, iova: high }] }],
  ],
  'an unfinished resume without updates': [
    pausing,
    ['asker', { ...resume, updates: [], more: true }],
  ],
  'another message in an unfinished resume': [
    [...pausing, ['asker', { ...resume, more: true }]],
    ['asker', credit],
  ],
  'another number in an unfinished resume': [
    [...pausing, ['asker', { ...resume, more: true }]],
    ['asker', { ...resume, n: 2, updates: [] }],
  ],
  'another queue in an unfinished resume': [
    [
      ...pausing,
      ['asker', { ...queue, queue: 2 }],
      ['other', { ...queueOk, queue: 2 }],
      ['asker', { ...pause, queue: 2 }],
      ['asker', { ...resume, more: true }],
    ],
    ['asker', { ...resume, queue: 2, updates: [] }],
  ],
  'credit on no queue': [[], ['asker', credit]],
  'credit that falls': [
    [...opened, ['other', credit]],
    ['other', { ...credit, posted: 11 }],
  ],
  'credit below a pause’s': [pausing, ['asker', { ...credit, posted: 11 }]],
  'credit that falls twice after a reset': [
    [...opened, ['other', credit], ...resetting.slice(2), ['other', { ...credit, posted: 11 }]],
    ['other', { ...credit, posted: 10 }],
  ],
  'a reset on no queue': [[], ['asker', reset]],
  'a reset again': [resetting, ['asker', reset]],
  'reset-ok without a reset': [opened, ['other', resetOk]],
  'reset-ok of another number': [resetting, ['other', { ...resetOk, n: 0 }]],
  'reset-ok by who resets': [resetting, ['asker', resetOk]],
  'reset-ok twice': [
    [...resetting, ['other', resetOk]],
    ['other', resetOk],
  ],
}

/** What only looks wrong. */
const right: Record<string, Said[]> = {
  'all of it': [
    ...pausing,
    ['other', paused],
    ['asker', resume],
    ['other', reset],
    ['asker', resetOk],
    ['asker', ungrant],
    ['other', ungranted],
    ['asker', grant],
    ['other', grant],
  ],
  'both ends pause and reset at once': [
    ...pausing,
    ['other', pause],
    ['other', paused],
    ['asker', paused],
    ['other', reset],
    ['asker', reset],
    ['asker', resetOk],
    ['other', resetOk],
  ],
  'an answer that comes late, after a forced stop': [
    ...pausing,
    ['asker', reset],
    ['other', resetOk],
    ['asker', resume],
    ['asker', { ...pause, n: 2 }],
    ['other', paused],
    ['other', { ...paused, n: 2 }],
  ],
  'a pause replaced': [...pausing, ['asker', { ...pause, n: 5 }], ['asker', { ...resume, n: 5 }]],
  'receives counted anew after a reset': [
    ...opened,
    ['asker', credit],
    ['other', credit],
    ['asker', reset],
    ['other', { ...credit, posted: 1 }],
    ['other', resetOk],
    ['asker', { ...credit, posted: 1 }],
  ],
  // The pause was sent before the answer came.
  'a pause that crosses the answer to a reset': [
    ...opened,
    ['asker', credit],
    ['asker', reset],
    ['other', resetOk],
    ['asker', pause],
    ['asker', { ...credit, posted: 1 }],
  ],
  'receives counted anew after two resets that cross': [
    ...opened,
    ['asker', credit],
    ['asker', reset],
    ['asker', { ...credit, posted: 2 }],
    ['other', reset],
    ['asker', { ...credit, posted: 1 }],
  ],
  'a resume in parts': [
    ...pausing,
    ['asker', { ...resume, more: true }],
    ['other', credit],
    ['asker', { ...resume, updates: [] }],
  ],
}

function conversations() {
  return { asker: new Conversation('opener'), other: new Conversation('accepter') }
}

function hear(ends: ReturnType<typeof conversations>, [from, message]: Said): boolean {
  return ends[from === 'asker' ? 'other' : 'asker'].received(message)
}

function thrown(act: () => unknown): P2pdmaError | null {
  try {
    act()
    return null
  } catch (error) {
    return error as P2pdmaError
  }
}

t.test('the same rules for who sends and who hears', async (t) => {
  for (const [what, [before, bad]] of Object.entries(wrong)) {
    const ends = conversations()
    for (const said of before) {
      t.equal(ends[said[0]].sent(said[1]), true)
      t.equal(hear(ends, said), true)
    }
    const error = thrown(() => hear(ends, bad))
    t.equal(error?.code, 'ERR_PROTOCOL', `${what} is refused`)
    t.match(error?.hint, bad[1].type)
    if (what === 'an answer after an error') continue
    t.equal(thrown(() => ends[bad[0]].sent(bad[1]))?.code, 'ERR_INVALID_STATE', `${what}: not sent`)
  }
})

t.test('what only looks wrong', async (t) => {
  for (const [what, script] of Object.entries(right)) {
    const ends = conversations()
    for (const [index, said] of script.entries()) {
      t.equal(ends[said[0]].sent(said[1]), true, `${what}: ${index} sent`)
      t.equal(hear(ends, said), true, `${what}: ${index} heard`)
    }
  }
})

t.test('what is not sent is not noted', async (t) => {
  const { asker } = conversations()
  asker.sent(queue)
  asker.received(queueOk)
  asker.sent(grant)
  asker.sent(pause)
  const bad = { ...resume, updates: [update, { ...update, buffer: 8 }] }
  t.throws(() => asker.sent(bad), { code: 'ERR_INVALID_STATE' })
  t.ok(asker.sent(resume), 'generation 2 is still new, and the pause in force')
})

t.test('what crosses the end of a queue', async (t) => {
  const { asker } = conversations()
  asker.sent(queue)
  asker.received(queueOk)
  asker.received(grant)
  t.ok(asker.sent(queueError))
  t.notOk(asker.sent(credit), 'nothing more from us')
  t.notOk(asker.sent(queueError), 'said once')
  t.notOk(asker.received(credit), 'on its way when we ended: right, and of no use')
  t.throws(() => asker.received({ ...credit, posted: 1 }), { code: 'ERR_PROTOCOL' })
  t.ok(asker.received(queueError))
  t.notOk(asker.sent(credit))
  t.throws(() => asker.received(credit), { code: 'ERR_PROTOCOL' }, 'it is over at both ends')
  t.throws(() => asker.received(queueError), { code: 'ERR_PROTOCOL' })

  const { asker: early, other } = conversations()
  early.sent(queue)
  other.received(queue)
  t.ok(other.sent(queueError))
  t.notOk(other.sent(queueOk), 'refused once and for all')
  t.ok(early.received(queueError))
  t.notOk(early.sent(grant))
})

t.test('the answer to what was asked before the end of a queue', async (t) => {
  const { asker, other } = conversations()
  for (const said of [...granted, ['asker', ungrant]] as Said[]) {
    t.ok((said[0] === 'asker' ? asker : other).sent(said[1]))
    t.ok(hear({ asker, other }, said))
  }
  t.ok(asker.sent(queueError))
  t.ok(other.sent(ungranted), 'it has not heard of the end yet')
  t.notOk(asker.received(ungranted), 'right, and of no use')
  t.throws(() => asker.received(ungranted), { code: 'ERR_PROTOCOL' }, 'once')
  t.ok(other.received(queueError))
  t.ok(other.sent(queueError))
  t.ok(asker.received(queueError))

  const late = conversations()
  for (const said of [...granted, ['asker', ungrant], ['asker', queueError]] as Said[]) {
    late[said[0]].sent(said[1])
    hear(late, said)
  }
  t.ok(late.other.sent(ungranted), 'it has heard of it, and answers all the same')
  t.notOk(late.asker.received(ungranted))
})

t.test('a peer cannot make us remember without end', async (t) => {
  const { other } = conversations()
  for (let i = 0; i < QUEUES_MAX; i++) other.received({ ...queue, queue: 2 * i })
  t.throws(() => other.received({ ...queue, queue: 2 * QUEUES_MAX }), { code: 'ERR_PROTOCOL' })
  other.sent(queueError)
  t.ok(other.received({ ...queue, queue: 2 * QUEUES_MAX }), 'one is over, one more')

  other.sent({ ...queueOk, queue: 2 })
  other.sent({ ...queueOk, queue: 4 })
  const one = (buffer: number) => ({ ...grant, queue: 2 + 2 * (buffer % 2), buffer })
  for (let buffer = 0; buffer < GRANTS_MAX; buffer++) other.received(one(buffer))
  t.throws(() => other.received(one(GRANTS_MAX)), { code: 'ERR_PROTOCOL' })
  other.received({ ...ungrant, queue: 2, buffer: 0 })
  t.throws(() => other.received(one(GRANTS_MAX)), { code: 'ERR_PROTOCOL' }, 'not given back yet')
  other.sent({ ...ungranted, queue: 2, buffer: 0 })
  t.ok(other.received(one(GRANTS_MAX)))
  t.throws(() => other.received(one(GRANTS_MAX + 1)), { code: 'ERR_PROTOCOL' })
  other.received({ ...queueError, queue: 4 })
  t.ok(other.received({ ...one(0), buffer: GRANTS_MAX + 2 }), 'with a queue go its grants')

  // One buffer, newer and newer, in a resume that never ends.
  other.received({ ...pause, queue: 2 })
  const flood = () => {
    for (let part = 0, generation = 1; part <= GRANTS_MAX / UPDATES_MAX; part++) {
      const updates = Array.from({ length: UPDATES_MAX }, () => ({
        ...update,
        buffer: 2,
        generation: ++generation,
      }))
      other.received({ ...resume, queue: 2, updates, more: true })
    }
  }
  t.throws(flood, { code: 'ERR_PROTOCOL' })
})

t.test('a pause and the answer to a reset on their way at once', async (t) => {
  const { asker, other } = conversations()
  for (const end of [asker, other]) {
    end[end === asker ? 'sent' : 'received'](queue)
    end[end === asker ? 'received' : 'sent'](queueOk)
    end[end === asker ? 'sent' : 'received'](credit)
    end[end === asker ? 'sent' : 'received'](reset)
  }
  const anew = { ...credit, posted: 1 }
  t.ok(asker.sent(pause))
  t.ok(asker.received(resetOk))
  t.ok(asker.sent(anew))
  t.ok(other.sent(resetOk))
  t.ok(other.received(pause))
  t.ok(other.received(anew))
})

t.test('answers to the newest questions only', async (t) => {
  const { asker } = conversations()
  asker.sent(queue)
  asker.received(queueOk)
  for (let n = 0; n < 100; n++) asker.sent({ ...pause, n })
  t.throws(() => asker.received({ ...paused, n: 35 }), { code: 'ERR_PROTOCOL' })
  t.ok(asker.received({ ...paused, n: 36 }))
  t.ok(asker.received({ ...paused, n: 99 }))
})

t.test('a link refuses what comes when it may not, and delivers nothing of it', async (t) => {
  for (const [what, [before, bad]] of Object.entries(wrong)) {
    const { link, raw, delivered, closes } = await openToRaw(
      bad[0] === 'asker' ? 'accepter' : 'opener',
    )
    let due = 0
    for (const [from, message] of before) {
      if (from !== bad[0]) {
        await settle()
        t.ok(link.send(message), what)
        continue
      }
      raw.say(message)
      // A resume in parts is delivered with its last.
      if (!('more' in message)) due++
    }
    await settle()
    t.equal(delivered.length, due)
    raw.say(bad[1])
    raw.say(samples.bye)
    await settle()
    t.equal(delivered.length, due, `${what}: not delivered`)
    t.match(closes, [{ code: 'ERR_PROTOCOL' }], what)
    const last = raw.heard.at(-1)
    t.equal(last?.['type'], 'bye')
    t.match(last?.['message'], /^refused: The peer sent a /)
  }
})

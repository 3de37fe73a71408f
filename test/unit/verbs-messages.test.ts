/** Each message of the control protocol, each of its fields, and what is refused. */
import t from 'tap'
import type { P2pdmaError } from '../../lib/errors.js'
import { toText } from '../../lib/engines/verbs/link/fields.js'
import {
  decode,
  encode,
  LINE_MAX,
  type Message,
  messageTypes,
  UPDATES_MAX,
} from '../../lib/engines/verbs/link/messages.js'
import { MAX, samples } from './verbs-link-help.js'

const NUMBERLESS = [null, true, '1', [1], {}, 1.5, -1]
const uint24 = [...NUMBERLESS, 0x1000000]
const uint32 = [...NUMBERLESS, 0x100000000]
const count = [...NUMBERLESS, MAX + 1, 1e300]
const positive = [0, ...count]
const name = [null, 1, [], {}, '', 'a b', 'a/b', 'a\n', 'é', '..\u0000', 'x'.repeat(65)]
const text = [null, 1, ['x'], {}, 'a\nb', '\u001b[2J', '\u202e', '\ud800', 'x'.repeat(257)]
const hex = [null, 1, '', 'g'.repeat(32), '0'.repeat(31), '0'.repeat(33), 'A'.repeat(32)]
const depth = [...NUMBERLESS, 0, 65537]
const update = { buffer: 7, iova: 0, rkey: 1, generation: 1 }
const updates = [
  null,
  1,
  'x',
  {},
  [null],
  [[]],
  [1],
  Array.from({ length: UPDATES_MAX + 1 }, () => update),
]

/** What no field of that name may be. */
const bad: Record<string, readonly unknown[]> = {
  'hello.version': [null, 0, 2, '1', [1], true],
  'hello.nonce': hex,
  'hello.device': name,
  'hello.gid': hex,
  'hello.mtu': [...NUMBERLESS, 0, 128, 1023, 8192],
  'queue-error.message': text,
  'bye.message': text,
  'grant.label': name,
  'grant.access': [...NUMBERLESS, 0, 4],
  'pause.flush': [null, 0, 1, 'true', [], {}],
  'resume.updates': updates,
  'resume.more': [null, false, 1, 'true'],
  queue: uint32,
  buffer: uint32,
  rkey: uint32,
  qpn: uint24,
  psn: uint24,
  depth,
  n: count,
  posted: count,
  received: count,
  iova: count,
  size: positive,
  generation: positive,
}

/** What fields of that name may be at most and at least. */
const extremes: Record<string, readonly unknown[]> = {
  'bye.message': ['', 'x'.repeat(256), 'é “ 😀'],
  'grant.label': ['x', 'q0:a.b-c_9', 'x'.repeat(64)],
  'resume.updates': [[], Array.from({ length: UPDATES_MAX }, () => longest())],
  queue: [0, 0xffffffff],
  rkey: [0, 0xffffffff],
  qpn: [0, 0xffffff],
  depth: [1, 65536],
  posted: [0, MAX],
  iova: [0, MAX],
  generation: [1, MAX],
}

function longest() {
  return { buffer: 0xffffffff, iova: MAX, rkey: 0xffffffff, generation: MAX }
}

function thrown(act: () => unknown): P2pdmaError | null {
  try {
    act()
    return null
  } catch (error) {
    return error as P2pdmaError
  }
}

function refusal(line: string | Uint8Array, seq = 1): P2pdmaError | null {
  return thrown(() => decode(line, seq))
}

const types = Object.keys(samples) as (keyof typeof samples)[]

t.test('each message comes back as it went', async (t) => {
  t.strictSame([...messageTypes].sort(), [...types].sort(), 'there is a sample of each')
  for (const type of types) {
    const line = encode(samples[type], 9)
    t.ok(line.endsWith('\n') && !line.slice(0, -1).includes('\n'), 'one line')
    t.strictSame(decode(line.slice(0, -1), 9), samples[type], type)
    t.strictSame(decode(Buffer.from(line.slice(0, -1)), 9), samples[type], `${type} as bytes`)
  }
  t.strictSame(decode('{"seq":1,"type":"bye"}', 1), { type: 'bye' })
  const odd = decode('{"type":"credit","posted":-0,"queue":1e3,"seq":1}', 1)
  t.strictSame(odd, { type: 'credit', queue: 1000, posted: 0 })
  t.ok('posted' in odd && Object.is(odd.posted, 0), 'JSON has a -0')
})

t.test('each field at its ends', async (t) => {
  for (const type of types) {
    for (const field of Object.keys(samples[type])) {
      for (const value of extremes[`${type}.${field}`] ?? extremes[field] ?? []) {
        const message = { ...samples[type], [field]: value }
        const line = encode(message, 1)
        t.strictSame(decode(line.trimEnd(), 1), message)
        t.ok(line.length <= LINE_MAX)
      }
    }
  }
})

t.test('a field that is wrong, missing or unknown is refused by name', async (t) => {
  for (const type of types) {
    const sample: Record<string, unknown> = { seq: 1, ...samples[type] }
    const fields = Object.keys(samples[type]).filter((field) => field !== 'type')
    if (type === 'resume') fields.push('more')
    for (const field of fields) {
      const values = bad[`${type}.${field}`] ?? bad[field]
      if (values === undefined) throw new Error(`no bad values for ${type}.${field}`)
      for (const value of values) {
        const what = `${type}.${field} = ${JSON.stringify(value).slice(0, 40)}`
        const error = refusal(JSON.stringify({ ...sample, [field]: value }))
        t.equal(error?.code, 'ERR_PROTOCOL', what)
        t.match(error?.hint, `${type}.${field}`, `${what}: the hint names it`)
        // Texts are made fit where they leave; what is no text is not.
        if (field === 'message' && typeof value === 'string') continue
        const ours = thrown(() => encode({ ...samples[type], [field]: value }, 1))
        t.equal(ours?.code, 'ERR_INVALID_ARG_VALUE', `${what} is not sent`)
        t.ok(ours?.argument?.startsWith(`${type}.${field}`), `${what}: named`)
      }
      if (field === 'more' || `${type}.${field}` === 'bye.message') continue
      const { [field]: _, ...without } = sample
      const error = refusal(JSON.stringify(without))
      t.equal(error?.code, 'ERR_PROTOCOL', `without ${type}.${field}`)
      t.match(error?.hint, `${type}.${field}`)
    }
    for (const unknown of ['extra', '__proto__', 'constructor', 'more\u001b[2J']) {
      const line = JSON.stringify(sample).replace(/\}$/, `,${JSON.stringify(unknown)}:1}`)
      const error = refusal(line)
      t.equal(error?.code, 'ERR_PROTOCOL', `${type} with ${JSON.stringify(unknown)}`)
      t.notMatch(`${error?.message} ${error?.hint}`, '\u001b')
    }
  }
})

t.test('a part of an update is refused by name', async (t) => {
  for (const field of ['buffer', 'iova', 'rkey', 'generation'] as const) {
    for (const value of bad[field] ?? []) {
      const list = [update, { ...update, [field]: value }]
      const error = refusal(JSON.stringify({ seq: 1, ...samples.resume, updates: list }))
      t.equal(error?.code, 'ERR_PROTOCOL')
      t.match(error?.hint, `resume.updates[1].${field}`)
    }
    const { [field]: _, ...without } = update
    const error = refusal(JSON.stringify({ seq: 1, ...samples.resume, updates: [without] }))
    t.match(error, { code: 'ERR_PROTOCOL', argument: `resume.updates[0].${field}` })
  }
  const list = [{ ...update, extra: 1 }]
  t.match(refusal(JSON.stringify({ seq: 1, ...samples.resume, updates: list })), {
    code: 'ERR_PROTOCOL',
    argument: 'resume.updates[0].extra',
  })
})

t.test('a line that is no message', async (t) => {
  const lines = ['', ' ', 'x', 'null', '1', '[]', '"hello"', '{', '{"seq":1', '{}', '{"seq":1}']
  const deep = '['.repeat(LINE_MAX)
  const types = ['1', 'null', '"Hello"', '"toString"', '"__proto__"', '["bye"]']
  for (const type of types) lines.push(`{"seq":1,"type":${type}}`)
  for (const line of [...lines, deep, `\ufeff{"seq":1,"type":"bye"}`]) {
    t.equal(refusal(line)?.code, 'ERR_PROTOCOL', JSON.stringify(line.slice(0, 40)))
    t.equal(refusal(Buffer.from(line))?.code, 'ERR_PROTOCOL')
  }
  t.match(refusal('{"seq":1,"type":"\u202enope"}')?.message, "unknown type '?'")
  const latin = Buffer.from('{"seq":1,"type":"bye","message":"\xe9"}', 'latin1')
  t.equal(refusal(latin)?.code, 'ERR_PROTOCOL', 'not UTF-8')
  const bye = '{"seq":1,"type":"bye"}'
  t.equal(refusal(bye.padEnd(LINE_MAX)), null, 'the longest line')
  t.equal(refusal(bye.padEnd(LINE_MAX + 1))?.code, 'ERR_PROTOCOL', 'one byte longer')
})

t.test('the number must be the next', async (t) => {
  for (const seq of [0, 1, 3, -2, 2.5, '2', null, [2], true]) {
    const error = refusal(JSON.stringify({ ...samples.bye, seq }), 2)
    t.equal(error?.code, 'ERR_PROTOCOL', String(seq))
    t.match(error?.hint, 'seq')
  }
  t.equal(refusal(JSON.stringify({ ...samples.bye, seq: 2 }), 2), null)
})

t.test('texts are made fit where they leave', async (t) => {
  const texts = ['a\nb', '\u001b[2Jx', '\ud800', 'x'.repeat(1000), '😀'.repeat(300), '\u202ex']
  for (const message of texts) {
    const line = encode({ type: 'bye', message }, 1).trimEnd()
    t.strictSame(decode(line, 1), { type: 'bye', message: toText(message) })
  }
  t.equal(toText('no\r\nsuch device'), 'no such device')
  t.equal(toText('x'.repeat(256)), 'x'.repeat(256))
})

t.test('what is no message is not sent', async (t) => {
  for (const type of ['nope', '__proto__', 'toString', undefined]) {
    const error = thrown(() => encode({ type } as unknown as Message, 1))
    t.equal(error?.code, 'ERR_INVALID_ARG_VALUE', String(type))
  }
  t.equal(
    thrown(() => encode({ ...samples.credit, extra: 1 } as Message, 1))?.argument,
    'credit.extra',
  )
})

/**
 * A right conversation with one thing changed in it, drawn by fast-check: what
 * is refused is not delivered, nor is anything behind it, and nothing breaks.
 */
import fc from 'fast-check'
import t from 'tap'
import type { QueueMessage } from '../../lib/engines/verbs/link/messages.js'
import { decode, encode } from '../../lib/engines/verbs/link/messages.js'
import { openToRaw, samples, settle } from './verbs-link-help.js'

const { queue, grant, ungrant, pause, resume, credit, reset } = samples
const second = { ...queue, queue: 2 }

/** What an opener says whose queue is accepted as soon as it has asked. */
const script: QueueMessage[] = [
  queue,
  credit,
  grant,
  { ...grant, buffer: 8, label: 'source' },
  pause,
  resume,
  { ...credit, posted: 20 },
  reset,
  second,
  { ...pause, n: 2, posted: 21, flush: false },
  { ...resume, n: 2, updates: [{ buffer: 8, iova: 5, rkey: 6, generation: 7 }] },
  { ...ungrant, buffer: 8 },
  samples['queue-error'],
]
const lines = script.map((message, index) => encode(message, index + 2).trimEnd())

async function hear(bytes: Uint8Array) {
  const { link, raw, delivered, closes } = await openToRaw('accepter')
  link.onMessage = (message) => {
    delivered.push(message)
    // In the same turn: the next line is right already.
    if (message.type === 'queue' && message.queue === 0) link.send(samples['queue-ok'])
  }
  raw.write(bytes)
  await settle()
  const last = raw.heard.at(-1)
  raw.stream.destroy()
  await link.close()
  await settle()
  return { delivered, closes, last }
}

function text(all: readonly string[]): Buffer {
  return Buffer.from(all.map((line) => `${line}\n`).join(''))
}

const index = fc.nat(lines.length - 1)

function at(all: readonly string[], where: number): string {
  return all[where] ?? ''
}

/** Changes that leave nothing right from `at` on, whatever they are. */
const fatal = fc.oneof(
  fc.record({ how: fc.constant('drop' as const), at: fc.nat(lines.length - 2) }),
  fc.record({ how: fc.constant('repeat' as const), at: index }),
  fc.record({ how: fc.constant('swap' as const), at: fc.nat(lines.length - 2) }),
  fc.record({ how: fc.constant('cut' as const), at: index, keep: fc.nat() }),
  fc.record({ how: fc.constant('unknown' as const), at: index, field: fc.string() }),
  fc.record({ how: fc.constant('without' as const), at: index, keep: fc.nat() }),
  fc.record({ how: fc.constant('insert' as const), at: index, junk: fc.json() }),
  fc.record({ how: fc.constant('number' as const), at: index, seq: fc.jsonValue() }),
  fc.record({ how: fc.constant('control' as const), at: index, keep: fc.nat(), byte: fc.nat(31) }),
  fc.record({ how: fc.constant('high' as const), at: index, keep: fc.nat() }),
)
type Fatal = typeof fatal extends fc.Arbitrary<infer T> ? T : never

function apply(change: Fatal): Buffer {
  const line = at(lines, change.at)
  const object = JSON.parse(line) as Record<string, unknown>
  const before = lines.slice(0, change.at)
  const after = lines.slice(change.at + 1)
  switch (change.how) {
    case 'drop':
      return text([...before, ...after])
    case 'repeat':
      return text([...before, line, line, ...after])
    case 'swap':
      return text([...before, at(after, 0), line, ...after.slice(1)])
    case 'cut':
      return text([...before, line.slice(0, change.keep % line.length), ...after])
    case 'unknown': {
      const field = Object.hasOwn(object, change.field) ? `${change.field}?` : change.field
      // Not a fresh `more`, which a resume may have.
      const given = JSON.stringify(field === 'more' ? 'mores' : field)
      return text([...before, `${line.slice(0, -1)},${given}:1}`, ...after])
    }
    case 'without': {
      const fields = Object.keys(object)
      const left = fields.filter((_, at) => at !== change.keep % fields.length)
      const rest = Object.fromEntries(left.map((field) => [field, object[field]]))
      return text([...before, JSON.stringify(rest), ...after])
    }
    case 'insert':
      return text([...before, change.junk, line, ...after])
    case 'number': {
      const seq = change.seq === object['seq'] ? -1 : change.seq
      return text([...before, JSON.stringify({ ...object, seq }), ...after])
    }
    case 'control':
    case 'high': {
      const where = change.keep % line.length
      // Tab, newline, return and space may stand between a line's parts.
      const byte =
        change.how === 'high' ? 0xff : [9, 10, 13].includes(change.byte) ? 0 : change.byte
      const broken = Buffer.from(line)
      broken[where] = byte
      return Buffer.concat([text(before), broken, Buffer.from('\n'), text(after)])
    }
  }
}

t.test('as it is, all of it is delivered', async (t) => {
  const { delivered, closes } = await hear(text(lines))
  t.strictSame(delivered, script)
  t.strictSame(closes, [null])
})

t.test('one change, and it ends there', async (t) => {
  await fc.assert(
    fc.asyncProperty(fatal, async (change) => {
      const { delivered, closes, last } = await hear(apply(change))
      const right = change.how === 'repeat' ? change.at + 1 : change.at
      const same = JSON.stringify(delivered) === JSON.stringify(script.slice(0, right))
      const refused = (closes[0] as { code?: string } | null)?.code === 'ERR_PROTOCOL'
      return same && refused && closes.length === 1 && last?.['type'] === 'bye'
    }),
    { numRuns: 400 },
  )
  t.pass()
})

/** Any bytes may make another right message; then it is what a decoder of one line says. */
t.test('any bytes anywhere', async (t) => {
  const whole = text(lines)
  const splice = fc.record({
    from: fc.nat(whole.length),
    drop: fc.nat(40),
    put: fc.oneof(
      fc.uint8Array({ maxLength: 40 }),
      fc.string({ maxLength: 20, unit: fc.constantFrom(...'0123456789-.e"{}[]:,\n') }),
    ),
  })
  await fc.assert(
    fc.asyncProperty(splice, async ({ from, drop, put }) => {
      const bytes = Buffer.concat([
        whole.subarray(0, from),
        Buffer.from(put as string),
        whole.subarray(from + drop),
      ])
      const { delivered, closes } = await hear(bytes)
      let seq = 1
      const read: QueueMessage[] = []
      for (const line of bytes.toString('latin1').split('\n').slice(0, delivered.length)) {
        read.push(decode(Buffer.from(line, 'latin1'), ++seq) as QueueMessage)
      }
      return closes.length === 1 && JSON.stringify(delivered) === JSON.stringify(read)
    }),
    { numRuns: 400 },
  )
  t.pass()
})

/** Rows into descriptors and back: a ring in a memfd, on which the test plays the device. */
import { MappingState } from '../../lib/abi.js'
import t from 'tap'
import { rowError } from '../../lib/engines/queue/row-error.js'
import { receiveForm } from '../../lib/engines/vfio/e1000e/rx-queue.js'
import { sendForm } from '../../lib/engines/vfio/e1000e/tx-queue.js'
import { MappingTable } from '../../lib/engines/vfio/mapping-table.js'
import { type DescriptorForm, RingSlots } from '../../lib/engines/vfio/ring-slots.js'
import { Memfd } from '../../lib/kernel/index.js'
import { Registers } from '../../lib/kernel/vfio/registers.js'
import { Batch, Completions, Op, Status } from '../../lib/move-notify/importer/batch.js'
import { Access } from '../../lib/move-notify/importer/engine.js'

const ENTRIES = 8
const IOVA = 2 ** 33 + 4096
const ID = 5
const TAIL = 0x18

function open(op: number, form: DescriptorForm, entries = ENTRIES) {
  const memory = Memfd.create(4096).map()
  const mapping = Memfd.create(4096).map()
  const registers = new Registers(mapping)
  const table = new MappingTable()
  const place = table.claim(ID)
  table.reserved[place] = 65_536
  table.sizes[place] = 65_536
  table.iovas[place] = IOVA
  table.access[place] = Access.READ | Access.WRITE
  table.states[place] = MappingState.OPEN
  const use = { queue: 'q', operations: [{ op, minLength: 17, maxLength: 4096, alignment: 1 }] }
  const slots = new RingSlots(use, { memory, entries, form, registers, tail: TAIL }, table)
  const words = new Uint32Array(memory.view())
  return { slots, words, registers, table, memory, mapping, place }
}

function rows(op: number, count: number): Batch {
  const batch = new Batch(16)
  for (let i = 0; i < count; i++) {
    batch.op[i] = op
    batch.source[i] = batch.target[i] = ID
    batch.sourceOffset[i] = batch.targetOffset[i] = i * 4096
    batch.length[i] = 1000 + i
    batch.cookie[i] = 2 ** 40 + i
  }
  return batch
}

const ALL = 1 << 16

/** As its channel does (lib/engines/queue/channel.ts). */
function post(
  slots: RingSlots,
  batch: Batch,
  first: number,
  count: number,
  room: number,
  tell: boolean,
) {
  slots.columns.useBatch(batch)
  const accepted = slots.post(first, count, room, tell)
  if (slots.defect === 0) return accepted
  throw rowError(slots.rules, batch, slots.defect, first, accepted)
}

function reap(slots: RingSlots, out: Completions): number {
  slots.columns.useCompletions(out)
  return slots.reap()
}

function thrown(call: () => unknown): unknown {
  try {
    call()
  } catch (error) {
    return error
  }
  return null
}

t.test('sends: one descriptor reports for its batch', async (t) => {
  const { slots, words, registers } = open(Op.SEND, sendForm)
  const batch = rows(Op.SEND, 5)
  t.equal(post(slots, batch, 0, 3, ALL, true), 3)
  t.equal(registers.read32(TAIL), 3)
  t.same(
    [...words.subarray(0, 12)],
    [
      ...[0x1000, 2, 0x0300_0000 | 1000, 0],
      ...[0x2000, 2, 0x0300_0000 | 1001, 0],
      ...[0x3000, 2, 0x0b00_0000 | 1002, 0],
    ],
  )
  t.equal(post(slots, batch, 3, 2, ALL, false), 2)
  t.equal(registers.read32(TAIL), 3, 'not told')
  const out = new Completions(2)
  words[3] = 1
  t.equal(reap(slots, out), 0, 'one that does not report')
  words[2 * 4 + 3] = 1
  t.equal(slots.done, 3)
  t.equal(reap(slots, out), 2, 'as many as there is room for')
  t.same([...out.cookie], [2 ** 40, 2 ** 40 + 1])
  t.same([...out.result], [1000, 1001])
  t.same([...out.status], [Status.OK, Status.OK])
  t.equal(reap(slots, out), 1, 'the rest')
  words[4 * 4 + 3] = 1
  t.equal(reap(slots, out), 2)
  t.same([slots.head, slots.pending], [5, 0])
})

t.test('receives: each reports for itself, round the end, and says what went wrong', async (t) => {
  const { slots, words } = open(Op.RECEIVE, receiveForm)
  const batch = rows(Op.RECEIVE, 7)
  const out = new Completions(16)
  for (let round = 0; round < 5; round++) {
    const { head } = slots
    t.equal(post(slots, batch, 0, 7, ALL, true), 7)
    t.equal(post(slots, batch, 0, 1, ALL, true), 0, 'one slot stays empty')
    const at = (i: number) => slots.slot(i) * 4
    words[at(1) + 3] = 3
    t.equal(reap(slots, out), 0, 'in order')
    words[at(0) + 2] = 60
    words[at(0) + 3] = 3
    words[at(2) + 3] = 0x0103
    t.equal(reap(slots, out), 3)
    t.equal(slots.wrong, 1)
    t.same([...out.status.subarray(0, 3)], [Status.OK, Status.OK, Status.DEVICE_ERROR])
    t.same([...out.result.subarray(0, 3)], [60, 0, 0x0103])
    for (let i = 0; i < 4; i++) words[at(i) + 3] = 3
    t.equal(reap(slots, out), 4)
    t.equal(slots.head, (head + 7) % ENTRIES)
  }
})

t.test('a row that is malformed, or has to wait, is not posted', async (t) => {
  const { slots, table, place } = open(Op.SEND, sendForm)
  const tries: [string, (batch: Batch) => void][] = [
    ['batch.op[1]', (b) => (b.op[1] = Op.RECEIVE)],
    ['batch.length[1]', (b) => (b.length[1] = NaN)],
    ['batch.length[1]', (b) => (b.length[1] = 16)],
    ['batch.length[1]', (b) => (b.length[1] = 4097)],
    ['batch.length[1]', (b) => (b.length[1] = 1000.5)],
    ['batch.sourceOffset[1]', (b) => (b.sourceOffset[1] = -1)],
    ['batch.sourceOffset[1]', (b) => (b.sourceOffset[1] = 0.5)],
    ['batch.sourceOffset[1]', (b) => (b.sourceOffset[1] = 65_536 - 1000)],
    ['batch.sourceOffset[1]', (b) => (b.sourceOffset[1] = 2 ** 53)],
    ['batch.sourceOffset[1]', (b) => (b.sourceOffset[1] = Infinity)],
  ]
  let posted = 0
  for (const [argument, spoil] of tries) {
    if (posted === 6) {
      slots.drop(6)
      posted = 0
    }
    const batch = rows(Op.SEND, 3)
    spoil(batch)
    t.match(
      thrown(() => post(slots, batch, 0, 3, ALL, false)),
      { argument, accepted: 1 },
      argument,
    )
    t.equal(slots.pending, ++posted)
  }
  slots.drop(posted)
  const batch = rows(Op.SEND, 3)
  batch.sourceOffset[0] = -0
  t.equal(post(slots, batch, 0, 1, ALL, false), 1, 'minus zero is zero')
  batch.source[1] = ID + 1
  t.equal(post(slots, batch, 0, 3, ALL, false), 1, 'unknown')
  table.states[place] = MappingState.SEALED
  t.equal(post(slots, batch, 0, 1, ALL, false), 0, 'sealed')
  table.states[place] = MappingState.OPEN
  table.access[place] = Access.WRITE
  const refused = thrown(() => post(slots, batch, 0, 1, ALL, false))
  t.match(refused, { argument: 'batch.source[0]', accepted: 0 })
  t.equal(slots.pending, 2)
})

t.test('refilled from slot 0, where mappings are now', async (t) => {
  const { slots, words, table, place } = open(Op.SEND, sendForm)
  const batch = rows(Op.SEND, 6)
  post(slots, batch, 0, 6, ALL, true)
  slots.drop(5)
  post(slots, batch, 1, 4, ALL, true)
  t.equal(slots.head, 5)
  words.fill(0)
  table.iovas[place] = IOVA + 2 ** 32
  slots.rewind()
  slots.refill()
  t.same([slots.head, slots.pending, slots.tail], [0, 5, 5])
  t.same(
    Array.from({ length: 5 }, (_, i) => words[i * 4]),
    [0x6000, 0x2000, 0x3000, 0x4000, 0x5000],
  )
  t.ok(words.subarray(0, 20).every((word, i) => i % 4 !== 1 || word === 3))
  words[4 * 4 + 3] = 1
  t.equal(slots.done, 5, 'reported by the last one')
})

t.test('a table that has grown', async (t) => {
  const { slots, table } = open(Op.SEND, sendForm)
  const place = table.claim(1000)
  table.reserved[place] = table.sizes[place] = 4096
  table.access[place] = Access.READ
  table.states[place] = MappingState.OPEN
  const batch = rows(Op.SEND, 2)
  batch.source[1] = 1000
  batch.sourceOffset[1] = 0
  t.equal(post(slots, batch, 0, 2, ALL, true), 2)
})

t.test('memory that has gone is not touched', async (t) => {
  const { slots, memory, mapping } = open(Op.SEND, sendForm)
  const batch = rows(Op.SEND, 4)
  mapping.unmap()
  t.equal(post(slots, batch, 0, 1, ALL, true), 1, 'without the register')
  memory.unmap()
  t.equal(post(slots, batch, 1, 1, ALL, true), 0)
  t.equal(reap(slots, new Completions(4)), 0)
  t.equal(slots.done, 0)
  slots.refill()
  slots.close()
  slots.close()
  t.equal(post(slots, batch, 0, 1, ALL, true), 0)
  t.equal(reap(slots, new Completions(4)), 0)
})

t.test('forms that cannot be', async (t) => {
  const forms: Partial<DescriptorForm>[] = [
    { words: new Uint32Array(0) },
    { words: new Uint32Array(3) },
    { words: new Uint32Array(32) },
    { addressWord: 1 },
    { addressWord: 4 },
    { lengthWord: 4 },
    { lastWord: 4 },
    { doneWord: -1 },
    { resultWord: 2.5 },
    { doneMask: 2 ** 32 },
  ]
  for (const form of forms) {
    const code = 'ERR_OUT_OF_RANGE'
    t.throws(() => open(Op.SEND, { ...sendForm, ...form }), { code }, JSON.stringify(form))
  }
  t.throws(() => open(Op.SEND, sendForm, 6), { code: 'ERR_OUT_OF_RANGE', argument: 'entries' })
  t.throws(() => open(Op.SEND, sendForm, 512), { code: 'ERR_OUT_OF_RANGE', argument: 'entries' })
})

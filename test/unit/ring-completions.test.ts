/**
 * Completions in a ring of their own, in any order: rings in memfds, on which the test plays the
 * device, NVMe's forms among them.
 */
import { MappingState, Stage } from '../../lib/abi.js'
import t from 'tap'
import { rowError } from '../../lib/engines/queue/row-error.js'
import { MappingTable } from '../../lib/engines/vfio/mapping-table.js'
import {
  type CompletionForm,
  type DescriptorForm,
  type RingMemory,
  RingSlots,
} from '../../lib/engines/vfio/ring-slots.js'
import { Memfd } from '../../lib/kernel/index.js'
import { Registers } from '../../lib/kernel/vfio/registers.js'
import { Batch, Completions, Op, Status } from '../../lib/move-notify/importer/batch.js'
import { Access } from '../../lib/move-notify/importer/engine.js'

const ENTRIES = 8
const BLOCK = 512
const PAGE = 4096
const IOVA = 2 ** 33 + 64 * PAGE
const [OURS, OTHER, STORAGE] = [5, 6, 7]
const [TAIL, HEAD] = [0x18, 0x1c]
const [WRITE, READ] = [1, 2]

/** As NVMe has them. */
const form: DescriptorForm = {
  words: Uint32Array.of(0, 1, ...new Array<number>(14).fill(0)),
  operationWord: 0,
  idWord: 0,
  idShift: 16,
  addressWord: 6,
  secondPageWord: 8,
  pageBytes: PAGE,
  storageWord: 10,
  lengthWord: 12,
  lengthLess: 1,
  blockBytes: BLOCK,
}
const completionForm: CompletionForm = {
  words: 4,
  phaseWord: 3,
  phaseMask: 1 << 16,
  idWord: 3,
  idMask: 0xffff,
  idShift: 0,
  goodWord: 3,
  goodMask: 0xfffe_0000,
  goodValue: 0,
}
const granularity = { minLength: BLOCK, maxLength: PAGE, alignment: BLOCK }
const operations = [
  { op: Op.COPY, storage: 'target', code: WRITE, ...granularity },
  { op: Op.COPY, storage: 'source', code: READ, ...granularity },
] as const

/** What the test can make otherwise. */
interface Change {
  entries?: number
  completions?: number
  form?: Partial<CompletionForm>
  head?: number
  operations?: readonly object[]
}

class Device {
  readonly table = new MappingTable()
  readonly memory = Memfd.create(PAGE).map()
  readonly completions = Memfd.create(PAGE).map()
  readonly registers = new Registers(Memfd.create(PAGE).map())
  readonly slots: RingSlots
  readonly words = new Uint32Array(this.memory.view())
  readonly entries = new Uint32Array(this.completions.view())
  readonly out = new Completions(16)
  #at = 0
  #phase = 1

  constructor(change: Change = {}) {
    const { table } = this
    for (const id of [OURS, OTHER]) {
      const place = table.claim(id)
      table.reserved[place] = table.sizes[place] = 65_536
      table.iovas[place] = IOVA + (id - OURS) * 2 ** 20
      table.access[place] = Access.READ | Access.WRITE
      table.states[place] = MappingState.OPEN
    }
    table.addStorage(STORAGE, 2 ** 40, Access.READ | Access.WRITE)
    const ring: RingMemory = {
      memory: this.memory,
      entries: change.entries ?? ENTRIES,
      form,
      registers: this.registers,
      tail: TAIL,
      completions: {
        memory: this.completions,
        entries: change.completions ?? ENTRIES,
        form: { ...completionForm, ...change.form },
        head: change.head ?? HEAD,
      },
    }
    const use = { queue: 'io', operations: (change.operations ?? operations) as typeof operations }
    this.slots = new RingSlots(use, ring, table)
  }

  /** As its channel does (lib/engines/queue/channel.ts). */
  post(batch: Batch, count: number): number {
    const { slots } = this
    slots.columns.useBatch(batch)
    const accepted = slots.post(0, count, ENTRIES, true)
    if (slots.defect === 0) return accepted
    throw rowError(slots.rules, batch, slots.defect, 0, accepted)
  }

  /** The device ends the command in a slot, or says that it does. */
  end(id: number, status = 0): void {
    this.entries[this.#at * 4 + 3] = ((status << 17) | (this.#phase << 16) | id) >>> 0
    if (++this.#at < ENTRIES) return
    this.#at = 0
    this.#phase ^= 1
  }

  reap(): number[] {
    this.slots.columns.useCompletions(this.out)
    return [...this.out.cookie.subarray(0, this.slots.reap())]
  }

  /** The ring is set up anew. */
  rewind(): void {
    this.entries.fill(0)
    this.#at = 0
    this.#phase = 1
    this.slots.rewind()
  }
}

function copies(count: number, cookie = 100): Batch {
  const batch = new Batch(16)
  for (let i = 0; i < count; i++) {
    batch.op[i] = Op.COPY
    batch.source[i] = OURS
    batch.sourceOffset[i] = i * PAGE
    batch.target[i] = STORAGE
    batch.targetOffset[i] = 2 ** 35 + i * PAGE
    batch.length[i] = PAGE
    batch.cookie[i] = cookie + i
  }
  return batch
}

t.test('a command has its id, two pages, blocks, and the code of its direction', async (t) => {
  const device = new Device()
  const batch = copies(4)
  // Across a page's end; out of the storage; up to a page's end.
  batch.sourceOffset[1] = PAGE + 3584
  batch.length[1] = 1024
  batch.source[2] = STORAGE
  batch.sourceOffset[2] = 3 * BLOCK
  batch.target[2] = OTHER
  batch.targetOffset[2] = BLOCK
  batch.length[2] = 512
  batch.sourceOffset[3] = PAGE - BLOCK
  batch.length[3] = BLOCK
  t.equal(device.post(batch, 4), 4)
  t.equal(device.registers.read32(TAIL), 4)
  const [low, high] = [IOVA % 2 ** 32, 2]
  const command = (i: number) => [...device.words.subarray(i * 16, i * 16 + 16)]
  const blocks = (offset: number) => [(offset / BLOCK) % 2 ** 32, 0]
  const zeros = [0, 0, 0]
  t.same(command(0), [
    ...[(0 << 16) | WRITE, 1, 0, 0, 0, 0, low, high, 0, 0],
    ...[...blocks(2 ** 35), 7, ...zeros],
  ])
  t.same(command(1), [
    ...[(1 << 16) | WRITE, 1, 0, 0, 0, 0, low + PAGE + 3584, high, low + 2 * PAGE, high],
    ...[...blocks(2 ** 35 + PAGE), 1, ...zeros],
  ])
  t.same(command(2), [
    ...[(2 << 16) | READ, 1, 0, 0, 0, 0, low + 2 ** 20 + BLOCK, high, 0, 0],
    ...[3, 0, 0, ...zeros],
  ])
  t.same(command(3).slice(6, 10), [low + PAGE - BLOCK, high, 0, 0], 'no second page')
})

t.test('they end in any order, round the end, each once', async (t) => {
  const device = new Device()
  const { slots } = device
  for (let round = 0; round < 9; round++) {
    const base = slots.head
    t.equal(device.post(copies(5), 5), 5)
    const at = (i: number) => (base + i) % ENTRIES
    for (const i of [3, 1]) device.end(at(i))
    t.equal(slots.done, 2)
    t.equal(slots.isIdle, false)
    t.same(device.reap(), [103, 101], 'as the device says')
    t.same([...device.out.result.subarray(0, 2)], [PAGE, PAGE])
    t.equal(device.registers.read32(HEAD), (round * 5 + 2) % ENTRIES, 'the device has room again')
    t.equal(slots.pending, 5, 'all keep their places behind the oldest')
    t.ok(slots.isUsed(OURS))
    for (const i of [0, 2]) device.end(at(i), i === 2 ? 0x281 : 0)
    t.same(device.reap(), [100, 102])
    t.same([...device.out.status.subarray(0, 2)], [Status.OK, Status.DEVICE_ERROR])
    t.equal((device.out.result[1] ?? 0) >>> 17, 0x281)
    t.equal(slots.wrong, 1)
    t.same([slots.pending, slots.isIdle], [1, false], 'past those that have ended')
    device.end(at(4))
    t.equal(slots.isIdle, true, 'before it has been reaped')
    t.same(device.reap(), [104])
    t.same([slots.pending, slots.isUsed(OURS)], [0, false])
  }
  t.equal(slots.unmatched, 0)
})

t.test('what names nothing that the device has is dropped, and counted', async (t) => {
  const device = new Device()
  const { slots } = device
  device.end(0)
  t.same(device.reap(), [])
  t.equal(device.post(copies(3), 3), 3)
  // Never posted; beyond the ring; twice, before and after it was reaped.
  for (const id of [3, 7, ENTRIES, 0xffff, 1, 1]) device.end(id)
  t.same(device.reap(), [101])
  device.end(1)
  device.end(0)
  t.same(device.reap(), [100])
  t.equal(slots.pending, 1)
  t.equal(slots.unmatched, 7, 'the first one came before anything was posted')
  device.end(2)
  t.same(device.reap(), [102])
  // A device that has gone mad writes all of its ring, again and again.
  device.entries.fill(0xffff_ffff)
  t.same(device.reap(), [])
  device.entries.fill(0)
  t.same(device.reap(), [])
  t.ok(slots.unmatched <= 7 + 2 * ENTRIES)
})

t.test('after a reset what has been reaped is not done again, the rest is', async (t) => {
  const device = new Device()
  const { slots } = device
  t.equal(device.post(copies(5), 5), 5)
  device.end(1)
  device.end(3)
  t.same(device.reap(), [101, 103])
  // As RingBackend does.
  device.rewind()
  let kept = 0
  for (let i = 0; i < slots.pending; i++) {
    if (!slots.rows.isReaped(slots.slot(i))) slots.rows.move(slots.slot(i), slots.slot(kept++))
  }
  slots.pending = kept
  device.words.fill(0)
  slots.refill()
  t.same([slots.head, slots.pending, slots.done, slots.isIdle], [0, 3, 0, false])
  t.same(
    [0, 1, 2].map((i) => [device.words[i * 16], device.words[i * 16 + 6]]),
    [0, 2, 4].map((row, i) => [(i << 16) | WRITE, (IOVA % 2 ** 32) + row * PAGE]),
    'ids and addresses are their new ones',
  )
  t.same([...slots.rows.stages.subarray(0, 3)], [Stage.HANDED, Stage.HANDED, Stage.HANDED])
  for (const id of [2, 0, 1]) device.end(id)
  t.same(device.reap(), [104, 100, 102])
  t.equal(slots.pending, 0)
})

t.test('a device that is being reset is told nothing', async (t) => {
  const device = new Device()
  device.post(copies(2), 2)
  device.end(1)
  device.slots.tells = false
  t.equal(device.slots.done, 1)
  t.same(device.reap(), [101])
  t.equal(device.registers.read32(HEAD), 0)
})

t.test('what is no copy between storage and memory, or not in its units', async (t) => {
  const tries: [string, string, (batch: Batch) => void][] = [
    ['batch.target[1]', 'storage', (b) => (b.targetOffset[1] = (b.target[1] = OTHER) * 0)],
    ['batch.target[1]', 'storage', (b) => (b.source[1] = STORAGE)],
    ['batch.op[1]', 'copies', (b) => (b.op[1] = Op.SEND)],
    ['batch.length[1]', 'from 512 to 4096', (b) => (b.length[1] = 2 * PAGE)],
    ['batch.length[1]', 'from 512 to 4096', (b) => (b.length[1] = 0)],
    ['batch.length[1]', 'multiple of 512', (b) => (b.length[1] = 600)],
    ['batch.sourceOffset[1]', 'multiple of 512', (b) => (b.sourceOffset[1] = 256)],
    ['batch.targetOffset[1]', 'multiple of 512', (b) => (b.targetOffset[1] = 8)],
    ['batch.targetOffset[1]', 'of the 1099511627776', (b) => (b.targetOffset[1] = 2 ** 40)],
    ['batch.sourceOffset[1]', 'of the 65536', (b) => (b.sourceOffset[1] = 65_536)],
  ]
  for (const [argument, says, spoil] of tries) {
    const device = new Device()
    const batch = copies(3)
    spoil(batch)
    t.throws(() => device.post(batch, 3), { argument, accepted: 1, message: says }, argument)
    t.equal(device.slots.pending, 1)
  }
  const device = new Device()
  device.table.dropStorage(STORAGE)
  t.equal(device.post(copies(1), 1), 0, 'closed')
})

t.test('forms that cannot be', async (t) => {
  const [write] = operations
  const changes: Change[] = [
    { completions: ENTRIES / 2 },
    { completions: 2 ** 20 },
    { completions: 512 },
    { head: 0x1e },
    { head: PAGE },
    { form: { words: 3 } },
    { form: { words: 32 } },
    { form: { phaseMask: 0 } },
    { form: { phaseMask: 3 } },
    { form: { phaseWord: 4 } },
    { form: { idWord: 4 } },
    { form: { goodWord: 4 } },
    { form: { idShift: 32 } },
    { operations: [] },
    { operations: [{ ...write, op: Op.FILL }] },
    { operations: [{ ...write, op: Op.SEND }] },
    { operations: [{ op: Op.COPY, ...granularity }] },
    { operations: [{ ...write, alignment: 3 }] },
  ]
  for (const change of changes) {
    const what = JSON.stringify(change)
    t.throws(() => new Device(change), { code: 'ERR_OUT_OF_RANGE' }, what)
  }
})

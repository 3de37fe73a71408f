/** What `Engine` and `EngineChannel` promise, one check for each promise. */
import type { P2pdmaError } from '../errors.js'
import type { Backing } from '../move-notify/exporter/backing.js'
import { MovableBuffer } from '../move-notify/exporter/movable-buffer.js'
import { Op, Status } from '../move-notify/importer/batch.js'
import { Access, type EngineCapabilities } from '../move-notify/importer/engine.js'
import { Importer } from '../move-notify/importer/importer.js'
import { type ConformanceCheck, errorOf, holds } from './check.js'
import {
  Bench,
  BENCH_DEPTH,
  ID,
  type OpenEngine,
  OTHER_ID,
  SIZE,
  UNKNOWN_ID,
} from './engine-bench.js'

type Look = (bench: Bench) => Promise<void>

/** The checks of an engine. `open` opens it anew for each of them, and is asked to close it. */
export function engineChecks(open: OpenEngine): ConformanceCheck[] {
  return Object.entries(looks).map(([name, look]) => ({
    name,
    run: async () => {
      await using bench = await Bench.open(open)
      await look(bench)
    },
  }))
}

const looks: Readonly<Record<string, Look>> = {
  'it says what it can do, and says the same again': async ({ engine }) => {
    const { capabilities, name } = engine
    holds(typeof name === 'string' && name !== '', 'it has no name')
    checkCapabilities(capabilities)
    const again = JSON.stringify(engine.capabilities)
    holds(again === JSON.stringify(capabilities), `it says ${again} the next time`)
    await Promise.resolve()
  },

  'canMap() and map() agree': async (bench) => {
    const { engine } = bench
    const memory = await bench.allocate()
    const refusal = engine.capabilities.canMap?.(memory, Access.READ) ?? null
    holds(refusal === null, `it refuses the memory that it is to be tried with: ${refusal}`)
    await bench.map(ID, memory)
    const nowhere = unreachable(memory)
    if ((engine.capabilities.canMap?.(nowhere, Access.READ) ?? null) === null) return
    const map = () => engine.map(OTHER_ID, nowhere, SIZE, Access.READ)
    const { code } = await errorOf('memory that it cannot map', map)
    holds(code === 'ERR_UNSUPPORTED', `memory that it cannot map is ${code}`)
  },

  'work on an attachment waits until it is unsealed': async (bench) => {
    const { engine } = bench
    await bench.map(ID)
    holds(bench.post(ID, 1) === 0, 'a sealed attachment takes work after map()')
    engine.unseal(ID)
    holds(bench.post(ID, 1) === 1, 'an open attachment takes no work')
    await bench.take(1)
    engine.seal(ID)
    holds(bench.post(ID, 1) === 0, 'a sealed attachment takes work')
    engine.unseal(ID)
    await engine.unmap(ID)
    holds(bench.post(ID, 1) === 0, 'what is not mapped takes work')
    await bench.mapOpen(ID)
    holds(bench.post(ID, 1) === 1, 'mapped again it takes no work')
    await bench.take(1)
  },

  'what it does not know it leaves alone': async ({ engine }) => {
    engine.seal(UNKNOWN_ID)
    engine.unseal(UNKNOWN_ID)
    await engine.unmap(UNKNOWN_ID)
    await engine.unmap(UNKNOWN_ID)
    engine.release?.(UNKNOWN_ID)
  },

  'each operation completes once, under its cookie': async (bench) => {
    await bench.mapOpen(ID)
    const seen = new Set<number>()
    for (let round = 0; round < 4; round++) {
      const accepted = bench.post(ID, BENCH_DEPTH / 2, round * BENCH_DEPTH)
      holds(
        accepted === BENCH_DEPTH / 2,
        `an empty channel accepts ${accepted} of ${BENCH_DEPTH / 2}`,
      )
      for (const { cookie, status, epoch } of await bench.take(accepted)) {
        holds(!seen.has(cookie), `cookie ${cookie} completes twice`)
        holds(status === Status.OK, `cookie ${cookie} ends with status ${status}`)
        holds(epoch === 1, `cookie ${cookie} is of epoch ${epoch}, not 1`)
        seen.add(cookie)
      }
    }
    holds(bench.channel.inFlight === 0, `${bench.channel.inFlight} are in flight still`)
    holds(!bench.channel.uses(ID), 'it uses what it has no work on')
  },

  'it tells of the attachments that come into use': async (bench) => {
    await bench.mapOpen(ID)
    await bench.mapOpen(OTHER_ID)
    for (const id of [ID, OTHER_ID]) {
      for (const again of ['', ', after uses() has said that it is not']) {
        bench.told = []
        holds(bench.post(id, 1) === 1, 'an open attachment takes no work')
        holds(bench.told.includes(id), `post() does not tell of what its work names${again}`)
        await bench.take(1)
        holds(!bench.channel.uses(id), 'it uses what it has no work on')
      }
    }
  },

  'it takes no more than its depth, and the rest when that has been reaped': async (bench) => {
    await bench.mapOpen(ID)
    const { channel } = bench
    holds(channel.depth === BENCH_DEPTH, `a channel of depth ${BENCH_DEPTH} says ${channel.depth}`)
    let accepted = bench.post(ID, 2 * BENCH_DEPTH)
    holds(
      accepted > 0 && accepted <= BENCH_DEPTH,
      `${accepted} of ${2 * BENCH_DEPTH} were accepted`,
    )
    holds(channel.inFlight === accepted, `${channel.inFlight} in flight of ${accepted}`)
    const cookies: number[] = []
    while (cookies.length < 2 * BENCH_DEPTH) {
      for (const { cookie } of await bench.take(accepted)) cookies.push(cookie)
      accepted = channel.post(bench.batch, cookies.length, 2 * BENCH_DEPTH - cookies.length)
      holds(accepted > 0 || cookies.length === 2 * BENCH_DEPTH, 'it accepts nothing after a reap')
    }
    holds(new Set(cookies).size === 2 * BENCH_DEPTH, 'a cookie has come twice')
  },

  'a row that is wrong is refused, and those before it are posted': async (bench) => {
    await bench.mapOpen(ID)
    const { batch, channel } = bench
    const { operations } = bench.engine.capabilities
    const known = new Set(operations.map(({ op }) => op))
    const wrong: [what: string, make: () => void, codes: readonly string[]][] = [
      ['an unknown operation', () => (batch.op[1] = 99), ['ERR_INVALID_ARG_VALUE', UNSUPPORTED]],
      ['a range beyond the end', () => bench.set(1, ID, 1, SIZE), ['ERR_INVALID_ARG_VALUE']],
      ['a negative length', () => (batch.length[1] = -1), ['ERR_INVALID_ARG_VALUE']],
    ]
    for (const op of Object.values(Op).filter((each) => !known.has(each))) {
      wrong.push([`operation ${op}, which it does not do`, () => (batch.op[1] = op), [UNSUPPORTED]])
    }
    for (const [what, make, codes] of wrong) {
      bench.set(0, ID)
      bench.set(1, ID)
      make()
      const error = await errorOf(what, () => channel.post(batch, 0, 2))
      holds(codes.includes(error.code), `${what} is ${error.code}`)
      const { accepted } = error as P2pdmaError & { accepted?: number }
      holds(accepted === 1, `${what}: it says that ${accepted} were accepted before`)
      await bench.take(1)
    }
  },

  'one notification for each arm()': async (bench) => {
    await bench.mapOpen(ID)
    bench.channel.arm()
    bench.post(ID, 1)
    while (bench.notifications === 0) await turn()
    holds(bench.reap().length === 1, 'it notifies of nothing')
    bench.post(ID, 1)
    let taken = 0
    while (taken === 0) {
      await turn()
      taken = bench.reap().length
    }
    holds(bench.notifications === 1, `${bench.notifications} notifications for one arm()`)
  },

  'stopped it takes nothing, and goes on where it was when it is restarted': async (bench) => {
    await bench.mapOpen(ID)
    const { channel } = bench
    const accepted = bench.post(ID, BENCH_DEPTH)
    await channel.stop()
    holds(bench.post(ID, 1, 100) === 0, 'a stopped channel takes work')
    channel.restart()
    const done = await bench.take(accepted)
    for (const { cookie, status } of done) {
      holds(status === Status.OK, `cookie ${cookie} ends with status ${status}`)
    }
    holds(new Set(done.map(({ cookie }) => cookie)).size === accepted, 'a cookie has come twice')
    holds(bench.post(ID, 1) === 1, 'a channel that was restarted takes no work')
    await bench.take(1)
  },

  'what was held is done in the mapping of the restart, and nothing in the old one': async (
    bench,
  ) => {
    const old = await bench.mapOpen(ID)
    const { channel, engine } = bench
    const accepted = bench.post(ID, BENCH_DEPTH)
    await channel.stop()
    await engine.unmap(ID)
    await bench.poison(old)
    await bench.map(ID)
    channel.restart()
    engine.unseal(ID)
    for (const { cookie, status } of await bench.take(accepted)) {
      holds(status === Status.OK, `cookie ${cookie} ends with status ${status}`)
    }
    const strays = await old.countStrayWrites()
    holds(strays === 0, `${strays} writes into memory that had been unmapped`)
  },

  'what names an attachment that is gone ends as not mapped': async (bench) => {
    const old = await bench.mapOpen(ID)
    const { channel, engine } = bench
    const accepted = bench.post(ID, BENCH_DEPTH)
    await channel.stop()
    await engine.unmap(ID)
    await bench.poison(old)
    channel.restart()
    for (const { cookie, status } of await bench.take(accepted)) {
      const isRight = status === Status.OK || status === Status.NOT_MAPPED
      holds(isRight, `cookie ${cookie} ends with status ${status}`)
    }
    holds((await old.countStrayWrites()) === 0, 'it wrote into memory that had been unmapped')
  },

  'after unmap() the device reaches the memory no more': async (bench) => {
    const { engine } = bench
    if (engine.capabilities.lateAccess === 'none') return
    // Only one whose every access is looked up is unmapped under work, and never a device
    // whose IOMMU would complain to the kernel's log.
    if (engine.capabilities.isTwoSided) return
    const old = await bench.mapOpen(ID)
    const accepted = bench.post(ID, BENCH_DEPTH)
    await engine.unmap(ID)
    await bench.poison(old)
    for (const { cookie, status } of await bench.take(accepted)) {
      const isRight = [Status.OK, Status.FAULT, Status.NOT_MAPPED].some((each) => each === status)
      holds(isRight, `cookie ${cookie} ends with status ${status}`)
    }
    holds((await old.countStrayWrites()) === 0, 'it wrote into memory that had been unmapped')
  },

  'forced it begins a new epoch, and each operation ends once': async (bench) => {
    await bench.mapOpen(ID)
    const { channel } = bench
    const accepted = bench.post(ID, BENCH_DEPTH)
    const stopping = Promise.resolve(channel.stop()).catch(() => undefined)
    const epoch = channel.force()
    holds(epoch === 2, `the epoch after the first is ${epoch}`)
    await stopping
    channel.restart()
    const done = await bench.take(accepted)
    for (const { cookie, status } of done) {
      const isRight = status === Status.OK || status === Status.OUTCOME_UNKNOWN
      holds(isRight, `cookie ${cookie} ends with status ${status}`)
    }
    const cookies = new Set(done.map(({ cookie }) => cookie))
    holds(cookies.size === accepted, `${cookies.size} cookies of ${accepted} operations`)
  },

  'closed it is closed, once and for all': async (bench) => {
    await bench.mapOpen(ID)
    const { channel } = bench
    bench.post(ID, 1)
    channel.close()
    channel.close()
    const uses: [string, () => unknown][] = [
      ['post()', () => channel.post(bench.batch, 0, 1)],
      ['reap()', () => bench.reap()],
      ['arm()', () => channel.arm()],
      ['stop()', () => channel.stop()],
      ['restart()', () => channel.restart()],
    ]
    for (const [what, use] of uses) {
      const { code } = await errorOf(`${what} after the close`, use)
      holds(code === 'ERR_CLOSED', `${what} after the close is ${code}`)
    }
    while (bench.closed === 0) await turn()
    await turn()
    holds(bench.closed === 1, `onClosed was called ${bench.closed} times`)
  },

  'a depth is a power of two': async ({ engine, subject }) => {
    const { queue } = subject
    const open = () =>
      engine.openChannel({ depth: 3, onCompletion: () => 1, ...(queue !== undefined && { queue }) })
    await errorOf('a channel of depth 3', open)
  },

  'it copies, fills and adds what it is told to': async (bench) => {
    const local = localOperations(bench.engine.capabilities)
    const [source, target] = [await bench.mapOpen(ID), await bench.mapOpen(OTHER_ID)]
    const pattern = Uint8Array.from({ length: SIZE }, (_, i) => (i * 7 + (i >> 8)) & 0xff)
    await write(source, pattern)
    const expected = new Uint8Array(SIZE)
    const { batch } = bench
    let rows = 0
    const row = (op: number, length: number, offset: number, operand = 0) => {
      batch.op[rows] = op
      batch.source[rows] = ID
      batch.target[rows] = OTHER_ID
      batch.sourceOffset[rows] = op === Op.COPY ? offset + 64 : 0
      batch.targetOffset[rows] = offset
      batch.length[rows] = length
      batch.operand[rows] = operand
      batch.cookie[rows] = rows++
    }
    if (local.has(Op.COPY)) {
      row(Op.COPY, 8192, 4096)
      expected.set(pattern.subarray(4160, 4160 + 8192), 4096)
    }
    if (local.has(Op.FILL)) {
      row(Op.FILL, 2048, 16_384, 0xa5)
      expected.fill(0xa5, 16_384, 16_384 + 2048)
    }
    if (local.has(Op.FETCH_ADD)) {
      row(Op.FETCH_ADD, 8, 32_768, 77)
      expected[32_768] = 77
    }
    const accepted = rows === 0 ? 0 : bench.channel.post(batch, 0, rows)
    holds(accepted === rows, `${accepted} of ${rows} were accepted`)
    for (const { cookie, status } of await bench.take(rows)) {
      holds(status === Status.OK, `operation ${batch.op[cookie]} ends with status ${status}`)
    }
    holds(Buffer.compare(await read(target), expected) === 0, 'the bytes are others')
  },

  'under an importer nothing is lost, doubled or torn while buffers move': async (bench) => {
    const { engine, subject } = bench
    if (!localOperations(engine.capabilities).has(Op.COPY)) return
    const exporter = subject.exporter ?? (await import('../exporters/index.js')).memfd()
    await using importer = new Importer(engine, { minRunMs: 0 })
    await using source = await MovableBuffer.create(SIZE, exporter, { poison: true })
    await using target = await MovableBuffer.create(SIZE, exporter, { poison: true })
    const from = await importer.attach(source, { access: Access.READ })
    const to = await importer.attach(target, { access: Access.WRITE })
    for (let round = 1; round <= 12; round++) {
      await source.withCpuAccess('w', (cpu) => void cpu.view().fill(round))
      const parts = Array.from({ length: 16 }, (_, i) => i * (SIZE / 16))
      const copies = parts.map((offset) => importer.copy(from, offset, to, offset, SIZE / 16))
      const moves = [round % 2 === 0 ? source : target, target].slice(0, 1 + (round % 2))
      await Promise.all([...copies, ...[...new Set(moves)].map((each) => each.move(exporter))])
      const right = await target.withCpuAccess('r', (cpu) => cpu.view().every((b) => b === round))
      holds(right, `round ${round}: other bytes than were copied`)
    }
    const strays = (await source.countStrayWrites()) + (await target.countStrayWrites())
    holds(strays === 0, `${strays} writes into memory that buffers had left`)
  },
}

const UNSUPPORTED = 'ERR_UNSUPPORTED'

function checkCapabilities({ operations, isTwoSided, maps, lateAccess }: EngineCapabilities): void {
  holds(operations.length > 0, 'it does no operation')
  const known = Object.values(Op) as number[]
  for (const { op, minLength, maxLength, alignment, withPeer } of operations) {
    holds(known.includes(op), `operation ${op} is none of Op`)
    const isRange = Number.isSafeInteger(minLength) && Number.isSafeInteger(maxLength)
    holds(isRange && minLength >= 0 && minLength <= maxLength, `lengths of operation ${op}`)
    const isPower = Number.isSafeInteger(alignment) && alignment > 0
    holds(isPower && Number.isInteger(Math.log2(alignment)), `alignment of operation ${op}`)
    holds(typeof withPeer === 'boolean', `whether operation ${op} has a peer at its other end`)
  }
  const sides = operations.filter(({ op }) => op === Op.SEND || op === Op.RECEIVE)
  holds(isTwoSided === sides.length > 0, 'it is two-sided where it sends or receives')
  const { dmaBufs, cpuMemory, bars } = maps
  for (const each of [dmaBufs, cpuMemory, bars]) holds(typeof each === 'boolean', 'what it maps')
  holds(dmaBufs || cpuMemory || bars, 'it can map nothing')
  holds(['fault', 'key', 'none'].includes(lateAccess), `late accesses end in ${lateAccess}`)
}

function localOperations({ operations }: EngineCapabilities): Set<number> {
  return new Set(operations.filter(({ withPeer }) => !withPeer).map(({ op }) => op))
}

/** As memory that nothing but its exporter reaches. */
function unreachable({ size }: Backing): Backing {
  const no = () => Promise.reject(new Error('memory of a check: nobody reaches it'))
  return {
    placement: 'nowhere',
    size,
    fd: -1,
    offset: 0,
    isDmaBuf: false,
    mapping: null,
    dmaMapping: null,
    copyFrom: no,
    openCpuWindow: no,
    poison: no,
    countStrayWrites: no,
    free: () => Promise.resolve(),
  }
}

async function write(backing: Backing, bytes: Uint8Array): Promise<void> {
  const window = await backing.openCpuWindow('w')
  window.view(0, bytes.length).set(bytes)
  await window.end()
}

async function read(backing: Backing): Promise<Buffer> {
  const window = await backing.openCpuWindow('r')
  const bytes = Buffer.from(window.view(0, SIZE))
  await window.end()
  return bytes
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

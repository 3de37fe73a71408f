/** Closing anything, at any moment, in any order, twice; and letting go without closing. */
import t from 'tap'
import { SoftwareEngine } from '../../lib/engines/index.js'
import { memfd } from '../../lib/exporters/index.js'
import { Importer } from '../../lib/move-notify/importer/importer.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { quarantined } from '../../lib/move-notify/exporter/quarantine.js'
import { stages } from './stages.js'
import { back, outcome, PAGE, turn, usage } from './support.js'

const SIZE = 16 * PAGE

const expected = ['ok', 'ERR_CLOSED', 'ERR_REVOKED', 'ERR_OUTCOME_UNKNOWN', 'ABORT_ERR', 'EBUSY']

const unhandled: unknown[] = []
process.on('unhandledRejection', (reason) => unhandled.push(reason))

async function cast() {
  const engine = new SoftwareEngine()
  const open = engine.openChannel.bind(engine)
  engine.openChannel = (options) => {
    const channel = open(options)
    channel.slow(500_000)
    return channel
  }
  const importer = engine.importer({ stopTimeoutMs: 5, minRunMs: 0, mapRetries: 0 })
  const channel = importer.channel()
  const buffer = await MovableBuffer.create(SIZE, memfd(), { poison: true })
  const attachment = await importer.attach(buffer)
  return { engine, importer, channel, buffer, attachment }
}

type Cast = Awaited<ReturnType<typeof cast>>

/** What is in progress when the closing begins. */
const situations: Record<string, (it: Cast) => Promise<unknown>[]> = {
  nothing: () => [],
  copy: ({ channel, attachment }) => [
    channel.copy(attachment, 0, attachment, SIZE / 2, SIZE / 2),
    channel.fetchAdd(attachment, 0, 1),
  ],
  stalled: ({ engine, channel, attachment }) => {
    engine.inject({ kind: 'stall' })
    return [channel.fill(attachment, 0, SIZE, 1), channel.fetchAdd(attachment, 0, 1)]
  },
  move: ({ buffer, channel, attachment }) => [
    channel.fill(attachment, 0, SIZE, 1),
    buffer.move(memfd()),
    buffer.move(memfd(), { signal: AbortSignal.timeout(1) }),
    channel.fill(attachment, 0, SIZE, 2),
  ],
  attach: ({ importer, buffer }) => [importer.attach(buffer), importer.attach(buffer)],
  pin: ({ buffer }) => [buffer.pin(), buffer.move(memfd())],
  bracket: ({ buffer }) => [
    buffer.withCpuAccess('rw', (access) => void access.view().fill(1)),
    buffer.beginCpuAccess('r'),
    buffer.move(memfd(), { cpuTimeoutMs: 10_000 }),
  ],
  revoke: ({ buffer, channel, attachment }) => [
    channel.fill(attachment, 0, SIZE, 1),
    buffer.revoke(),
  ],
}

function permutations<T>(items: readonly T[]): T[][] {
  if (items.length < 2) return [[...items]]
  return items.flatMap((first, i) =>
    permutations(items.filter((_, j) => j !== i)).map((rest) => [first, ...rest]),
  )
}

/** `hung` where it does not settle: a watchdog, not a measurement. */
async function settled(work: Promise<unknown>[]): Promise<string[]> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<string[]>((resolve) => {
    timer = setTimeout(() => resolve(['hung']), 300_000)
  })
  const outcomes = await Promise.race([Promise.all(work.map(outcome)), late])
  clearTimeout(timer)
  return outcomes
}

t.setTimeout(1_800_000)

const parts = ['engine', 'importer', 'channel', 'buffer', 'attachment'] as const

for (const [name, begin] of Object.entries(situations)) {
  void t.test(`in every order, during: ${name}`, async (t) => {
    const before = usage()
    const wrong: string[] = []
    for (const [number, order] of permutations(parts).entries()) {
      const it = await cast()
      const pending = begin(it)
      for (const each of pending) each.catch(() => {})
      for (let i = 0; i < number % 3; i++) await turn(0)
      const closes: Promise<unknown>[] = []
      for (const part of order) {
        const closing = it[part].close()
        closes.push(closing, it[part].close())
        // Half of the orders wait for each close, the others for none.
        if (number % 2 === 0) await settled([closing])
      }
      const closed = await settled(closes)
      const ended = await settled(pending)
      if (closed.some((each) => each !== 'ok') || ended.some((each) => !expected.includes(each))) {
        wrong.push(`${order.join(' ')}: ${closed.join(' ')}; ${ended.join(' ')}`)
      }
    }
    t.same(wrong, [], 'every close resolves, and all that was pending settles')
    const after = await back({ ...before, threads: before.threads + 4 })
    t.ok(after.fds <= before.fds && after.mappings <= before.mappings, 'nothing leaks')
  })
}

void t.test('an engine closed under an importer that it does not know', async (t) => {
  const { engine, buffer } = await cast()
  const importer = new Importer(engine)
  const attachment = await importer.attach(buffer)
  const [first, second] = [1, 2].map((byte) => importer.fill(attachment, 0, SIZE, byte))
  await engine.close()
  const ended = await settled([first ?? Promise.resolve(), second ?? Promise.resolve()])
  t.same(ended, ['ERR_OUTCOME_UNKNOWN', 'ERR_OUTCOME_UNKNOWN'])
  t.equal(await outcome(buffer.move(memfd())), 'ok')
  await importer.close()
  await buffer.close()
})

void t.test('what nobody holds and nobody closed is collected', async (t) => {
  await (await cast()).engine.close() // what starts once, has started
  const before = usage()
  for (const [name, stage] of Object.entries(stages)) {
    for (let i = 0; i < 3; i++) {
      const pending = await stage()
      const unlike = (await settled(pending)).filter((each) => each !== 'ok')
      t.same(unlike, [], `${name}: what is in flight is held`)
    }
    const after = await back({ ...before, threads: before.threads + 4 })
    t.ok(after.fds <= before.fds && after.mappings <= before.mappings, `${name}: nothing is left`)
  }
})

void t.test('no rejection went unhandled', async (t) => {
  await turn()
  t.same(unhandled, [])
  t.same(quarantined(), [])
})

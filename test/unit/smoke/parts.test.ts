import t from 'tap'
import { Parser } from 'tap-parser'
import { P2pdmaError } from '../../../lib/errors.js'
import { checkFault } from '../../../lib/smoke/fault-check.js'
import { groupSlots, layOut, LINE, loadSlots, payloadOffset } from '../../../lib/smoke/layout.js'
import { withConsent } from '../../../lib/smoke/run.js'
import { type Effect, EFFECT_NAMES, elsewhere, parseEffects } from '../../../lib/smoke/effects.js'
import { Pacer } from '../../../lib/smoke/pacer.js'
import { type Scenario, scenarios } from '../../../lib/smoke/scenarios.js'
import { rotation, withDefaults } from '../../../lib/smoke/options.js'
import { isMissing } from '../../../lib/smoke/untestable.js'
import { checkMemory, leastMoves, plan } from '../../../lib/smoke/plan.js'
import { Random } from '../../../lib/smoke/random.js'
import { Pauses } from '../../../lib/smoke/pauses.js'
import { Tally } from '../../../lib/smoke/tally.js'
import { TapWriter } from '../../../lib/smoke/tap.js'
import { Verdict } from '../../../lib/abi.js'
import { Watchdog } from '../../../lib/smoke/watchdog.js'
import { parseBufinfo } from '../../../lib/smoke/kernel-view.js'

void t.test('a buffer of any size is divided without overlap', async (t) => {
  for (const size of [65_536, 69_632, 1 << 20, 3 << 20, 4 << 20, 1 << 30]) {
    const layout = layOut(size)
    const groups = Array.from({ length: layout.groups }, (_, i) => groupSlots(layout, i)).flat()
    const all = [...groups, ...loadSlots(layout)]
    t.equal(new Set(all).size, all.length, `${size}: no slot twice`)
    t.ok(layout.groups >= 6, 'groups enough for a slot to rest')
    t.ok(layout.loadSlots > 0)
    t.equal(layout.payload % LINE, 0)
    t.equal(layout.payload + 2 * LINE, layout.slotSize, 'a guard before and after')
    t.ok(payloadOffset(layout, Math.max(...all)) + layout.payload + LINE <= size, 'all inside')
  }
})

void t.test('what does not fit into memory is refused', async (t) => {
  const options = withDefaults({ size: 1 << 20, buffers: 3 })
  // Six buffers, and a new backing for each when all of them move together.
  checkMemory(options, 12 << 20)
  t.throws(() => checkMemory(options, (12 << 20) - 1), {
    code: 'ERR_OUT_OF_RANGE',
    argument: 'size',
    message: /need 12 MiB, .* has 11 MiB/,
  })
  t.throws(() => checkMemory({ ...options, maxMemory: 100 << 20 }, Infinity, undefined, 89 << 20), {
    code: 'ERR_OUT_OF_RANGE',
    argument: 'max-memory',
    message: /need 12 MiB, .* 100 MiB the process takes 89 MiB/,
  })
  checkMemory({ ...options, maxMemory: 100 << 20 }, Infinity, undefined, 88 << 20)
  // Too few moves for all of them together: one at a time.
  checkMemory(withDefaults({ size: 1 << 20, buffers: 3, moves: 2 }), 7 << 20)
})

void t.test('the moves asked for are shared out, all of them', async (t) => {
  for (const moves of [1, 2, 7, 40, 200, 1001]) {
    for (const buffers of [1, 2, 5]) {
      const steps = plan(withDefaults({ moves, buffers }), 0)
      t.equal(
        steps.reduce((sum, { goal }) => sum + goal.moves, 0),
        moves,
        `${moves} among ${buffers}`,
      )
    }
  }
  const bytes = plan(withDefaults({}), 0).reduce((sum, { goal }) => sum + goal.bytes, 0)
  t.equal(bytes, 2 ** 30, 'the default run: 1 GiB')
  const timed = plan(withDefaults({ seconds: 10 }), 1000)
  t.ok(timed.every(({ goal }) => goal.moves === Infinity && goal.bytes === 0))
  t.equal(Math.round(timed.at(-1)?.goal.endsAt ?? 0), 11_000)
})

void t.test('what is not played leaves its share to the others', async (t) => {
  const some = scenarios.slice(2)
  const steps = plan(withDefaults({ moves: 400, buffers: 2 }), 0, some)
  t.equal(
    steps.reduce((sum, { goal }) => sum + goal.moves, 0),
    400,
  )
  const moves = steps.map(({ goal }) => goal.moves)
  t.ok(Math.min(...moves) >= 132, `${moves.join(', ')}: the first does not get all the rest`)
  const timed = plan(withDefaults({ seconds: 10 }), 1000, some)
  t.equal(Math.round(timed.at(-1)?.goal.endsAt ?? 0), 11_000)
  t.same(plan(withDefaults({ moves: 4 }), 0, []), [])
})

void t.test('how many moves a scenario needs is said, and is enough', async (t) => {
  for (const buffers of [1, 2, 7]) {
    for (const scenario of scenarios.slice(1)) {
      const least = leastMoves(scenario, { buffers }, scenarios)
      const isKept = (moves: number) =>
        plan(withDefaults({ moves, buffers }), 0).some((step) => step.scenario === scenario)
      t.same([isKept(least - 1), isKept(least)], [false, true], `${scenario.name}: ${least}`)
    }
  }
})

void t.test('what was asked for and is of another engine is named', async (t) => {
  const here = [{ effects: ['link'] as const }, { effects: [] }]
  t.same(elsewhere(['link'], here), [])
  t.match(elsewhere(['link', 'kill'], here), [
    { name: 'another peer is killed', effects: ['kill'] },
  ])
  t.same(elsewhere([], []), [], 'nobody is told of what nobody has asked for')
})

void t.test('nothing is done to others unless each effect was asked for', async (t) => {
  const scenario = (name: string, effects: Effect[], skip?: string): Scenario => ({
    ...{ ...(scenarios[0] as Scenario), name, effects },
    ...(skip !== undefined && { skip }),
  })
  const all = [
    scenario('harmless', []),
    scenario('one', ['link']),
    scenario('two', ['link', 'kill']),
    scenario('not here', ['revoke'], 'no such device: bind one'),
  ]
  const skips = (asked: Effect[]) => withConsent(all, asked).map(({ skip = '' }) => skip)
  t.match(skips([]), [
    /^$/,
    /^it takes a network link down for a moment, which nobody has asked for: --disruptive=link$/,
    /--disruptive=link,kill$/,
    /^no such device: bind one; and it switches .*: --disruptive=revoke$/,
  ])
  t.match(skips(['link']), [/^$/, /^$/, /--disruptive=kill$/, /^no such device/])
  t.match(skips(['link', 'kill', 'revoke']), [/^$/, /^$/, /^$/, /^no such device: bind one$/])
  t.same(parseEffects('all'), EFFECT_NAMES)
  t.same(parseEffects('kill,link,kill'), ['kill', 'link'])
  for (const wrong of ['', 'link,', 'Link', 'toString', '__proto__']) {
    t.throws(() => parseEffects(wrong), { code: 'ERR_INVALID_ARG_VALUE', argument: 'disruptive' })
  }
})

void t.test('a pace is kept, first come first served, by one timer', async (t) => {
  // 8 Mbit/s: a byte in a microsecond.
  const pacer = new Pacer(0.008)
  const order: number[] = []
  const start = performance.now()
  const turns = Array.from({ length: 20 }, async (_, i) => {
    await pacer.take(10_000, () => i !== 7)
    order.push(i)
  })
  await Promise.all(turns)
  t.same(
    order,
    turns.map((_, i) => i),
  )
  // 190,000 bytes, 50 ms at most saved up, and the last one does not wait for its own.
  t.ok(performance.now() - start >= 190 - 50 - 10 - 1, `${performance.now() - start} ms`)
  t.equal(new Pacer(null).take(2 ** 40), null, 'without a rate nobody waits')
  const slow = new Pacer(1e-6)
  void slow.take(1e9)
  const late = slow.take(1)
  slow.release()
  await late
  t.equal(slow.take(1e9), null, 'nor at the end')
})

void t.test('buffers come by --from again', async (t) => {
  t.strictSame(rotation(withDefaults({})), ['memfd'])
  const to = ['heap:system', 'memfd']
  t.strictSame(rotation(withDefaults({ from: 'udmabuf', to })), [...to, 'udmabuf'])
  t.strictSame(rotation(withDefaults({ from: 'memfd', to })), to)
})

void t.test('a seed repeats', async (t) => {
  const draw = (seed: number) => {
    const random = new Random(seed)
    return random.shuffled(Array.from({ length: 20 }, (_, i) => i))
  }
  t.strictSame(draw(3), draw(3))
  t.notSame(draw(3), draw(4))
  t.strictSame(
    [...draw(0)].sort((a, b) => a - b),
    Array.from({ length: 20 }, (_, i) => i),
  )
})

void t.test('each verdict is counted under its own name', async (t) => {
  const tally = new Tally()
  tally.arrived(Verdict.INTACT, 100)
  tally.arrived(Verdict.UNTOUCHED, 100)
  tally.arrived(Verdict.FOREIGN, 100)
  tally.arrived(Verdict.MIXED, 100)
  tally.arrived(Verdict.INTACT | Verdict.GUARD_BEFORE | Verdict.GUARD_AFTER, 100)
  tally.settled(Verdict.INTACT)
  tally.settled(Verdict.FOREIGN)
  t.match(tally.counts, { bytesVerified: 200, lost: 1, doubled: 2, torn: 1, strayWrites: 2 })
})

void t.test('what nothing can come after is known from what one operation met', async (t) => {
  const tally = new Tally()
  tally.failed('failedOperations', new P2pdmaError('late', { code: 'ETIMEDOUT' }))
  tally.failed('failedMoves', null)
  t.equal(tally.fatal, null)
  const first = new P2pdmaError('nothing got through', { code: 'ERR_NO_PROGRESS' })
  tally.failed('failedOperations', first)
  tally.failed('failedOperations', new P2pdmaError('gone', { code: 'ERR_DEVICE_LOST' }))
  t.equal(tally.fatal, first)
})

void t.test('a fault that was to be made has to be made, and counted as what it is', async (t) => {
  const { counts } = new Tally()
  t.same(checkFault('lost', 0, counts), { ok: false, name: 'the fault was not made: lost' })
  // Another count does not stand for it.
  t.match(checkFault('stray', 1, { ...counts, lost: 1 }), { ok: false, name: /unnoticed/ })
  t.match(checkFault('stray', 1, { ...counts, strayWrites: 1 }), { ok: true })
})

void t.test('the quantiles of pauses', async (t) => {
  const of = (...all: number[]) => {
    const pauses = new Pauses()
    for (const ms of all) pauses.record(ms)
    return pauses
  }
  t.strictSame(of().quantiles(), { p50: null, p99: null, max: null })
  t.strictSame(of(0.003).quantiles(), { p50: 0.003, p99: 0.003, max: 0.003 })
  const hundred = Array.from({ length: 100 }, (_, i) => (100 - i) / 100)
  t.strictSame(of(...hundred).quantiles(), { p50: 0.5, p99: 0.99, max: 1 })
  // Longer than any array that is given as arguments: a run has as many pauses as it has moves.
  const tally = new Tally()
  for (let i = 0; i < 200_000; i++) tally.pauses.record(1)
  const total = new Tally()
  total.add(tally)
  total.pauses.add(of(86_400_000))
  t.strictSame(total.pauses.quantiles(), { p50: 1, p99: 1, max: 86_400_000 })
})

void t.test('what is missing is told from what fails', async (t) => {
  const error = (code: string) => new P2pdmaError('x', { code })
  for (const code of ['ERR_NO_DEVICE', 'ENODEV', 'EACCES', 'ERR_VERBS_MISSING', 'ERR_NOT_MEMORY']) {
    t.equal(isMissing(error(code)), true, code)
  }
  for (const code of ['ECONNREFUSED', 'ETIMEDOUT', 'EIO', 'EMFILE', 'ERR_DEVICE_LOST']) {
    t.equal(isMissing(error(code)), false, code)
  }
  t.same([isMissing(null), isMissing(new Error('a fault of ours'))], [false, false])
  // Of an exporter: it has no page to give. Of anything else: it failed.
  const full = error('ENOMEM')
  t.same([isMissing(full, [{ error: null }, { error: full }]), isMissing(full)], [true, false])
})

void t.test('the TAP is read as it was meant', async (t) => {
  let text = ''
  const tap = new TapWriter((part) => (text += part))
  tap.version()
  tap.comment('two\nlines')
  tap.plan(3)
  const subtest = tap.subtest('a # b', 2)
  subtest.test(true, 'fine')
  subtest.test(false, 'not # SKIP this')
  tap.test(false, 'a # b', { list: [1], text: 'x: y' })
  tap.skip('not run', 'run as root')
  tap.test(true, 'last')
  const results = Parser.parse(text)
  const parser = new Parser()
  parser.end(text)
  t.match(parser, { ok: false, count: 3, pass: 2, fail: 1, skip: 1 })
  const outer = results.filter(([kind]) => kind === 'assert')
  t.match(outer, [
    ['assert', { ok: false, name: 'a # b', diag: { list: [1], text: 'x: y' } }],
    ['assert', { ok: true, name: 'not run', skip: 'run as root' }],
    ['assert', { ok: true, name: 'last' }],
  ])
})

void t.test('KTAP has no YAML, no escapes and no way to bail out', async (t) => {
  let text = ''
  const tap = new TapWriter((part) => (text += part), 'ktap')
  tap.version()
  tap.comment('two\nlines')
  tap.plan(3)
  const subtest = tap.subtest('a # b', 2)
  subtest.test(true, 'fine')
  subtest.test(false, 'not # SKIP \\ this')
  tap.test(false, 'a # b', { list: [1], text: 'x: y' })
  tap.skip('not run', 'run as\nroot')
  tap.bailOut('EIO: the device\nhas gone')
  t.equal(
    text,
    `KTAP version 1
# two
# lines
1..3
  KTAP version 1
  # Subtest: a  b
  1..2
  ok 1 fine
  not ok 2 not  SKIP \\ this
# list: [1]
# text: "x: y"
not ok 1 a  b
ok 2 not run # SKIP run as root
not ok 3 the run came to its end # ERROR EIO: the device has gone
`,
  )
})

void t.test("the kernel's list of dma-bufs", async (t) => {
  const text = [
    '',
    'Dma-buf Objects:',
    'size    \tflags   \tmode    \tcount   \texp_name\tino     \tname',
    '04194304\t00000002\t00080007\t00000003\tudmabuf\t00000017\t<none>',
    '\tAttached Devices:',
    'Total 0 devices attached',
    '',
    '00004096\t00080002\t00080007\t00000001\tsystem\t00000123\ta name',
    '\tAttached Devices:',
    'Total 0 devices attached',
    '',
    'Total 2 objects, 4198400 bytes',
  ].join('\n')
  t.strictSame([...parseBufinfo(text)], [17, 123])
})

void t.test('the watchdog names what hangs, and only that', async (t) => {
  const watchdog = new Watchdog(40)
  t.equal(await watchdog.over('the quick', Promise.resolve(1)), 1)
  void watchdog.over('the slow', new Promise(() => {}))
  await t.rejects(watchdog.hung, { code: 'ETIMEDOUT', message: /^the slow has taken/ })
  t.equal(watchdog.isTripped, true)
  watchdog.close()
})

void t.test('the watchdog blames nobody for what is known', async (t) => {
  const explain = () => 'queue pairs were reset 40 times'
  const watchdog = new Watchdog(60_000, { endsAt: performance.now() + 40, explain })
  const waiting = watchdog.race('copying', new Promise(() => {}))
  await t.rejects(waiting, {
    code: 'ETIMEDOUT',
    message: 'the time is over, while copying',
    hint: /^queue pairs were reset 40 times: /,
  })
  watchdog.close()
})

void t.test(
  'time in which the process was busy is not held against what it waits for',
  async (t) => {
    const watchdog = new Watchdog(200)
    let done = () => {}
    const work = watchdog.over('the work', new Promise<void>((resolve) => (done = resolve)))
    const until = performance.now() + 1000
    while (performance.now() < until);
    setTimeout(done, 1)
    await work
    t.equal(watchdog.isTripped, false)
    watchdog.close()
  },
)

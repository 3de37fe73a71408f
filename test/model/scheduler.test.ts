/** The model's own machinery: it has to behave as the real event loop does. */
import t from 'tap'
import { type Exploration, explore, replay } from './explore.js'
import { ordering } from './cases/machinery.js'

t.setTimeout(1_800_000)

const FILE = 'test/model/cases/machinery.ts'

function scenario<Options>(name: string, options: Options): Exploration<Options> {
  return { file: FILE, scenario: name, options, maxSteps: 200 }
}

t.test('promises take as many turns as the real ones', async (t) => {
  const real: string[] = []
  await ordering(real)
  const model: string[] = []
  t.equal(explore(scenario('modelled', model)).failure, null)
  t.ok(real.length > 20)
  t.same(model, real)
})

t.test('all interleavings of two tasks, each once', async (t) => {
  const seen: string[] = []
  const result = explore(scenario('letters', seen))
  t.ok(result.complete)
  t.equal(result.executions, seen.length)
  t.equal(new Set(seen).size, seen.length, 'no interleaving twice')
  // Two sequences of two actions: 4! / (2! 2!).
  t.same([...seen].sort(), ['ABab', 'AaBb', 'AabB', 'aABb', 'aAbB', 'abAB'].sort())
})

t.test('an action may come before any microtask, an event only after the last', async (t) => {
  const seen: string[] = []
  t.ok(explore(scenario('turns', seen)).complete)
  t.same([...new Set(seen)].sort(), ['!123e', '1!23e', '12!3e', '123!e', '123e!'].sort())
})

t.test('timers fire in the order of their times, whatever the device does', async (t) => {
  const seen: string[] = []
  t.ok(explore(scenario('timers', seen)).complete)
  t.same([...seen].sort(), ['5.9.d', '5.d9.', 'd5.9.'].sort())
})

t.test('what goes wrong is found', async (t) => {
  const deadlock = explore(scenario('stuck', null)).failure
  t.match(deadlock?.message, /deadlock: still pending: the answer\n.*nobody answers/)
  t.match(explore(scenario('endless', null)).failure?.message, /livelock/)
  t.match(explore(scenario('unhandled', null)).failure?.message, /nobody handles: Error: lost/)
  t.equal(explore(scenario('handledInTime', null)).failure, null)
  t.match(explore(scenario('swallowed', null)).failure?.message, /seen through the catch/)
})

t.test('a failing schedule is short and shows the failure again', async (t) => {
  const exploration = scenario('race', null)
  const failure = explore(exploration).failure
  t.match(failure?.message, /late write/)
  const schedule = failure?.schedule ?? []
  t.equal(schedule.filter((choice) => choice !== 0).length, 2, 'write first, then close in time')
  t.match(String(replay(exploration, schedule).error), /late write/)
  t.equal(replay(exploration, []).error, null)
})

t.test('a bound on preemptions bounds the executions', async (t) => {
  const all = explore(scenario('turns', [])).executions
  const none = explore({ ...scenario('turns', []), preemptions: 0 })
  t.ok(none.complete)
  t.ok(none.executions < all)
})

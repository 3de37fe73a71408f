/** Every interleaving of two or three contexts over two or three ww_mutexes. */
import t from 'tap'
import { explore, type Exploration, generator, replay, report, sample } from './explore.js'
import type { WwOptions } from './cases/ww.js'
import type { Patch } from './loader.js'

t.setTimeout(1_800_000)

const MUTEX = 'lib/move-notify/reservation/ww-mutex.ts'
const ABBA = [
  [0, 1],
  [1, 0],
]
const CYCLE = [
  [0, 1],
  [1, 2],
  [2, 0],
]
const ROTATED = [
  [0, 1, 2],
  [1, 2, 0],
  [2, 0, 1],
]

type Bounds = Omit<Partial<Exploration<WwOptions>>, 'options'>

function tasks(options: WwOptions, bounds: Bounds = {}): Exploration<WwOptions> {
  return { file: 'test/model/cases/ww.ts', scenario: 'tasks', options, ...bounds }
}

for (const algorithm of ['wait-die', 'wound-wait'] as const) {
  t.test(algorithm, async (t) => {
    const cases: [string, Omit<WwOptions, 'algorithm'>, Bounds?][] = [
      [
        'ABBA by lockAll, with a plain locker, aborted',
        byLockAll({ orders: ABBA, abort: 1, plain: 1 }),
      ],
      ['cycle of three by lockAll, aborted', byLockAll({ orders: CYCLE, abort: 1 })],
      ['three orders of three locks by lockAll, aborted', byLockAll({ orders: ROTATED, abort: 0 })],
      ['cycle of three by the loop written out', { dance: 'manual', orders: CYCLE }],
      ['three orders by the loop, aborted', { dance: 'manual', orders: ROTATED, abort: 0 }],
      ['ABBA with pauses, aborted', { dance: 'slow', orders: ABBA, abort: 1 }],
      ['cycle with pauses', { dance: 'slow', orders: CYCLE }, { preemptions: 1 }],
    ]
    for (const [name, options, bounds] of cases) {
      const result = explore(tasks({ ...options, algorithm }, bounds))
      const bound = bounds === undefined ? '' : `, at most ${bounds.preemptions} preemptions`
      t.comment(`${name}: ${result.executions} executions${bound}`)
      if (result.failure !== null) t.fail(`${name}: ${report(result.failure)}`)
      else t.ok(result.complete, name)
    }
  })

  t.test(`${algorithm}: larger cases at random`, async (t) => {
    const seed = Number(process.env['MODEL_SEED'] ?? Date.now() % 1e9)
    t.comment(`MODEL_SEED=${seed}`)
    const random = generator(seed)
    for (let round = 0; round < 20; round++) {
      const orders = Array.from({ length: 4 }, () => shuffled(random, 4).slice(0, 3))
      const dance = random() < 0.5 ? 'lockAll' : 'slow'
      const exploration = tasks({ algorithm, dance, orders, abort: 2, plain: 1 })
      const { failure } = sample(exploration, seed + round, 100)
      if (failure !== null) t.fail(`${JSON.stringify(orders)} ${dance}: ${report(failure)}`)
    }
    t.pass('2000 executions of four contexts over four locks')
  })
}

t.test('faults put in on purpose are found', async (t) => {
  const noBackOff = [
    patch('if (this.#mustBackOff(context)) throw deadlock()', ''),
    patch('else this.#killBehind(waiter, context)', ''),
    patch('owner.waiter?.kill(deadlock())', ''),
  ]
  const found: [string, WwOptions, Patch[], RegExp][] = [
    ['no back-off, Wait-Die', slow('wait-die', ABBA), noBackOff, /deadlock: .*task 0, task 1/],
    ['no back-off, Wound-Wait', slow('wound-wait', CYCLE), noBackOff, /deadlock/],
    [
      'an older one that comes to wait kills nobody',
      slow('wait-die', [[2, 0, 1], [1, 0], [0]]),
      [patch('else this.#killBehind(waiter, context)', '')],
      /deadlock/,
    ],
    [
      'a wounded one is not woken',
      slow('wound-wait', ABBA),
      [patch('owner.waiter?.kill(deadlock())', '')],
      /deadlock/,
    ],
    [
      'the contended lock is not taken first',
      { algorithm: 'wait-die', dance: 'lockAll', orders: CYCLE },
      [patch('if (contended !== null) await contended.lockSlow(context, options)', '')],
      /livelock/,
    ],
    [
      'who is younger than the holder waits',
      slow('wait-die', ABBA),
      [
        patch(
          'if (owner !== null && owner !== true && owner.stamp < context.stamp) return true',
          '',
        ),
      ],
      /deadlock/,
    ],
    [
      'unlock() frees instead of handing over',
      { algorithm: 'wait-die', dance: 'lockAll', orders: CYCLE },
      [patch('this.#own(first.context)', '')],
      /not held/,
    ],
    [
      'an aborted waiter stays in the list',
      { algorithm: 'wait-die', dance: 'lockAll', orders: CYCLE, abort: 1 },
      [patch('this.mutex.remove(this)', '')],
      /./,
    ],
  ]
  for (const [name, options, patches, message] of found) {
    const exploration = tasks(options, { patches, maxSteps: 500, maxExecutions: 50_000 })
    const { failure, executions } = explore(exploration)
    if (failure === null) {
      t.fail(`${name}: not found in ${executions} executions`)
      continue
    }
    t.match(failure.message, message, `${name}: found in execution ${executions}`)
    const again = replay(exploration, failure.schedule)
    t.match(String(again.error), message, `${name}: its schedule shows it again`)
    t.same(again.trace, failure.trace, `${name}: with the same trace`)
  }
})

function byLockAll(options: Omit<WwOptions, 'algorithm' | 'dance'>): Omit<WwOptions, 'algorithm'> {
  return { dance: 'lockAll', ...options }
}

function slow(algorithm: WwOptions['algorithm'], orders: number[][]): WwOptions {
  return { algorithm, dance: 'slow', orders }
}

function patch(find: string, replace: string): Patch {
  return { file: MUTEX, find, replace }
}

function shuffled(random: () => number, count: number): number[] {
  const list = Array.from({ length: count }, (_, index) => index)
  for (let last = count - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1))
    const [a, b] = [list[last] ?? 0, list[other] ?? 0]
    list[last] = b
    list[other] = a
  }
  return list
}

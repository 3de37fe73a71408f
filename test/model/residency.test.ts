/** Every interleaving of the calls of a resident set: the budget, the bytes, and an end. */
import t, { type Test } from 'tap'
import type { Call, ResidencyOptions } from './cases/residency.js'
import { type Exploration, explore, report, sample } from './explore.js'
import type { Patch } from './loader.js'

t.setTimeout(1_800_000)

type Bounds = Omit<Partial<Exploration<ResidencyOptions>>, 'options'>

// Without timeouts: each would be one more thing that can happen at any time.
const noTimeouts: Patch = {
  file: 'lib/move-notify/reservation/reservation.ts',
  find: 'FENCE_TIMEOUT_MS = 60_000',
  replace: 'FENCE_TIMEOUT_MS = Infinity',
}

const cases = (options: ResidencyOptions, bounds: Bounds = {}): Exploration<ResidencyOptions> => ({
  file: 'test/model/cases/residency.ts',
  scenario: 'residency',
  options,
  patches: [noTimeouts],
  ...bounds,
})

function exhaust(t: Test, name: string, options: ResidencyOptions, bounds?: Bounds): void {
  const result = explore(cases(options, bounds))
  t.comment(`${name}: ${result.executions} executions`)
  if (result.failure !== null) t.fail(`${name}: ${report(result.failure)}`)
  else t.ok(result.complete, name)
}

const use = (...buffers: number[]): Call => ({ do: 'use', buffers })
const one = { buffers: 2, room: 1 }

t.test('two calls', async (t) => {
  exhaust(t, 'of the same', { ...one, threads: [[use(0)], [use(0)]] }, { preemptions: 2 })
  exhaust(t, 'in turns', { ...one, threads: [[use(0)], [use(1)]] }, { preemptions: 2 })
  const two = { buffers: 3, room: 2 }
  exhaust(t, 'that overlap', { ...two, threads: [[use(0, 1)], [use(1, 2)]] }, { preemptions: 0 })
  exhaust(t, 'one creates', { ...one, threads: [[use(0)], [{ do: 'create' }]] }, { preemptions: 1 })
  exhaust(
    t,
    'poisoned',
    { ...one, poison: true, threads: [[use(0)], [use(1)]] },
    { preemptions: 0 },
  )
})

t.test('closing, and moving away', async (t) => {
  const allow = ['ERR_CLOSED', 'ENOSPC']
  for (const buffer of [0, 1]) {
    const close: Call = { do: 'close', buffer }
    const threads = [[use(0)], [close]]
    exhaust(t, `close ${buffer}`, { ...one, allow, threads }, { preemptions: 1 })
    const away: Call = { do: 'away', buffer }
    exhaust(t, `away ${buffer}`, { ...one, allow, threads: [[use(0)], [away]] }, { preemptions: 0 })
  }
  const threads: Call[][] = [[use(0)], [{ do: 'end' }]]
  exhaust(t, 'close all', { ...one, allow, threads }, { preemptions: 1 })
})

t.test('memory that fails', async (t) => {
  const allow = ['ENOMEM', 'ENOSPC']
  // The first three allocations make the buffers.
  for (const failing of [3, 4]) {
    const memory = { failAllocations: [failing] }
    exhaust(
      t,
      `allocation ${failing}`,
      { ...one, allow, memory, threads: [[use(0)], [use(1)]] },
      {
        preemptions: 0,
      },
    )
  }
})

t.test('what it would find', async (t) => {
  const folder = 'lib/move-notify/exporter/residency'
  const faults: [string, RegExp, ResidencyOptions, Patch][] = [
    [
      'who waits for his turn keeps others from making room',
      /ENOSPC|deadlock/,
      { ...one, threads: [[use(0)], [use(1)]] },
      {
        file: `${folder}/resident-set.ts`,
        find: 'if (!wanted.every((each) => each.isResident)) restored',
        replace: 'for (const each of wanted) each.users++\n if (wanted.length > 0) restored',
      },
    ],
    [
      'what is asked for may go',
      /not all are there|ENOSPC/,
      { buffers: 3, room: 2, threads: [[use(0, 1), use(0, 2)]] },
      { file: `${folder}/member.ts`, find: 'if (this.users > 0 || this', replace: 'if (this' },
    ],
    [
      'charged too late',
      /bytes are/,
      { ...one, threads: [[use(0)]] },
      { file: `${folder}/budget.ts`, find: '#charged += estimate', replace: '#charged += 0' },
    ],
    [
      'nobody waits for those who are to come',
      /ENOSPC/,
      { ...one, threads: [[use(0)], [use(1)]] },
      { file: `${folder}/room.ts`, find: 'this.arriving === 0', replace: 'this.arriving >= 0' },
    ],
  ]
  for (const [name, message, options, patch] of faults) {
    const bounds = { preemptions: 1, patches: [noTimeouts, patch] }
    t.match(explore(cases(options, bounds)).failure?.message, message, name)
  }
})

t.test('larger ones, at random', async (t) => {
  const seed = Number(process.env['MODEL_SEED'] ?? Date.now() % 1e9)
  const threads: Call[][] = [
    [use(0, 1), use(3), use(2)],
    [use(2, 3), use(0), { do: 'create' }],
    [use(1, 3), use(0, 2)],
    [use(3, 0), { do: 'create' }, use(1)],
  ]
  const larger = { buffers: 4, room: 2, threads }
  const slow = { ...larger, poison: true, memory: { slow: true } }
  for (const [name, options] of Object.entries({ larger, slow })) {
    const result = sample(cases(options, { maxSteps: 50_000 }), seed, 400)
    const failure = result.failure === null ? null : report(result.failure)
    t.equal(failure, null, `${name}: ${result.executions} executions, MODEL_SEED=${seed}`)
  }
})

/** Every interleaving of moves and work: nothing lost, nobody disturbed, no deadlock. */
import t from 'tap'
import type { HeartOptions } from './cases/heart.js'
import { explore, replay } from './explore.js'
import { add, close, copy, exhaust, fill, heart, move } from './heart-help.js'

const WHOLE = { chunks: false }

t.setTimeout(1_800_000)

t.test('one channel, one buffer', async (t) => {
  const one = { buffers: [2], threads: [[fill(0, 0, 2, 7)], [move(0)]] }
  exhaust(t, 'one operation, one move', one)
  exhaust(t, 'into a dma-buf, whose copy ends before it is published', {
    ...one,
    memory: { dmaBuf: true },
  })
  exhaust(t, 'poison and free in their own time', { ...one, memory: { slow: true } })
  exhaust(t, 'map and unmap in their own time', { ...one, device: { slow: true, chunks: false } })
  const instant = { device: { instant: true }, memory: { instant: true } }
  exhaust(t, 'a stop and a copy that are done at once', { ...one, ...instant })
  exhaust(t, 'a stop that is done at once', { ...one, device: { instant: true } })
  exhaust(t, 'a copy that is done at once', { ...one, memory: { instant: true } })
  const two = { buffers: [2], threads: [[fill(0, 0, 2, 7), fill(0, 1, 1, 8)], [move(0)]] }
  exhaust(t, 'two operations, one move', two, { preemptions: 0 })
  const atomics = { buffers: [8], threads: [[add(0, 1), add(0, 2)], [move(0)]] }
  exhaust(t, 'two atomics, one move', atomics, { preemptions: 1 })
  const idle = { buffers: [2], threads: [[move(0)], [move(0)]] }
  exhaust(t, 'two moves, nobody uses it', idle, { preemptions: 1 })
})

t.test('several moves', async (t) => {
  const twice = { buffers: [2], threads: [[fill(0, 0, 2, 7)], [move(0)], [move(0)]] }
  exhaust(t, 'of one buffer', { ...twice, device: WHOLE }, { preemptions: 0 })
  const atOnce = { device: { ...WHOLE, instant: true }, memory: { instant: true } }
  exhaust(t, 'of one buffer, each done at once', { ...twice, ...atOnce }, { preemptions: 1 })
  const quantum = { ...twice, device: WHOLE, importer: { minRunMs: 1 } }
  exhaust(t, 'of one buffer, with a quantum of running between', quantum, { preemptions: 0 })
  const together: HeartOptions = {
    buffers: [2, 2],
    threads: [
      [{ do: 'moveTogether', buffers: [0, 1] }],
      [{ do: 'moveTogether', buffers: [1, 0] }],
      [copy(0, 1, 2)],
    ],
    device: WHOLE,
  }
  exhaust(t, 'by two movers who lock both buffers, in opposite orders', together, {
    preemptions: 0,
  })
})

t.test('two channels', async (t) => {
  const shared = {
    buffers: [2],
    channels: 2,
    threads: [[fill(0, 0, 1, 7)], [fill(0, 1, 1, 8, 1)], [move(0)]],
    device: WHOLE,
  }
  exhaust(t, 'both use the buffer', shared, { preemptions: 0 })
  const apart = {
    buffers: [2, 2],
    channels: 2,
    undisturbed: [1],
    threads: [[fill(0, 0, 2, 7)], [fill(1, 0, 2, 8, 1)], [move(0)]],
    device: WHOLE,
  }
  exhaust(t, 'the one that does not use it never stops', apart, { preemptions: 0 })
})

t.test('locking what moved, or all that is in use: the same outcomes', async (t) => {
  const cases: [string, HeartOptions, number][] = [
    ['one move', { buffers: [2], threads: [[fill(0, 0, 2, 7)], [move(0)]] }, 1],
    [
      'two buffers moved at once',
      { buffers: [2, 2], threads: [[copy(0, 1, 2)], [move(0)], [move(1)]], device: WHOLE },
      0,
    ],
  ]
  for (const [name, options, preemptions] of cases) {
    const outcomes = [false, true].map((lockAll) => {
      const found = new Set<string>()
      const title = `${name}, lockAll ${String(lockAll)}`
      exhaust(t, title, { ...options, importer: { lockAll }, outcomes: found }, { preemptions })
      return [...found].sort()
    })
    t.same(outcomes[1], outcomes[0], name)
  }
})

t.test('faults put in on purpose are found', async (t) => {
  const one = { buffers: [2], threads: [[fill(0, 0, 2, 7)], [move(0)]] }
  const two = {
    buffers: [2, 2],
    threads: [[copy(0, 1, 2)], [move(0)], [move(1)]],
    device: WHOLE,
  }
  const faults: [string, HeartOptions, string, string, string, RegExp][] = [
    [
      'the drain is not waited for',
      one,
      'importer/restart.ts',
      'await withDeadline(stopped, stopTimeoutMs, late)',
      'void stopped; void withDeadline; void late',
      /which is not stopped/,
    ],
    [
      'the move fence is not waited for',
      one,
      'importer/restart.ts',
      'await buffer.reservation.wait(Usage.KERNEL, { timeoutMs: limits.fenceTimeoutMs })',
      '',
      /its backing is filling/,
    ],
    [
      'the gate opens without a second look',
      two,
      'importer/restart.ts',
      "this.#state === 'restoring' && this.#blockers.size === 0 && this.#invalidations === seen",
      'true',
      /./,
    ],
    [
      'an attachment is closed without the reservation',
      { buffers: [2], threads: [[close('attachment')]] },
      'importer/attachment.ts',
      `await reservation.lock()
    try {
      await this.detach('close', attachmentClosed())
    } finally {
      reservation.unlock()
    }`,
      "void reservation; await this.detach('close', attachmentClosed())",
      /under the reservation lock/,
    ],
    [
      'the old backing is poisoned before the fence has signalled',
      one,
      'exporter/move.ts',
      'await fence?.wait()',
      '',
      /while a copy reads it/,
    ],
  ]
  for (const [name, options, file, find, replace, message] of faults) {
    const patches = [{ file: `lib/move-notify/${file}`, find, replace }]
    const exploration = heart(options, { patches, preemptions: 1, maxExecutions: 20_000 })
    const { failure, executions } = explore(exploration)
    t.match(failure?.message, message, `${name}: found in execution ${executions}`)
    const again = replay(exploration, failure?.schedule ?? [])
    t.match(String(again.error), message, `${name}: and its schedule shows it again`)
  }
})

/** Every interleaving of a close, an abort, a pin, a bracket or a revoke with a move and work. */
import t from 'tap'
import type { Call, HeartOptions } from './cases/heart.js'
import { close, exhaust, fill, move } from './heart-help.js'

t.setTimeout(1_800_000)

const WHOLE = { chunks: false }
const CLOSED = ['ERR_CLOSED', 'ERR_OUTCOME_UNKNOWN']
const WORK = [[fill(0, 0, 2, 7)], [move(0)]]
/** A close comes between any two turns of the event loop; the quick cases go between microtasks. */
const FEW = { preemptions: 0 }
const ABORT: Call = { do: 'abort', signal: 's' }

for (const what of ['buffer', 'attachment', 'channel', 'importer'] as const) {
  t.test(`close of the ${what}, twice, anywhere`, async (t) => {
    const threads = [...WORK, [close(what)]]
    const quick = { buffers: [2], threads, allow: CLOSED, device: WHOLE }
    exhaust(t, 'in a move', quick, { preemptions: 1 })
    exhaust(t, 'in a slow move', { ...quick, device: { chunks: false, slow: true } }, FEW)
    const forced = {
      ...quick,
      importer: { stopTimeoutMs: 10 },
      device: { chunks: false, hangStops: [0] },
    }
    exhaust(t, 'with a device that hangs', forced, FEW)
    const dead: HeartOptions = {
      ...forced,
      device: { ...forced.device, failForces: true },
      allow: [...CLOSED, 'ETIMEDOUT', 'ERR_IMPORTER_FAILED'],
      failures: true,
    }
    exhaust(t, 'with a device that cannot be forced either', dead, FEW)
    const remap: HeartOptions = {
      ...quick,
      importer: { mapRetries: 1 },
      device: { chunks: false, failMaps: [1, 2, 3, 4] },
      allow: [...CLOSED, 'ERR_REMAP_FAILED'],
      failures: true,
    }
    exhaust(t, 'in a remap that fails', remap, FEW)
    const attach: HeartOptions = {
      buffers: [2],
      threads: [[{ do: 'attach', buffer: 0 }], [move(0)], [close(what)]],
      allow: CLOSED,
      device: { slow: true },
    }
    exhaust(t, 'in an attach', attach, FEW)
  })
}

t.test('abort, anywhere', async (t) => {
  const allow = ['ABORT_ERR']
  const cases: [string, Call[][]][] = [
    ['of a move', [[fill(0, 0, 2, 7)], [move(0, 's')], [ABORT]]],
    ['of work', [[{ ...fill(0, 0, 2, 7), signal: 's' } as Call], [move(0)], [ABORT]]],
    ['of an attach', [[{ do: 'attach', buffer: 0, signal: 's' }], [move(0)], [ABORT]]],
  ]
  for (const [name, threads] of cases) {
    exhaust(t, name, { buffers: [2], threads, allow, device: WHOLE }, { preemptions: 1 })
  }
})

t.test('what holds a move off', async (t) => {
  const pin: HeartOptions = {
    buffers: [2],
    threads: [[{ do: 'pin', buffer: 0 }], ...WORK],
    allow: ['EBUSY'],
    device: WHOLE,
  }
  exhaust(t, 'a pin', pin, FEW)
  const cpu: HeartOptions = { buffers: [2], threads: [[{ do: 'cpu', buffer: 0 }], [move(0)]] }
  exhaust(t, 'a bracket of CPU access', cpu)
  const threads = [...cpu.threads, [close('buffer')]]
  exhaust(t, 'a bracket, and a close', { ...cpu, threads, allow: ['ERR_CLOSED'] }, FEW)
})

t.test('revoke', async (t) => {
  const threads: Call[][] = [[{ do: 'revoke', buffer: 0 }], [move(0)], [fill(0, 0, 2, 7)]]
  const allow = ['ERR_REVOKED']
  exhaust(t, 'with a move and work', { buffers: [2], threads, allow, device: WHOLE }, FEW)
  const closing = [[threads[0]?.[0] ?? move(0)], [fill(0, 0, 2, 7)], [close('buffer')]]
  exhaust(t, 'with a close', { buffers: [2], threads: closing, allow: [...allow, ...CLOSED] }, FEW)
})

/** Larger cases of the heart, drawn by fast-check: any calls, any faults, any order. */
import fc from 'fast-check'
import type { Call, HeartOptions } from './cases/heart.js'

const BUFFERS = 3
const CHANNELS = 2
const SIZE = 16

const index = (count: number) => fc.nat({ max: count - 1 })
const buffer = index(BUFFERS)
const channel = index(CHANNELS)
const signal = fc.constantFrom('s', 't')

/** Every FILL and FETCH_ADD has a value of its own, which `number` gives it. */
const call: fc.Arbitrary<Call> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('fill' as const),
      channel,
      target: buffer,
      at: index(8),
      length: fc.integer({ min: 1, max: 3 }),
      byte: fc.integer({ min: 1, max: 255 }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('copy' as const),
      channel,
      source: buffer,
      from: index(8),
      target: buffer,
      at: index(8),
      length: fc.integer({ min: 1, max: 3 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('add' as const),
      channel,
      target: buffer,
      at: fc.constant(8),
      value: fc.integer({ min: 1, max: 9 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('fill' as const),
      channel,
      target: buffer,
      at: index(8),
      length: fc.constant(1),
      byte: fc.constant(77),
      signal,
    }),
  },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('move' as const), buffer }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('move' as const), buffer, signal }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('moveTogether' as const),
      buffers: fc.uniqueArray(buffer, { minLength: 2 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('abort' as const), signal }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('pin' as const), buffer }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('cpu' as const), buffer }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('revoke' as const), buffer }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('attach' as const), buffer, signal }) },
  {
    weight: 1,
    arbitrary: fc.oneof(
      fc.record({
        do: fc.constant('close' as const),
        what: fc.constant('buffer' as const),
        index: buffer,
      }),
      fc.record({
        do: fc.constant('close' as const),
        what: fc.constant('attachment' as const),
        index: buffer,
      }),
      fc.record({
        do: fc.constant('close' as const),
        what: fc.constant('channel' as const),
        index: channel,
      }),
      fc.record({
        do: fc.constant('close' as const),
        what: fc.constant('importer' as const),
        index: fc.constant(0),
      }),
    ),
  },
)

const few = fc.uniqueArray(fc.nat({ max: 9 }), { maxLength: 3 })

interface Draw {
  threads: Call[][]
  faulty: boolean
  failAllocations: number[]
  failCopies: number[]
  hangCopies: number[]
  failMaps: number[]
  hangStops: number[]
  failForces: boolean
  slow: boolean
  instant: boolean
  dmaBuf: boolean
  chunks: boolean
  lockAll: boolean
  minRunMs: number
  starvationLimit: number
}

const draw: fc.Arbitrary<Draw> = fc.record({
  threads: fc.array(fc.array(call, { minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 4 }),
  faulty: fc.boolean(),
  failAllocations: few,
  failCopies: few,
  hangCopies: few,
  failMaps: few,
  hangStops: few,
  failForces: fc.boolean(),
  slow: fc.boolean(),
  instant: fc.boolean(),
  dmaBuf: fc.boolean(),
  chunks: fc.boolean(),
  lockAll: fc.boolean(),
  minRunMs: fc.constantFrom(0, 1),
  starvationLimit: fc.constantFrom(0, 1, 8),
})

/** A case, and the errors that it may show: those that its calls and faults explain. */
export const heartCases: fc.Arbitrary<HeartOptions> = draw.map((drawn) => {
  const { threads, faulty } = drawn
  const does = (what: Call['do']) => threads.flat().some((each) => each.do === what)
  const allow = new Set<string>()
  if (does('close')) allow.add('ERR_CLOSED').add('ERR_OUTCOME_UNKNOWN')
  if (does('abort')) allow.add('ABORT_ERR')
  if (does('pin')) allow.add('EBUSY')
  if (does('revoke')) allow.add('ERR_REVOKED')
  const shifted = (numbers: number[]) => numbers.map((number) => number + BUFFERS)
  if (faulty) {
    for (const code of ['ENOMEM', 'EIO', 'ERR_FENCE_FAILED', 'ETIMEDOUT', 'ERR_REMAP_FAILED']) {
      allow.add(code)
    }
    allow.add('ERR_OUTCOME_UNKNOWN').add('ERR_IMPORTER_FAILED')
  }
  const { dmaBuf, instant, slow } = drawn
  return {
    buffers: [SIZE, SIZE, SIZE],
    channels: CHANNELS,
    threads,
    importer: {
      lockAll: drawn.lockAll,
      minRunMs: drawn.minRunMs,
      starvationLimit: drawn.starvationLimit,
      mapRetries: 1,
      ...(faulty ? { stopTimeoutMs: 10, fenceTimeoutMs: 30 } : {}),
    },
    memory: faulty
      ? {
          failAllocations: shifted(drawn.failAllocations),
          failCopies: drawn.failCopies,
          hangCopies: drawn.hangCopies,
          lateCopies: true,
          slow,
          instant,
          dmaBuf,
        }
      : { slow, instant, dmaBuf },
    device: faulty
      ? {
          failMaps: shifted(drawn.failMaps),
          hangStops: drawn.hangStops,
          failForces: drawn.failForces,
          slow,
          instant,
          chunks: drawn.chunks,
        }
      : { slow, instant, chunks: drawn.chunks },
    ...(faulty ? { move: { copyTimeoutMs: 20, cpuTimeoutMs: 1000 } } : {}),
    allow: [...allow],
    failures: faulty,
  }
})

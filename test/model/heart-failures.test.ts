/** Every interleaving of moves that fail, devices that hang, and work in between. */
import t from 'tap'
import type { Call, HeartOptions } from './cases/heart.js'
import { add, close, copy, exhaust, fill, move } from './heart-help.js'

t.setTimeout(1_800_000)

const WHOLE = { chunks: false }
const ONE: HeartOptions = { buffers: [2], threads: [[fill(0, 0, 2, 7)], [move(0)]] }

t.test('a failed allocation stops nothing', async (t) => {
  const memory = { failAllocations: [1] }
  exhaust(t, 'ENOMEM', { ...ONE, memory, allow: ['ENOMEM'], undisturbed: [0] })
})

t.test('a failed copy leaves the buffer where it was', async (t) => {
  const memory = { failCopies: [0] }
  const published = { ...ONE, memory, allow: ['ERR_FENCE_FAILED'], failures: true }
  exhaust(t, 'after it was published', published)
  exhaust(t, 'before it was published', {
    ...ONE,
    memory: { ...memory, dmaBuf: true },
    allow: ['EIO'],
  })
  const again = { ...published, threads: [...ONE.threads, [move(0)]], device: WHOLE }
  exhaust(t, 'with another move behind it', again, { preemptions: 0 })
  const together: HeartOptions = {
    ...published,
    buffers: [2, 2],
    threads: [[{ do: 'moveTogether', buffers: [0, 1] }], [copy(0, 1, 2)]],
    device: WHOLE,
  }
  exhaust(t, 'of a mover who holds the locks', together, { preemptions: 0 })
  // The channel is stopped still, with work that names what the next move begins to fill.
  const behind: HeartOptions = {
    ...together,
    memory: { failCopies: [1] },
    threads: [[{ do: 'moveTogether', buffers: [0, 1] }], [move(1)], [copy(0, 1, 1)]],
  }
  exhaust(t, 'of such a mover, with another move behind it', behind, { preemptions: 0 })
  const pinned: HeartOptions = {
    ...published,
    threads: [[{ do: 'pin', buffer: 0 }], [move(0)]],
    allow: ['ERR_FENCE_FAILED', 'EBUSY'],
  }
  exhaust(t, 'with a pin that came during it', pinned)
})

t.test('a copy past its deadline', async (t) => {
  const allow = ['ETIMEDOUT', 'ERR_FENCE_FAILED']
  const late = { ...ONE, allow, failures: true, move: { copyTimeoutMs: 10 } }
  exhaust(t, 'comes after all, or in time', { ...late, memory: { lateCopies: true } })
  const memory = { lateCopies: true, hangCopies: [0] }
  exhaust(t, 'never comes', { ...late, memory })
  const importer = { fenceTimeoutMs: 5 }
  exhaust(t, 'never comes, and the importer is less patient', { ...late, memory, importer })
})

t.test('a failed remap', async (t) => {
  exhaust(t, 'is retried', { ...ONE, device: { failMaps: [1] } }, { preemptions: 1 })
  const forGood: HeartOptions = {
    buffers: [2, 2],
    threads: [[fill(0, 0, 2, 7)], [fill(1, 0, 2, 9)], [move(0)]],
    importer: { mapRetries: 1 },
    device: { failMaps: [2, 3], chunks: false },
    allow: ['ERR_REMAP_FAILED'],
    failures: true,
  }
  const outcomes = new Set<string>()
  exhaust(t, 'then fails that attachment alone', { ...forGood, outcomes }, { preemptions: 0 })
  const others = [...outcomes].every((line) => /"?,\[9,9\]\]$/.test(line))
  t.ok(outcomes.size > 0 && others, 'work on the other buffer is done in every case')
})

t.test('a place that the importer cannot map', async (t) => {
  const away: Call = { do: 'move', buffer: 0, to: 'far' }
  const device = { refuses: 'far', chunks: false }
  const refused: HeartOptions = { ...ONE, device, allow: ['EOPNOTSUPP'], undisturbed: [0] }
  exhaust(t, 'is refused, and nothing stops', { ...refused, threads: [[fill(0, 0, 2, 7)], [away]] })
  const tour: HeartOptions = {
    ...ONE,
    device,
    threads: [[fill(0, 0, 2, 7)], [{ do: 'tour', buffer: 0, places: ['far'] }]],
    allow: ['ERR_REMAP_FAILED'],
    failures: true,
  }
  exhaust(t, 'fails the attachment when it is forced', tour, { preemptions: 1 })
  // Without `failures`: it is mapped at the end, however it got there.
  const back = (...places: string[]): HeartOptions => ({
    ...tour,
    threads: [[fill(0, 0, 2, 7)], [{ do: 'tour', buffer: 0, places }]],
    failures: false,
  })
  exhaust(t, 'and the next move brings it back', back('far', 'b'), { preemptions: 1 })
  const failing = {
    ...back('far', 'b', 'b'),
    memory: { failCopies: [1] },
    allow: ['ERR_REMAP_FAILED', 'ERR_FENCE_FAILED'],
  }
  exhaust(t, 'or the one after a move that fails', failing, { preemptions: 0 })
  const closed = { ...back('far', 'b'), allow: ['ERR_REMAP_FAILED', 'ERR_CLOSED'] }
  closed.threads = [...closed.threads, [close('attachment')]]
  exhaust(t, 'unless it is closed meanwhile', closed, { preemptions: 0 })
})

t.test('a device that does not stop in time', async (t) => {
  const importer = { stopTimeoutMs: 10 }
  const late: HeartOptions = { ...ONE, importer, device: WHOLE }
  exhaust(t, 'is forced, or stops after all', late, { preemptions: 1 })
  const atomic: HeartOptions = {
    buffers: [8],
    threads: [[fill(0, 1, 2, 7), add(0, 1)], [move(0)]],
    importer,
    device: { hangStops: [0] },
    allow: ['ERR_OUTCOME_UNKNOWN'],
  }
  exhaust(t, 'is forced, with an atomic on the way', atomic, { preemptions: 0 })
  const dead: HeartOptions = {
    ...ONE,
    importer,
    device: { hangStops: [0], failForces: true },
    allow: ['ETIMEDOUT', 'ERR_OUTCOME_UNKNOWN', 'ERR_IMPORTER_FAILED'],
    failures: true,
  }
  exhaust(t, 'and cannot be forced', dead)
})

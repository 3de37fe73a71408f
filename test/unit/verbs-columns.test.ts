/** The native side of the columns of work requests and completions: the last guard. */
import t from 'tap'
import { ReceiveBatch, SendBatch, WorkCompletions } from '../../lib/kernel/verbs/index.js'
import { nativeVerbs } from '../../lib/native-verbs.js'

const memory = new SharedArrayBuffer(256)
const wide = (over: ArrayBufferLike = memory) => new Float64Array(over, 0, 4)
const word = (over: ArrayBufferLike = memory) => new Uint32Array(over, 0, 4)

/** Four receives, with one of their columns put in another's place. */
function receives(columns: {
  wrId?: Float64Array
  length?: Float64Array
  lkey?: Uint32Array
}): unknown {
  const { wrId = wide(), length = wide(), lkey = word() } = columns
  return nativeVerbs().verbsReceiveColumns(4, wrId, wide(), length, lkey)
}

t.test('columns lie in one shared memory, and are long enough', (t) => {
  t.doesNotThrow(() => receives({}))
  for (const make of [SendBatch, ReceiveBatch, WorkCompletions]) {
    t.equal(new make(3).capacity, 3, make.name)
  }
  const type = { code: 'ERR_INVALID_ARG_TYPE' }
  t.throws(() => receives({ length: word() as never }), { ...type, argument: 'length' })
  t.throws(() => receives({ lkey: [1, 2, 3, 4] as never }), { ...type, argument: 'lkey' })
  // Could be detached, and its memory freed.
  const detachable = new ArrayBuffer(256)
  t.throws(() => receives({ lkey: word(detachable) }), { ...type, argument: 'lkey' })
  const range = { code: 'ERR_OUT_OF_RANGE' }
  const short = new Uint32Array(memory, 0, 3)
  t.throws(() => receives({ lkey: short }), { ...range, argument: 'lkey', message: /too short/ })
  // Only the first one's is kept.
  const own = new SharedArrayBuffer(256)
  const ofItsOwn = { ...range, message: /memory of its own/ }
  t.throws(() => receives({ lkey: word(own) }), { ...ofItsOwn, argument: 'lkey' })
  t.throws(() => receives({ wrId: wide(own) }), { ...ofItsOwn, argument: 'address' })
  t.end()
})

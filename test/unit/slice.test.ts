/** The event loop has its turns, however many begin at once. */
import t from 'tap'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { SharedSlice } from '../../lib/move-notify/reservation/slice.js'
import { trace } from '../../lib/move-notify/trace.js'
import { FakeExporter } from './fake-memory.js'

/** How many `what` were counted in each turn of the event loop while `work` went on. */
async function perTurn(what: { count: number }, work: () => Promise<unknown>): Promise<number[]> {
  const turns: number[] = []
  let going = true
  const look = () => {
    turns.push(what.count)
    what.count = 0
    if (going) setImmediate(look)
  }
  setImmediate(look)
  await work()
  going = false
  turns.push(what.count)
  return turns
}

t.test('so many calls in a turn, and the first first', async (t) => {
  const slice = new SharedSlice(4)
  const done: number[] = []
  const seen = { count: 0 }
  const call = async (index: number) => {
    const turn = slice.next()
    if (turn !== undefined) await turn
    done.push(index)
    seen.count++
  }
  const turns = await perTurn(seen, () =>
    Promise.all(Array.from({ length: 50 }, (_, i) => call(i))),
  )
  t.ok(Math.max(...turns) <= 4, turns.join(' '))
  t.strictSame(
    done,
    done.toSorted((a, b) => a - b),
  )
})

t.test('one after the other, too', async (t) => {
  const slice = new SharedSlice(4)
  const seen = { count: 0 }
  const loop = async () => {
    for (let i = 0; i < 50; i++) {
      await slice.next()
      seen.count++
    }
  }
  t.ok(Math.max(...(await perTurn(seen, loop))) <= 4)
})

t.test('moves that begin at once', async (t) => {
  const exporter = new FakeExporter('there')
  const buffers = await Promise.all(
    Array.from({ length: 500 }, () => MovableBuffer.create(4096, new FakeExporter('here'))),
  )
  const moved = { count: 0 }
  const onMove = () => moved.count++
  trace.move.subscribe(onMove)
  const turns = await perTurn(moved, () => Promise.all(buffers.map((each) => each.move(exporter))))
  trace.move.unsubscribe(onMove)
  t.equal(
    turns.reduce((sum, count) => sum + count, 0),
    500,
  )
  t.ok(Math.max(...turns) <= 64, turns.join(' '))
  await Promise.all(buffers.map((each) => each.close()))
})

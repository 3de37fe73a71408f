/** What the channels of all engines have in common: states, checks, and who is told of what. */
import t from 'tap'
import type { P2pdmaError } from '../../lib/errors.js'
import { Batch, Completions, Op } from '../../lib/move-notify/importer/batch.js'
import type { EngineChannel } from '../../lib/move-notify/importer/engine.js'
import { FakeEngine } from './fake-memory.js'

const turn = () => new Promise((resolve) => setImmediate(resolve))

function open(depth = 4) {
  const engine = new FakeEngine()
  const told = { completions: 0, closed: 0 }
  const channel = engine.openChannel({
    depth,
    onCompletion: () => void told.completions++,
    onClosed: () => void told.closed++,
  })
  return { engine, told, channel, device: engine.channels[0]! }
}

/** The code of what it throws, or rejects with. */
async function codeOf(call: () => unknown): Promise<string | undefined> {
  try {
    await call()
  } catch (error) {
    return (error as P2pdmaError).code
  }
  return undefined
}

t.test('arguments are checked in each state that is not closed', async (t) => {
  const { channel } = open()
  const batch = new Batch(2)
  const look = async (state: string) => {
    for (const [first, count] of [
      [3, 0],
      [0, 3],
      [2, 1],
      [-1, 1],
      [0.5, 1],
      [NaN, 0],
      [0, 2 ** 32],
    ] as const) {
      const code = await codeOf(() => channel.post(batch, first, count))
      t.equal(code, 'ERR_OUT_OF_RANGE', `${state}: ${first}, ${count}`)
    }
    for (const bad of ['0', null, 1n, Symbol('0'), {}] as unknown as number[]) {
      t.equal(await codeOf(() => channel.post(batch, bad, 1)), 'ERR_INVALID_ARG_TYPE')
      t.equal(await codeOf(() => channel.post(batch, 0, bad)), 'ERR_INVALID_ARG_TYPE')
    }
    const neither = {} as unknown as Batch & Completions
    t.equal(await codeOf(() => channel.post(neither, 0, 1)), 'ERR_INVALID_ARG_TYPE')
    t.equal(await codeOf(() => channel.reap(neither)), 'ERR_INVALID_ARG_TYPE')
  }
  await look('running')
  t.equal(channel.post(batch, 0, 2), 2)
  const stopped = channel.stop()
  await look('stopping')
  await stopped
  await look('stopped')
  t.equal(channel.post(batch, 0, 2), 0, 'nothing is accepted')
  channel.close()
})

t.test('a stop is over when the device is quiet, or was made so', async (t) => {
  const { channel, device } = open()
  t.equal(await codeOf(() => channel.restart()), 'ERR_INVALID_STATE', 'it runs')
  let quiet: (() => void)[] = []
  device.beforeQuiet = () => new Promise((resolve) => quiet.push(resolve))
  const over: string[] = []
  const stop = (name: string) => Promise.resolve(channel.stop()).then(() => over.push(name))
  void stop('first')
  void stop('also')
  await turn()
  t.same(over, [])
  t.equal(quiet.length, 1, 'one stop')
  t.equal(await codeOf(() => channel.restart()), 'ERR_INVALID_STATE', 'it has not stopped yet')
  t.equal(channel.force(), 2)
  await turn()
  t.same(over, ['first', 'also'])
  t.equal(channel.stop(), undefined, 'it is stopped')
  channel.restart()
  void stop('next')
  quiet[0]?.()
  await turn()
  t.same(over, ['first', 'also'], 'the quiet of a stop before is none of this one')
  quiet[1]?.()
  await turn()
  t.same(over, ['first', 'also', 'next'])
  quiet = []
  channel.restart()
  void stop('last')
  channel.close()
  await turn()
  t.same(over, ['first', 'also', 'next', 'last'], 'closed')
})

t.test('a force that fails leaves the epoch, and the stop', async (t) => {
  const { channel, device } = open()
  device.beforeForce = () => {
    throw new Error('cannot')
  }
  void channel.stop()
  t.throws(() => channel.force(), { message: 'cannot' })
  t.equal(await codeOf(() => channel.restart()), 'ERR_INVALID_STATE')
  device.beforeForce = () => undefined
  t.equal(channel.force(), 2)
  channel.close()
})

t.test('once for each arm, and not after the close', async (t) => {
  const { channel, told } = open()
  const batch = new Batch(2)
  const out = new Completions(4)
  batch.op.fill(Op.NOP)
  channel.arm()
  channel.arm()
  channel.post(batch, 0, 2)
  for (let i = 0; i < 3; i++) await turn()
  t.equal(told.completions, 1)
  channel.arm()
  await turn()
  t.equal(told.completions, 2, 'what is there already')
  t.equal(channel.reap(out), 2)
  channel.arm()
  await turn()
  t.equal(told.completions, 2, 'nothing is there')
  await channel.stop()
  channel.restart()
  channel.post(batch, 0, 1)
  for (let i = 0; i < 3; i++) await turn()
  t.equal(told.completions, 3, 'armed still')
  channel.arm()
  channel.close()
  await turn()
  t.equal(told.completions, 3)
})

t.test('closed it throws, and is told of once', async (t) => {
  const { channel, told } = open()
  const batch = new Batch(1)
  channel.post(batch, 0, 1)
  channel.close()
  channel.close()
  t.equal(told.closed, 0, 'not within the call')
  await turn()
  t.equal(told.closed, 1)
  t.equal(channel.inFlight, 0)
  t.equal(channel.uses(0), false)
  const calls: ((each: EngineChannel) => unknown)[] = [
    (each) => each.post(batch, 0, 1),
    (each) => each.reap(new Completions(1)),
    (each) => each.arm(),
    (each) => each.stop(),
    (each) => each.force(),
    (each) => each.restart(),
  ]
  for (const call of calls) t.equal(await codeOf(() => call(channel)), 'ERR_CLOSED')
})

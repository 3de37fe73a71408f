/**
 * Verbs programs that end at each stage, and objects that nobody closes: no
 * crash, no hang, and the kernel's counts return to where they were.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import t from 'tap'
import { collect, turn } from '../lifecycle/support.js'
import { stages } from './verbs-stages.js'
import { rdmaResources, settledResources } from './verbs-support.js'

t.setTimeout(900_000)

const child = fileURLToPath(new URL('./verbs-exit-child.js', import.meta.url))

/** Far beyond what any of them takes: a hang ends, and shows as the signal. */
const HUNG_MS = 300_000

async function run(stage: string, end: string) {
  const process_ = spawn(process.execPath, [child, stage, end], {
    timeout: HUNG_MS,
    killSignal: 'SIGKILL',
  })
  let stderr = ''
  process_.stderr.on('data', (data) => (stderr += String(data)))
  const [code, signal] = (await once(process_, 'close')) as [number | null, string | null]
  return { code, signal, stderr }
}

/** An engine listens, and has work that is waited for: it ends with its process. */
const held = new Set(['engines that are connected', 'work in flight, and a move'])

for (const [stage, reach] of Object.entries(stages)) {
  if (held.has(stage)) continue
  t.test(`the garbage collector closes what nobody did: ${stage}`, async (t) => {
    const before = rdmaResources()
    const hold: { made: unknown } = { made: await reach() }
    t.not(rdmaResources(), before, 'something was open')
    hold.made = undefined
    let now = rdmaResources()
    for (let i = 0; i < 30 && now !== before; i++) {
      collect()
      await turn(100)
      now = rdmaResources()
    }
    t.equal(now, before)
  })
}

for (const stage of ['making and registering', 'work in flight, and a move']) {
  t.test(`a process ends: ${stage}`, async (t) => {
    const before = rdmaResources()
    const [exit, thrown] = await Promise.all([run(stage, 'exit'), run(stage, 'throw')])
    t.same(exit, { code: 7, signal: null, stderr: '' }, 'process.exit')
    t.match(thrown, { code: 1, signal: null, stderr: /thrown on purpose/ }, 'uncaught exception')
    t.equal(await settledResources(before), before)
  })
}

t.test('nothing that was opened keeps a process alive', async (t) => {
  const before = rdmaResources()
  const ended = { code: 0, signal: null, stderr: '' }
  t.same(await run('requests under way', 'end'), ended)
  t.equal(await settledResources(before), before)
})

/** Those at which something of each kind is under way: loading a worker takes long in the guest. */
const busy = ['completion queue', 'requests under way', 'work in flight, and a move'] as const

for (const stage of busy) {
  t.test(`a worker is terminated: ${stage}`, async (t) => {
    const before = rdmaResources()
    const worker = new Worker(child, { argv: [stage, 'stay'] })
    await once(worker, 'message')
    t.not(rdmaResources(), before, 'something was open')
    await worker.terminate()
    t.equal(await settledResources(before), before)
  })
}

t.test('a worker ends by itself', async (t) => {
  const before = rdmaResources()
  const exits = new Worker(child, { argv: ['engines that are connected', 'exit'] })
  const throws = new Worker(child, { argv: ['requests under way', 'throw'], stderr: true })
  const [exit, thrown] = await Promise.all([once(exits, 'exit'), once(throws, 'error')])
  t.same(exit, [7], 'process.exit')
  t.match(thrown, [{ message: 'thrown on purpose' }], 'uncaught exception')
  t.equal(await settledResources(before), before)
})

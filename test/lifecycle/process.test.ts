/** Processes and workers that end at each stage of the flow: no crash, no hang, no leak. */
import t from 'tap'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { stages } from './stages.js'
import { back, usage } from './support.js'

const child = fileURLToPath(new URL('./child.js', import.meta.url))

/**
 * Far beyond what any of them takes, on a machine with ten times as much to do as it has CPUs:
 * a hang ends, and shows as the signal.
 */
const HUNG_MS = 900_000

interface Ending {
  code: number | null
  signal: string | null
  stdout: string
  stderr: string
}

async function run(stage: string, end: string): Promise<Ending> {
  const process_ = spawn(process.execPath, [child, stage, end], {
    timeout: HUNG_MS,
    killSignal: 'SIGKILL',
  })
  const output = { stdout: '', stderr: '' }
  process_.stdout.on('data', (data) => (output.stdout += String(data)))
  process_.stderr.on('data', (data) => (output.stderr += String(data)))
  const [code, signal] = (await once(process_, 'close')) as [number | null, string | null]
  return { code, signal, ...output }
}

t.setTimeout(2 * HUNG_MS)

for (const stage of Object.keys(stages)) {
  void t.test(`a process ends: ${stage}`, async (t) => {
    const [exit, thrown] = await Promise.all([run(stage, 'exit'), run(stage, 'throw')])
    t.same(exit, { code: 7, signal: null, stdout: '', stderr: '' }, 'process.exit')
    t.match(thrown, { code: 1, signal: null, stderr: /thrown on purpose/ }, 'uncaught exception')
    const [killed, natural] = await Promise.all([run(stage, 'sigterm'), run(stage, 'end')])
    t.same(killed, { code: null, signal: 'SIGTERM', stdout: '', stderr: '' }, 'SIGTERM')
    const ended = { code: 0, signal: null, stdout: 'all done\n', stderr: '' }
    t.same(natural, ended, 'by itself, when all is done and not before')
  })
}

void t.test('workers are terminated at each stage', async (t) => {
  const terminate = async (stage: string) => {
    const worker = new Worker(child, { argv: [stage, 'stay'], stdout: true })
    await once(worker, 'message')
    await worker.terminate()
  }
  // The first one of all starts what stays: threads of the pool, and the like.
  await terminate('moving')
  const before = usage()
  for (const stage of Object.keys(stages)) {
    for (let i = 0; i < 3; i++) await terminate(stage)
    const after = await back(before)
    t.ok(after.fds <= before.fds, `${stage}: descriptors, threads and mappings are back`)
  }
})

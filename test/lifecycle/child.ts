/** Run by process.test.ts as a process or a worker: goes to a stage, then ends in some way. */
import { parentPort } from 'node:worker_threads'
import { stages } from './stages.js'

const [stage = '', end] = process.argv.slice(2)
const pending = (await stages[stage]?.()) ?? [Promise.reject(new Error(`no stage ${stage}`))]

switch (end) {
  case 'exit':
    process.exit(7)
    break
  case 'throw':
    setImmediate(() => {
      throw new Error('thrown on purpose')
    })
    break
  case 'sigterm':
    process.kill(process.pid, 'SIGTERM')
    // Where anybody listens for it (tap does) it ends the process in a later turn: until then
    // nothing else may.
    pending.push(new Promise(() => setInterval(() => {}, 1000)))
    break
  default:
}
// Nothing else holds the process: it must not end before this is written.
void Promise.all(pending).then(() => process.stdout.write('all done\n'))
parentPort?.postMessage('ready')

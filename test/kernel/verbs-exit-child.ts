/** Run by verbs-exit.test.ts as a process or a worker: goes to a stage, then ends in some way. */
import { parentPort } from 'node:worker_threads'
import { stages } from './verbs-stages.js'

const [stage = '', end] = process.argv.slice(2)
/** Held until the end. */
const made = await stages[stage]?.()
if (made === undefined) throw new Error(`no stage ${stage}`)

if (end === 'exit') process.exit(7)
if (end === 'throw') {
  setImmediate(() => {
    throw new Error('thrown on purpose')
  })
}
parentPort?.postMessage('ready')
if (end === 'stay') setInterval(() => made, 1000)

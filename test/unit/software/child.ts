/** Run by lifecycle.test.ts as a process or a worker: brings an engine to a stage, then ends. */
import { parentPort } from 'node:worker_threads'
import { Op } from '../../../lib/move-notify/importer/batch.js'
import { Bench, MiB, until } from './rig.js'

const [stage, end] = process.argv.slice(2)
const bench = new Bench()
const { engine, channel } = bench
bench.map(1, 64 * MiB)
bench.map(2, 64 * MiB)
const long = { source: 1, target: 2, length: 64 * MiB }

switch (stage) {
  case 'unarmed':
    bench.post(long, long)
    break
  case 'in-flight':
    bench.post(...Array.from({ length: 64 }, () => long))
    channel.arm()
    break
  case 'stopping':
    engine.inject({ kind: 'stall' })
    bench.post(long)
    await until(() => engine.stats().injected === 1)
    void channel.stop()
    break
  case 'stopped':
    bench.post(long, long)
    await channel.stop()
    break
  case 'hung':
    engine.inject({ kind: 'stall' })
    bench.post(long)
    channel.arm()
    await until(() => engine.stats().injected === 1)
    channel.force()
    channel.restart()
    break
  case 'stray':
    engine.inject({ kind: 'stray' })
    engine.unmap(1)
    break
  case 'closed':
    bench.post(long)
    await engine.close()
    break
  case 'awaited':
    engine.inject({ kind: 'stall', ms: 100 })
    void bench.run({ op: Op.NOP }).then(() => process.stdout.write('completed\n'))
    break
  case 'throwing': {
    const thrower = engine.openChannel({
      depth: 1,
      onCompletion: () => {
        throw new Error('thrown in a completion')
      },
    })
    bench.batch.op[0] = Op.NOP
    thrower.post(bench.batch, 0, 1)
    thrower.arm()
    break
  }
  default:
}

parentPort?.postMessage('ready')
if (end === 'exit') process.exit(7)
if (end === 'stay') setInterval(() => undefined, 1000)

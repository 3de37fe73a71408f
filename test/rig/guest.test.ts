/**
 * What needs a real kernel: one boot of the rig, in which the tests of
 * test/kernel and every example run. Their TAP becomes a subtest of this file.
 * A rig that is missing is a failure (its hint is on stderr), not a skip.
 */
import { join } from 'node:path'
import t from 'tap'
import { dist, kernelTests, root } from '../kernel/list.js'

// tap's own settings and loaders are for this process, and slow in the guest.
const environment = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^(_?TAP|TS_NODE|NODE_OPTIONS)/.test(name)),
)

const limit = 65 * 60_000
t.setTimeout(limit + 60_000)

await t.spawn(
  process.execPath,
  [
    ...[join(dist, 'lib/cli/main.js'), 'rig', '--timeout', String(limit / 1000)],
    // A disk for bind.test.ts, of nothing.
    ...['--device', 'nvme,serial=p2pdma,drive=disk'],
    ...['--device', '-blockdev driver=null-co,node-name=disk,size=67108864,read-zeroes=on', '--'],
    ...[process.execPath, join(dist, 'test/kernel/run.js')],
    ...kernelTests('rig'),
  ],
  { cwd: root, env: environment, timeout: limit + 30_000 },
  'guest',
)

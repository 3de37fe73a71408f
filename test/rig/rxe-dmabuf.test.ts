/** Dma-bufs on soft-RoCE: one boot of the rig with the modules of test/modules. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import t from 'tap'
import { dist, kernelTests, root } from '../kernel/list.js'

// Where the cache has no modules yet they are built: a download of 250 MB, and the compiler.
const limit = 40 * 60_000
t.setTimeout(limit + 60_000)

// tap's own settings and loaders are for this process, and slow in the guest.
const environment = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^(_?TAP|TS_NODE|NODE_OPTIONS)/.test(name)),
)

const main = join(dist, 'lib/cli/main.js')

t.test('set up once', async (t) => {
  const options = { cwd: root, env: environment, encoding: 'utf8' } as const
  const { status, stderr, stdout } = spawnSync(
    process.execPath,
    [main, 'rig', '--setup', '--rxe-dmabuf'],
    options,
  )
  t.equal(status, 0, stderr)
  t.equal(stdout, '')
  t.match(stderr, /soft-RoCE with dma-bufs is .*\/rdma_rxe\.ko/)
})

await t.spawn(
  process.execPath,
  [
    ...[main, 'rig', '--rxe-dmabuf', '--timeout', String(limit / 1000), '--'],
    ...[process.execPath, join(dist, 'test/kernel/run.js')],
    ...kernelTests('rxe-dmabuf'),
  ],
  { cwd: root, env: environment, timeout: limit + 30_000 },
  'guest with --rxe-dmabuf',
)

/** Dma-bufs on soft-RoCE: one boot of the rig with the modules of test/modules. */
import { spawnSync } from 'node:child_process'
import t from 'tap'
import { root } from '../kernel/list.js'
import { environment, main, runInGuest } from './guest.js'

// Where the cache has no modules yet they are built: a download of 250 MB, and the compiler.
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

await runInGuest('guest with --rxe-dmabuf', 'rxe-dmabuf', ['--rxe-dmabuf'])

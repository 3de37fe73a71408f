/**
 * One boot of the rig in which files of test/kernel run: their TAP becomes a
 * subtest of the caller's. A rig that is missing is a failure (its hint is on
 * stderr), not a skip.
 */
import { join } from 'node:path'
import t from 'tap'
import { allowedComplaints } from '../kernel/complaints.js'
import { dist, kernelTests, root } from '../kernel/list.js'

// tap's own settings and loaders are for this process, and slow in the guest.
export const environment = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^(_?TAP|TS_NODE|NODE_OPTIONS)/.test(name)),
)

export const main = join(dist, 'lib/cli/main.js')

/** Ten minutes are usual: emulation on a busy machine takes several times as long. */
const LIMIT_MS = 60 * 60_000
t.setTimeout(LIMIT_MS + 60_000)

export async function runInGuest(
  name: string,
  tests: Parameters<typeof kernelTests>[0],
  rigArguments: readonly string[] = [],
): Promise<void> {
  const files = kernelTests(tests)
  const allowed = allowedComplaints(files.map((file) => file.split(' ')[1] ?? ''))
  await t.spawn(
    process.execPath,
    [
      ...[main, 'rig', '--timeout', String(LIMIT_MS / 1000), ...rigArguments, ...allowed, '--'],
      ...[process.execPath, join(root, 'bundle/test/kernel/run.js'), ...files],
    ],
    { cwd: root, env: environment, timeout: LIMIT_MS + 30_000 },
    name,
  )
}

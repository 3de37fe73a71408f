/**
 * What needs a real kernel: one boot of the rig, in which the tests of
 * test/kernel and every example run. Their TAP becomes a subtest of this file.
 * A rig that is missing is a failure (its hint is on stderr), not a skip.
 */
import { readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const dist = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
const root = dirname(dist)

/** The compiled files of a folder, from its sources: dist may hold some that are gone. */
function compiled(folder: string, suffix: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(suffix))
    .sort()
    .map((name) => join('dist', folder, name.replace(/\.ts$/, '.js')))
}

// tap's own settings and loaders are for this process, and slow in the guest.
const environment = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^(_?TAP|TS_NODE|NODE_OPTIONS)/.test(name)),
)

const limit = 25 * 60_000
t.setTimeout(limit + 60_000)

await t.spawn(
  process.execPath,
  [
    ...[join(dist, 'lib/cli/main.js'), 'rig', '--timeout', String(limit / 1000), '--'],
    ...[process.execPath, join(dist, 'test/kernel/run.js')],
    ...compiled('test/kernel', '.test.ts').map((file) => `tap ${file}`),
    ...compiled('examples', '.ts').map((file) => `run ${file}`),
  ],
  { cwd: root, env: environment, timeout: limit + 30_000 },
  'guest',
)

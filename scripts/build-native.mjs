// Builds the addon with node-gyp against the headers of the node that runs
// this, so that no download is needed where they are installed beside it.
// `--if-stale`: do nothing when the addon is newer than all of its sources.
import { existsSync, readdirSync, statSync } from 'node:fs'
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const output = join(root, 'build/Release/p2pdma.node')
const require = createRequire(import.meta.url)

function newest(path) {
  const stat = statSync(path)
  if (!stat.isDirectory()) return stat.mtimeMs
  return Math.max(0, ...readdirSync(path).map((name) => newest(join(path, name))))
}

function isStale() {
  if (!existsSync(output)) return true
  const sources = ['native', 'binding.gyp'].map((name) => newest(join(root, name)))
  return statSync(output).mtimeMs < Math.max(...sources)
}

/** node-gyp of this package, or the one that npm carries. */
function nodeGyp() {
  try {
    return require.resolve('node-gyp/bin/node-gyp.js')
  } catch {
    const carried = process.env.npm_config_node_gyp
    if (carried !== undefined) return carried
    throw new Error('node-gyp not found: run `npm install` in the package first')
  }
}

if (!process.argv.includes('--if-stale') || isStale()) {
  const args = [
    nodeGyp(),
    existsSync(join(root, 'build/Makefile')) ? 'build' : 'rebuild',
    '--jobs=max',
  ]
  const prefix = dirname(dirname(process.execPath))
  if (existsSync(join(prefix, 'include/node/node_api.h'))) args.push(`--nodedir=${prefix}`)
  const result = spawnSync(process.execPath, args, {
    cwd: root,
    stdio: ['ignore', process.stderr, process.stderr],
  })
  process.exitCode = result.status ?? 1
}

// Builds the addons with node-gyp against the headers of the node that runs
// this, so that no download is needed where they are installed beside it.
// `--if-stale`: do nothing when the addons are newer than all of their sources.
import { existsSync, readdirSync, statSync } from 'node:fs'
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { hasVerbs } from './has-verbs.mjs'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
// The second one only where the headers of libibverbs are.
const verbs = hasVerbs()
const outputs = ['p2pdma.node', ...(verbs ? ['p2pdma_verbs.node'] : [])].map((name) =>
  join(root, 'build/Release', name),
)
const require = createRequire(import.meta.url)

function newest(path) {
  const stat = statSync(path)
  if (!stat.isDirectory()) return stat.mtimeMs
  return Math.max(0, ...readdirSync(path).map((name) => newest(join(path, name))))
}

function isStale() {
  if (!outputs.every(existsSync)) return true
  const sources = ['native', 'binding.gyp'].map((name) => newest(join(root, name)))
  return outputs.some((output) => statSync(output).mtimeMs < Math.max(...sources))
}

/** Whether the Makefile is there, and of the targets that there are now. */
function isConfigured() {
  if (!existsSync(join(root, 'build/Makefile'))) return false
  return existsSync(join(root, 'build/p2pdma_verbs.target.mk')) === verbs
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
  const args = [nodeGyp(), isConfigured() ? 'build' : 'rebuild', '--jobs=max']
  const prefix = dirname(dirname(process.execPath))
  if (existsSync(join(prefix, 'include/node/node_api.h'))) args.push(`--nodedir=${prefix}`)
  const result = spawnSync(process.execPath, args, {
    cwd: root,
    stdio: ['ignore', process.stderr, process.stderr],
  })
  process.exitCode = result.status ?? 1
}

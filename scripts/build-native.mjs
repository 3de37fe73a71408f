// Builds the addons with node-gyp against the headers of the node that runs
// this, so that no download is needed where they are installed beside it.
// `--if-stale`: do nothing when the addons are newer than all of their sources.
// `--sanitize`: into build/asan, with AddressSanitizer and UBSan in them; a test
// alone loads those (test/native/sanitizers.test.ts).
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, statSync, symlinkSync } from 'node:fs'
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { hasVerbs } from './has-verbs.mjs'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const sanitize = process.argv.includes('--sanitize')
/** Where binding.gyp is read, and `build` is made. */
const folder = sanitize ? join(root, 'build/asan') : root
// The second one only where the headers of libibverbs are.
const verbs = hasVerbs()
const outputs = ['p2pdma.node', ...(verbs ? ['p2pdma_verbs.node'] : [])].map((name) =>
  join(folder, 'build/Release', name),
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
  if (!existsSync(join(folder, 'build/Makefile'))) return false
  return existsSync(join(folder, 'build/p2pdma_verbs.target.mk')) === verbs
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

/** The sources, seen from another folder. */
function linkSources() {
  mkdirSync(join(folder, 'scripts'), { recursive: true })
  // Not by links, whose targets some of them take for their own place.
  for (const name of ['binding.gyp', 'package.json', 'scripts/has-verbs.mjs']) {
    cpSync(join(root, name), join(folder, name), { preserveTimestamps: true })
  }
  rmSync(join(folder, 'native'), { force: true })
  symlinkSync(join(root, 'native'), join(folder, 'native'))
}

/** An error is reported with its stack, and ends the process. */
const sanitizers = '-fsanitize=address,undefined -fno-sanitize-recover=undefined'

/** gyp puts them after its own, when it makes the Makefile. */
const flags = {
  CXXFLAGS: `-O1 -g1 -fno-omit-frame-pointer ${sanitizers}`,
  LDFLAGS: sanitizers,
}

if (!process.argv.includes('--if-stale') || isStale()) {
  if (sanitize) linkSources()
  const args = [nodeGyp(), isConfigured() ? 'build' : 'rebuild', '--jobs=max']
  const prefix = dirname(dirname(process.execPath))
  if (existsSync(join(prefix, 'include/node/node_api.h'))) args.push(`--nodedir=${prefix}`)
  const result = spawnSync(process.execPath, args, {
    cwd: folder,
    env: { ...process.env, ...(sanitize && flags) },
    stdio: ['ignore', process.stderr, process.stderr],
  })
  process.exitCode = result.status ?? 1
}

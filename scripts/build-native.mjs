// Builds the addons with node-gyp against the headers of the node that runs
// this, so that no download is needed where they are installed beside it. Each is
// built in a folder of its own and put into build/Release when it is done: until then
// the one that was there before can be loaded, and stays where the build fails.
// `--if-stale`: only those addons that are older than their sources, or missing.
// `--sanitize`: into build/asan, with AddressSanitizer and UBSan in them; a test
// alone loads those (test/native/sanitizers.test.ts).
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
} from 'node:fs'
import { spawnSync } from 'node:child_process'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { missingTools, nodeGyp } from './build-tools.mjs'
import { whyNoVerbs } from './has-verbs.mjs'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const sanitize = process.argv.includes('--sanitize')
const ifStale = process.argv.includes('--if-stale')
const home = sanitize ? join(root, 'build/asan') : root
/** Where the addons are loaded from. */
const release = join(home, 'build/Release')
/** Where binding.gyp is read, and node-gyp makes a `build` of its own. */
const stage = join(home, 'build/stage')
const whyNot = whyNoVerbs()
const started = new Date()

function newest(path) {
  const stat = statSync(path)
  if (!stat.isDirectory()) return stat.mtimeMs
  return Math.max(0, ...readdirSync(path).map((name) => newest(join(path, name))))
}

function isStale(target) {
  const output = join(release, `${target}.node`)
  if (!existsSync(output)) return true
  const sources = ['native', 'binding.gyp'].map((name) => newest(join(root, name)))
  return statSync(output).mtimeMs < Math.max(...sources)
}

/** Whether the Makefile is there, was made here, and of the targets that there are now. */
function isConfigured() {
  const made = join(stage, 'build')
  if (!existsSync(join(made, 'Makefile'))) return false
  const makefile = readFileSync(join(made, 'Makefile'), 'utf8')
  // Its folder may have been copied from elsewhere.
  const isHere = makefile.includes(join(made, 'config.gypi'))
  // That file itself stays where an earlier configuration has left it.
  return isHere && makefile.includes('p2pdma_verbs.target.mk') === (whyNot === null)
}

/** The sources, seen from the stage. */
function linkSources() {
  mkdirSync(join(stage, 'scripts'), { recursive: true })
  // Not by links, whose targets some of them take for their own place.
  for (const name of ['binding.gyp', 'package.json', 'scripts/has-verbs.mjs']) {
    cpSync(join(root, name), join(stage, name), { preserveTimestamps: true })
  }
  rmSync(join(stage, 'native'), { force: true })
  symlinkSync(relative(stage, join(root, 'native')), join(stage, 'native'))
}

/** An error is reported with its stack, and ends the process. */
const sanitizers = '-fsanitize=address,undefined -fno-sanitize-recover=undefined'

/** gyp puts them after its own, when it makes the Makefile. */
const flags = {
  // Most of a build's time is spent here once, and little of it would come back in the tests.
  CXXFLAGS: `-O0 -g1 -fno-omit-frame-pointer ${sanitizers}`,
  LDFLAGS: sanitizers,
}

/** Whether it went well. */
function runNodeGyp(...words) {
  const { status } = spawnSync(process.execPath, [nodeGyp(), ...words], {
    cwd: stage,
    env: { ...process.env, ...(sanitize && flags) },
    stdio: ['ignore', process.stderr, process.stderr],
  })
  return status === 0
}

function configure() {
  const prefix = dirname(dirname(process.execPath))
  const isInstalled = existsSync(join(prefix, 'include/node/node_api.h'))
  return runNodeGyp('configure', ...(isInstalled ? [`--nodedir=${prefix}`] : []))
}

/** In one step: whoever loads it meanwhile gets the old one, or the new one. */
function place(target) {
  const name = `${target}.node`
  mkdirSync(release, { recursive: true })
  const coming = join(release, `${name}.${process.pid}`)
  try {
    copyFileSync(join(stage, 'build/Release', name), coming)
    // What is changed while it is being built makes it stale.
    utimesSync(coming, started, started)
    renameSync(coming, join(release, name))
  } finally {
    rmSync(coming, { force: true })
  }
}

function build(targets) {
  linkSources()
  if (!isConfigured() && !configure()) return false
  // Each by itself: where the second fails, the first has come.
  return targets.every((target) => {
    const isBuilt = runNodeGyp('build', '--jobs=max', target)
    if (isBuilt) place(target)
    return isBuilt
  })
}

const targets = ['p2pdma', ...(whyNot === null ? ['p2pdma_verbs'] : [])]
const wanted = ifStale ? targets.filter(isStale) : targets
if (wanted.length !== 0) {
  const missing = missingTools()
  if (missing !== null) {
    console.error(`p2pdma: ${missing}`)
    process.exit(1)
  }
  if (!build(wanted)) process.exitCode = 1
  else if (whyNot !== null) {
    console.error(
      `p2pdma: built without RDMA devices: ${whyNot}. To have them, install ` +
        '`apt-get install libibverbs-dev librdmacm-dev` or `dnf install rdma-core-devel`, then ' +
        `\`node ${fileURLToPath(import.meta.url)}\``,
    )
  }
}

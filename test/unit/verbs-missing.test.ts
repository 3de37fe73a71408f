/** The package where libibverbs is not, and where it was built without its headers. */
import { execFileSync, spawnSync } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')
const realGyp = createRequire(import.meta.url).resolve('node-gyp/bin/node-gyp.js')
const folder = mkdtempSync(join(tmpdir(), 'p2pdma-verbs-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))

/** A package of its own, with our compiled files and first addon. */
function packageWithout(name: string): string {
  const made = join(folder, name)
  mkdirSync(join(made, 'build/Release'), { recursive: true })
  for (const each of ['package.json', 'dist/lib']) {
    cpSync(join(root, each), join(made, each), { recursive: true })
  }
  symlinkSync(join(root, 'node_modules'), join(made, 'node_modules'))
  cpSync(join(root, 'build/Release/p2pdma.node'), join(made, 'build/Release/p2pdma.node'))
  return made
}

const program = `
import { MovableBuffer, memfd, openEngine } from 'p2pdma'
const buffer = await MovableBuffer.create(4096, memfd())
const engine = await openEngine('software')
const attachment = await engine.importer().attach(buffer)
await buffer.move(memfd())
const done = await attachment.importer.fill(attachment, 0, 4096, 7)
await engine.close()
await buffer.close()
const refused = await openEngine('verbs:rxe0').then(() => null, (error) => error)
const { code, message, hint } = refused
process.stdout.write(JSON.stringify({ bytes: done.bytes, code, message, hint }))
`

function run(made: string): unknown {
  const file = join(made, 'program.mjs')
  writeFileSync(file, program)
  return JSON.parse(execFileSync(process.execPath, [file], { cwd: made, encoding: 'utf8' }))
}

t.setTimeout(900_000)

t.test('built without its headers', async (t) => {
  t.match(run(packageWithout('bare')), {
    bytes: 4096,
    code: 'ERR_VERBS_MISSING',
    message: 'p2pdma was built without support for RDMA devices',
    hint: /apt-get install libibverbs-dev librdmacm-dev.*npm rebuild p2pdma/,
  })
})

t.test('on a machine without the libraries', async (t) => {
  const made = packageWithout('unlinked')
  // It stands for our addon where the loader does not find libibverbs.so.1: a
  // library that needs one that is nowhere.
  const source = join(made, 'addon.c')
  writeFileSync(source, 'extern int nowhere(void);\nint addon(void) { return nowhere(); }\n')
  const library = join(made, 'libnowhere-p2pdma.so')
  writeFileSync(join(made, 'nowhere.c'), 'int nowhere(void) { return 0; }\n')
  const cc = (...words: string[]) => void execFileSync(process.env['CC'] ?? 'cc', words)
  cc('-shared', '-fPIC', '-o', library, join(made, 'nowhere.c'))
  cc('-shared', '-fPIC', '-o', join(made, 'build/Release/p2pdma_verbs.node'), source, library)
  rmSync(library)
  t.match(run(made), {
    bytes: 4096,
    code: 'ERR_VERBS_MISSING',
    message: 'The libraries for RDMA devices could not be loaded',
    hint: /apt-get install libibverbs1 librdmacm1 ibverbs-providers/,
  })
})

/**
 * Runs a script of ours where the headers are, or with a compiler in front of
 * the real one that does not find them: it stands for a machine without the
 * packages, whose compiler ends the same way.
 */
function withHeaders(there: boolean, script: string, ...words: string[]): string {
  const compiler = join(folder, 'c++')
  const missing = "echo 'fatal error: infiniband/verbs.h: No such file or directory' >&2; exit 1"
  const lookedFor = 'case " $* " in *" -E "*) ' + missing + ';; esac'
  writeFileSync(compiler, `#!/bin/sh\n${there ? '' : lookedFor}\nexec c++ "$@"\n`)
  chmodSync(compiler, 0o755)
  const { stdout, stderr, status } = spawnSync(process.execPath, [script, ...words], {
    encoding: 'utf8',
    env: { ...process.env, CXX: compiler },
  })
  if (status !== 0) throw new Error(stderr)
  return stdout.trim()
}

t.test('the headers are asked for', async (t) => {
  const script = join(root, 'scripts/has-verbs.mjs')
  t.equal(withHeaders(false, script), '0')
  t.equal(withHeaders(true, script), '1')
})

t.test('the second addon is left out, and comes in when the headers arrive', async (t) => {
  const made = join(folder, 'build')
  cpSync(join(root, 'scripts'), join(made, 'scripts'), { recursive: true })
  cpSync(join(root, 'binding.gyp'), join(made, 'binding.gyp'))
  mkdirSync(join(made, 'native'))
  mkdirSync(join(made, 'node_modules/node-gyp/bin'), { recursive: true })
  symlinkSync(join(root, 'node_modules/node-addon-api'), join(made, 'node_modules/node-addon-api'))
  // Stands for node-gyp, which would take minutes: the real one configures, but
  // instead of the compiler it makes the outputs of the targets that there are then.
  writeFileSync(
    join(made, 'node_modules/node-gyp/bin/node-gyp.js'),
    `
    const { execFileSync } = require('node:child_process')
    const { appendFileSync, mkdirSync, readdirSync, writeFileSync } = require('node:fs')
    const [command, ...words] = process.argv.slice(2)
    appendFileSync('calls', command + '\\n')
    if (command === 'rebuild') {
      const configure = [${JSON.stringify(realGyp)}, 'clean', 'configure', ...words]
      execFileSync(process.execPath, configure, { stdio: 'pipe' })
    }
    mkdirSync('build/Release', { recursive: true })
    for (const name of readdirSync('build')) {
      const [, target] = /^(p2pdma.*)\\.target\\.mk$/.exec(name) ?? []
      if (target !== undefined) writeFileSync('build/Release/' + target + '.node', '')
    }
    `,
  )
  const script = join(made, 'scripts/build-native.mjs')
  const calls = () =>
    existsSync(join(made, 'calls')) ? readFileSync(join(made, 'calls'), 'utf8').trim() : ''
  const built = (name: string) => existsSync(join(made, 'build/Release', name))
  const build = (there: boolean) => withHeaders(there, script, '--if-stale')

  build(false)
  t.equal(calls(), 'rebuild')
  t.ok(built('p2pdma.node') && !built('p2pdma_verbs.node'), 'left out')
  build(false)
  t.equal(calls(), 'rebuild', 'nothing is stale')
  build(true)
  t.equal(calls(), 'rebuild\nrebuild', 'configured anew, not only built')
  t.ok(built('p2pdma_verbs.node'), 'it has come in')
  build(true)
  t.equal(calls(), 'rebuild\nrebuild')
  // An addon that is there is not taken away by headers that have gone.
  build(false)
  t.equal(calls(), 'rebuild\nrebuild')
})

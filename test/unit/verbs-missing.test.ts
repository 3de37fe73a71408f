/** The package where libibverbs is not, and where it was built without its headers. */
import { execFileSync, spawnSync } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { root } from '../kernel/list.js'
import { patched } from './native-help.js'
import { copyPackage } from './package-copy.js'

const realGyp = createRequire(import.meta.url).resolve('node-gyp/bin/node-gyp.js')
const folder = mkdtempSync(join(tmpdir(), 'p2pdma-verbs-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))

const second = 'build/Release/p2pdma_verbs.node'
const isThere = existsSync(join(root, second))
const noSecond = isThere ? false : 'the second addon is not built: no headers of libibverbs'

/** A package of its own, with our first addon. */
function packageOf(name: string): string {
  const made = copyPackage(join(folder, name))
  mkdirSync(join(made, 'build/Release'), { recursive: true })
  cpSync(join(root, 'build/Release/p2pdma.node'), join(made, 'build/Release/p2pdma.node'))
  return made
}

/** Runs a module in a package; what it has put into `out`. */
function run(made: string, text: string, env: NodeJS.ProcessEnv = {}): unknown {
  const file = join(made, 'program.mjs')
  const write = 'process.stdout.write(JSON.stringify(out))'
  const told = 'const told = ({ code, message, hint }) => ({ code, message, hint })'
  writeFileSync(file, [told, 'const out = []', text, write].join('\n'))
  const options = { cwd: made, encoding: 'utf8', env: { ...process.env, ...env } } as const
  return JSON.parse(execFileSync(process.execPath, [file], options))
}

/** The software engine, which needs none of it; then a NIC. */
const software = `
import { MovableBuffer, memfd, openEngine } from 'p2pdma'
const buffer = await MovableBuffer.create(4096, memfd())
const engine = await openEngine('software')
const attachment = await engine.importer().attach(buffer)
await buffer.move(memfd())
out.push((await attachment.importer.fill(attachment, 0, 4096, 7)).bytes)
await engine.close()
await buffer.close()
await openEngine('verbs:rxe0').catch((error) => out.push(told(error)))
`

const missing = { code: 'ERR_VERBS_MISSING' }
const nowhere = 'libnowhere.so.1'

t.setTimeout(900_000)

t.test('built without its headers', async (t) => {
  t.match(run(packageOf('bare'), software), [
    4096,
    {
      ...missing,
      message: 'p2pdma was built without support for RDMA devices',
      hint: /apt-get install libibverbs-dev librdmacm-dev.*dnf install rdma-core-devel.*`node \S*\/scripts\/build-native.mjs`/,
    },
  ])
})

t.test('the addon is linked to none of its libraries', { skip: noSecond }, async (t) => {
  const addon = join(root, second)
  const inspect = (program: string, ...words: string[]) =>
    execFileSync(program, [...words, addon], { encoding: 'utf8' })
  const dynamic = inspect('readelf', '-d', '-W')
  t.match(dynamic, /NEEDED.*libstdc\+\+/, 'its libraries are read')
  t.notMatch(dynamic, /NEEDED.*(ibverbs|rdmacm)/)
  t.notMatch(inspect('nm', '-D', '--undefined-only'), /\b_?(ibv|rdma)_/)
  // A provider would be bound to one of that name.
  t.notMatch(inspect('nm', '-D', '--defined-only'), /\b_?(ibv|rdma)_/)
})

t.test('a library that is missing', { skip: noSecond }, async (t) => {
  const made = packageOf('missing')
  const libraries = join(made, 'libraries')
  mkdirSync(libraries)
  // Our addon, that asks for a name which no machine has: it stands for a machine without the library.
  const ours = join(made, second)
  const env = { LD_LIBRARY_PATH: libraries }
  const install = `symlinkSync(real, ${JSON.stringify(join(libraries, nowhere))})`
  const real = `
    import { execFileSync } from 'node:child_process'
    import { symlinkSync } from 'node:fs'
    const listed = execFileSync('/sbin/ldconfig', ['-p'], { encoding: 'utf8' })
    const pathOf = (name) => listed.match(new RegExp(name + '.*=> (.*)'))[1]`
  const hint =
    /apt-get install libibverbs1 librdmacm1 ibverbs-providers.*dnf install libibverbs librdmacm/

  patched(join(root, second), ours, 'libibverbs.so.1', nowhere)
  const program = `${software}${real}
    const real = pathOf('libibverbs.so.1')
    ${install}
    await openEngine('verbs:rxe0').catch((error) => out.push(error.code))`
  const [bytes, refused, found] = run(made, program, env) as unknown[]
  t.equal(bytes, 4096, 'the rest works')
  t.match(refused, { ...missing, message: /^libnowhere\.so\.1 .*No such file/, hint })
  t.match(found, /^(ENODEV|ENOSYS)$/, 'once it is there, the same process finds it')

  rmSync(join(libraries, nowhere))
  patched(join(root, second), ours, 'librdmacm.so.1', 'libnowher.so.1')
  const cm = `
    import { ConnectionManager, openEngine } from 'p2pdma'
    await ConnectionManager.open().catch((error) => out.push(told(error)))
    await openEngine('verbs:rxe0').catch((error) => out.push(error.code))`
  t.match(run(made, cm, env), [
    { ...missing, message: /^libnowher\.so\.1 .*No such file/, hint },
    // Which needs no librdmacm.
    /^(ENODEV|ENOSYS)$/,
  ])
})

t.test('a library that is there and cannot be used', { skip: noSecond }, async (t) => {
  const made = packageOf('broken')
  cpSync(join(root, second), join(made, second))
  const env = { LD_LIBRARY_PATH: made }
  const library = join(made, 'libibverbs.so.1')
  const open = `
    import { openEngine } from 'p2pdma'
    await openEngine('verbs:rxe0').catch((error) => out.push(told(error)))`
  writeFileSync(library, '')
  t.match(run(made, open, env), [{ ...missing, message: /file too short/ }])
  // The real one, without a function that each has.
  const from = execFileSync('/sbin/ldconfig', ['-p'], { encoding: 'utf8' })
  const real = /libibverbs\.so\.1 .*=> (.*)/.exec(from)?.[1] ?? ''
  patched(real, library, 'ibv_destroy_comp_channel\0', 'ibv_destroy_comp_channeX\0')
  t.match(run(made, open, env), [
    { ...missing, message: /no function ibv_destroy_comp_channel in it/ },
  ])
})

type Headers = 'there' | 'missing' | 'old'

/** Ends the compiler's search for headers: `text` is what it was given. */
const compilers: Record<Headers, string> = {
  there: ':',
  missing: "echo 'fatal error: infiniband/verbs.h: No such file or directory' >&2; exit 1",
  old: `case $text in *ibv_reg_dmabuf_mr*) echo 'error: not declared' >&2; exit 1;; esac; exit 0`,
}

/**
 * Runs a script of ours with a compiler in front of the real one, which finds headers or
 * does not: it stands for a machine without the packages, whose compiler ends the same way.
 */
function withHeaders(headers: Headers, script: string, words: string[], env = {}) {
  const compiler = join(folder, 'c++')
  const look = `case " $* " in *" -fsyntax-only "*) text=$(cat); ${compilers[headers]}`
  // What was read is not there for the real one: it is asked for nothing.
  writeFileSync(compiler, `#!/bin/sh\n${look}; exit 0;; esac\nexec c++ "$@"\n`)
  chmodSync(compiler, 0o755)
  return spawnSync(process.execPath, [script, ...words], {
    encoding: 'utf8',
    env: { ...process.env, CXX: compiler, ...env },
  })
}

t.test('the headers are asked for', async (t) => {
  const script = join(root, 'scripts/has-verbs.mjs')
  t.equal(withHeaders('missing', script, []).stdout, '0\n')
  t.equal(withHeaders('old', script, []).stdout, '0\n')
  t.equal(withHeaders('there', script, []).stdout, '1\n')
  const { stdout } = spawnSync(process.execPath, [script], { encoding: 'utf8' })
  t.equal(stdout, isThere ? '1\n' : '0\n', 'by the real compiler')
})

t.test('the second addon is left out, and comes in when the headers arrive', async (t) => {
  const made = join(folder, 'build')
  cpSync(join(root, 'scripts'), join(made, 'scripts'), { recursive: true })
  for (const name of ['binding.gyp', 'package.json']) cpSync(join(root, name), join(made, name))
  mkdirSync(join(made, 'native'))
  mkdirSync(join(made, 'node_modules/node-gyp/bin'), { recursive: true })
  symlinkSync(join(root, 'node_modules/node-addon-api'), join(made, 'node_modules/node-addon-api'))
  const calls = join(made, 'calls')
  const first = join(made, 'build/Release/p2pdma.node')
  // Stands for node-gyp, which would take minutes: the real one configures, but instead of
  // the compiler it makes the output of a target that there is then, or fails. It notes what
  // it was called for, and which first addon could be loaded meanwhile.
  writeFileSync(
    join(made, 'node_modules/node-gyp/bin/node-gyp.js'),
    `
    const { execFileSync } = require('node:child_process')
    const { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } = require('node:fs')
    const [command, ...words] = process.argv.slice(2)
    const target = command === 'build' ? words.at(-1) : ''
    const first = ${JSON.stringify(first)}
    const loaded = existsSync(first) ? readFileSync(first, 'utf8') : 'none'
    appendFileSync(${JSON.stringify(calls)}, [command, target, loaded].join(' ') + '\\n')
    if (command === 'configure') {
      execFileSync(process.execPath, [${JSON.stringify(realGyp)}, ...process.argv.slice(2)])
    } else {
      if (process.env.BREAKS === target) process.exit(1)
      const makefile = readFileSync('build/Makefile', 'utf8')
      if (!makefile.includes(target + '.target.mk')) throw new Error('no target ' + target)
      mkdirSync('build/Release', { recursive: true })
      writeFileSync('build/Release/' + target + '.node', process.env.MARK)
    }
    `,
  )
  const script = join(made, 'scripts/build-native.mjs')
  const builtIn = (headers: Headers, mark: string, ...more: string[]) => {
    const [breaks = ''] = more
    const env = { MARK: mark, BREAKS: breaks }
    const { status, stderr } = withHeaders(headers, script, ['--if-stale'], env)
    const done = existsSync(calls) ? readFileSync(calls, 'utf8').trim().split('\n') : []
    rmSync(calls, { force: true })
    return { status, stderr, done }
  }
  const output = (name: string) => {
    const file = join(made, 'build/Release', name)
    return existsSync(file) ? readFileSync(file, 'utf8') : null
  }

  const without = builtIn('missing', 'A')
  t.equal(without.status, 0, without.stderr)
  t.strictSame(without.done, ['configure  none', 'build p2pdma none'])
  t.match(without.stderr, /built without RDMA devices: the headers of .* are missing.*apt-get/)
  t.equal(output('p2pdma.node'), 'A')
  t.equal(output('p2pdma_verbs.node'), null, 'left out')
  t.strictSame(builtIn('missing', 'B').done, [], 'nothing is stale')
  t.strictSame(builtIn('old', 'B').done, [], 'these would not do')

  // The build of the second: it alone is built, and the first can be loaded all the time.
  const broken = builtIn('there', 'C', 'p2pdma_verbs')
  t.not(broken.status, 0)
  t.strictSame(broken.done, ['configure  A', 'build p2pdma_verbs A'])
  t.equal(output('p2pdma.node'), 'A', 'nor is it lost where that fails')
  t.equal(output('p2pdma_verbs.node'), null)
  t.strictSame(builtIn('there', 'D').done, ['build p2pdma_verbs A'])
  t.equal(output('p2pdma.node'), 'A')
  t.equal(output('p2pdma_verbs.node'), 'D', 'it has come in')
  t.strictSame(builtIn('there', 'E').done, [])
  // An addon that is there is not taken away by headers that have gone.
  t.strictSame(builtIn('missing', 'E').done, [])
  t.equal(output('p2pdma_verbs.node'), 'D')

  // After a change of both: where the second fails, the first has come.
  const age = (file: string) => void utimesSync(file, new Date(0), new Date(0))
  age(first)
  age(join(made, 'build/Release/p2pdma_verbs.node'))
  t.not(builtIn('there', 'F', 'p2pdma_verbs').status, 0)
  t.equal(output('p2pdma.node'), 'F')
  t.equal(output('p2pdma_verbs.node'), 'D')

  // Headers that go, and come again.
  age(first)
  t.strictSame(builtIn('missing', 'G').done, ['configure  F', 'build p2pdma F'])
  const again = ['configure  G', 'build p2pdma_verbs G']
  t.strictSame(builtIn('there', 'H').done, again)
  t.equal(output('p2pdma_verbs.node'), 'H')
  const names = readdirSync(join(made, 'build/Release')).sort()
  t.strictSame(names, ['p2pdma.node', 'p2pdma_verbs.node'], 'nothing else is left')
})

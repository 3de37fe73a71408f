/** What is told where the addon is missing, or cannot be built. */
import { spawnSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { root } from '../kernel/list.js'
import { copyPackage } from './package-copy.js'

const folder = realpathSync(mkdtempSync(join(tmpdir(), 'p2pdma-build-')))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))
t.setTimeout(300_000)

/** A path that a shell would take apart. */
const made = copyPackage(join(folder, "a rig's $HOME"))
// Stands for the build: it says that it was run, and how.
const said = join(folder, 'said')
mkdirSync(join(made, 'scripts'))
writeFileSync(
  join(made, 'scripts/build-native.mjs'),
  `import { writeFileSync } from 'node:fs'\nwriteFileSync(${JSON.stringify(said)}, JSON.stringify(process.argv.slice(2)))\n`,
)

/** Of the error that the package's import ends with. */
function told(): { code: string; message: string; hint: string } {
  writeFileSync(
    join(made, 'program.mjs'),
    `import('p2pdma').catch(({ code, message, hint }) => console.log(JSON.stringify({ code, message, hint })))`,
  )
  const { stdout } = spawnSync(process.execPath, ['program.mjs'], { cwd: made, encoding: 'utf8' })
  return JSON.parse(stdout) as { code: string; message: string; hint: string }
}

/** Does what the hint says, elsewhere. */
function follow(hint: string): void {
  const [, command = ''] = /`(.*)`/.exec(hint) ?? []
  spawnSync('sh', ['-c', command], { cwd: folder })
}

void t.test('it is not built', async (t) => {
  const { code, message, hint } = told()
  t.equal(code, 'ERR_DLOPEN_FAILED')
  t.match(message, /is not built: install scripts may be off/)
  follow(hint)
  t.equal(readFileSync(said, 'utf8'), '[]')
})

void t.test('it does not load', async (t) => {
  const build = join(made, 'build')
  mkdirSync(join(build, 'Release'), { recursive: true })
  writeFileSync(join(build, 'Release/p2pdma.node'), 'of another machine')
  rmSync(said)
  const { code, message, hint } = told()
  t.equal(code, 'ERR_DLOPEN_FAILED')
  t.match(message, /does not load: .*p2pdma\.node/)
  follow(hint)
  t.equal(readFileSync(said, 'utf8'), '[]')
  t.notOk(existsSync(build), 'what make would take for done is gone')
})

void t.test('what it is built with is missing', async (t) => {
  const bare = join(folder, 'bare')
  cpSync(join(root, 'scripts'), join(bare, 'scripts'), { recursive: true })
  const bin = join(bare, 'bin')
  mkdirSync(bin)
  const build = () => {
    const script = join(bare, 'scripts/build-native.mjs')
    const env = { PATH: bin }
    const { status, stderr } = spawnSync(process.execPath, [script], { env, encoding: 'utf8' })
    return { status, stderr }
  }
  const line = (what: string, debian: string, fedora: string) =>
    `p2pdma: the addon cannot be built: ${what} missing. Install ` +
    `\`apt-get install ${debian}\` (Debian, Ubuntu) or \`dnf install ${fedora}\` (Fedora, RHEL)\n`
  t.same(build(), {
    status: 1,
    stderr: line('python3, make and g++ are', 'python3 make g++', 'python3 make gcc-c++'),
  })
  for (const name of ['python3', 'make']) symlinkSync(process.execPath, join(bin, name))
  t.same(build(), { status: 1, stderr: line('g++ is', 'g++', 'gcc-c++') })
})

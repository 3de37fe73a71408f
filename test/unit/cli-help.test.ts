/** What needs no device needs no addon: help, the version, and what a usage error says. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { copyPackage } from './package-copy.js'

const folder = mkdtempSync(join(tmpdir(), 'p2pdma-help-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))
t.setTimeout(300_000)
copyPackage(folder)

const hooks = join(folder, 'hooks.mjs')
writeFileSync(
  hooks,
  `
import { writeSync } from 'node:fs'
export async function load(url, context, next) {
  if (context.format !== 'builtin') writeSync(3, url + '\\n')
  return next(url, context)
}
`,
)
const register = `data:text/javascript,import { register } from 'node:module'; register(${JSON.stringify(pathToFileURL(hooks).href)})`

/** Runs the command; `loaded`: the modules, by their places in the package. */
function p2pdma(...args: string[]) {
  const main = join(folder, 'dist/lib/cli/main.js')
  const { status, stdout, stderr, output } = spawnSync(
    process.execPath,
    ['--import', register, main, ...args],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe', 'pipe'] },
  )
  const base = pathToFileURL(`${folder}/`).href
  const loaded = (output[3] ?? '')
    .trim()
    .split('\n')
    .map((url) => url.replace(base, ''))
  return { status, stdout, stderr, loaded }
}

/** Of those that there are, some 350: what a command's text and options are made of. */
const FEW = 100
/** What needs the addon, or devices. */
const heavy = /native|bindings|^dist\/lib\/(?:engines|exporters|move-notify)\//

void t.test('without the addon a run says so', async (t) => {
  const { status, stderr, loaded } = p2pdma('smoke', '--moves', '1')
  t.equal(status, 1)
  t.match(stderr, /ERR_DLOPEN_FAILED/)
  t.ok(loaded.includes('dist/lib/native.js'), 'what is loaded is seen')
})

const help = p2pdma('--help')
const commands = [...help.stdout.matchAll(/^ {2}(\w+)/gm)].map(([, name = '']) => name)

const calls: [string[], Record<string, unknown>][] = [
  [['--help'], { status: 0, stdout: /^ {2}smoke .*^ {2}unbind /ms, stderr: '' }],
  [['--version'], { status: 0, stdout: /^\d+\.\d+\.\d+/, stderr: '' }],
  [['nonsense'], { status: 2, stdout: '', stderr: /unknown command 'nonsense'/ }],
  [['smoke', '--nonsense'], { status: 2, stdout: '', stderr: /--nonsense/ }],
  ...commands.map((name): (typeof calls)[number] => [
    [name, '--help'],
    { status: 0, stdout: new RegExp(`^usage: p2pdma ${name} `), stderr: '' },
  ]),
]

for (const [args, expected] of calls) {
  void t.test(`p2pdma ${args.join(' ')}`, async (t) => {
    const { loaded, ...said } = p2pdma(...args)
    t.match(said, expected)
    const ours = loaded.filter((name) => name.startsWith('dist/'))
    t.same(
      loaded.filter((name) => heavy.test(name)),
      [],
    )
    t.ok(ours.length > 2 && ours.length < FEW, ours.join(' '))
  })
}

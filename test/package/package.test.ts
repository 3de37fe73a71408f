/**
 * The package as its users have it: packed, installed in an empty folder, compiled against
 * and run. Where install scripts are off it is built as the loader's error says.
 */
import { execFile, spawnSync } from 'node:child_process'
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import ts from 'typescript'
import { root } from '../kernel/list.js'
import { hiddenExports, unexportedTypes } from './surface.js'

const folder = realpathSync(mkdtempSync(join(tmpdir(), 'p2pdma-package-')))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))
// The addons take a minute or two to build, and several times as long on a busy machine.
t.setTimeout(3_600_000)

/** As in a user's shell: none of what npm gives to the scripts that it runs. */
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^npm_/i.test(name)))

function run(cwd: string, command: string, words: string[], more: NodeJS.ProcessEnv = {}) {
  const { status, stdout, stderr } = spawnSync(command, words, {
    cwd,
    encoding: 'utf8',
    env: { ...env, ...more },
    maxBuffer: 1 << 26,
  })
  return { status, stdout, stderr }
}

function succeeds(
  t: Test,
  what: string,
  { status, stderr }: { status: number | null; stderr: string },
) {
  t.equal(status, 0, status === 0 ? what : `${what}: ${stderr}`)
}

const install = ['install', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error']

/** An empty project, in which something has been installed. */
function project(name: string): string {
  const made = join(folder, name)
  mkdirSync(made)
  writeFileSync(join(made, 'package.json'), '{ "private": true, "type": "module" }')
  return made
}

const packed = run(root, 'npm', [
  'pack',
  '--ignore-scripts',
  '--json',
  `--pack-destination=${folder}`,
])
if (packed.status !== 0) throw new Error(packed.stderr)
const [{ filename }] = JSON.parse(packed.stdout) as [{ filename: string }]
const tarball = join(folder, filename)

// --- Nodes ------------------------------------------------------------------

const MAJORS = [20, 22, 24, 26]
const own = Number(process.versions.node.split('.')[0])

/** Of a version, from the npm registry: the program, or why there is none. */
async function fetchNode(major: number): Promise<{ file: string } | { reason: string }> {
  if (major === own) return { file: process.execPath }
  const made = project(`node-${major}`)
  const name = `node-linux-${process.arch}`
  try {
    const words = [...install, '--ignore-scripts', `${name}@${major}`]
    await promisify(execFile)('npm', words, { cwd: made, env, timeout: 600_000 })
    return { file: join(made, 'node_modules', name, 'bin/node') }
  } catch (error) {
    return { reason: `${name}@${major} cannot be had: ${(error as { stderr?: string }).stderr}` }
  }
}

/** Fetched while the addon is built. */
const nodes = Promise.all(MAJORS.map(async (major) => ({ major, ...(await fetchNode(major)) })))

// --- What is installed -------------------------------------------------------

void t.test('publint and attw have nothing to say', async (t) => {
  const bin = (path: string) => join(root, 'node_modules', path)
  const publint = [bin('publint/src/cli.js'), 'run', tarball, '--strict']
  t.match(run(folder, process.execPath, publint), { status: 0, stdout: /All good/ })
  const attw = [
    bin('@arethetypeswrong/cli/dist/index.js'),
    tarball,
    '--profile=esm-only',
    '--no-color',
    '--no-emoji',
  ]
  const { status, stdout } = run(folder, process.execPath, attw)
  t.equal(status, 0, status === 0 ? 'attw' : stdout)
})

/** Moves a buffer of the software engine while it is written to. */
const program = `
import { createRequire } from 'node:module'
import { MovableBuffer, memfd, openEngine } from 'p2pdma'
const engine = await openEngine('software')
const buffer = await MovableBuffer.create(1 << 16, memfd())
const attachment = await engine.importer().attach(buffer)
const filled = attachment.importer.fill(attachment, 0, buffer.size, 7)
await buffer.move(memfd())
const { bytes } = await filled
const byte = await buffer.withCpuAccess('r', (access) => access.view()[bytes - 1])
const { operations, faults } = engine.stats()
await engine.close()
await buffer.close()
const isOne = createRequire(import.meta.url)('p2pdma').MovableBuffer === MovableBuffer
const { version } = process
process.stdout.write(JSON.stringify({ version, bytes, byte, operations, faults, isOne }))
`
const works = { bytes: 1 << 16, byte: 7, operations: 1, faults: 0, isOne: true }

function runProgram(t: Test, cwd: string, node = process.execPath) {
  writeFileSync(join(cwd, 'program.js'), program)
  const ended = run(cwd, node, ['program.js'])
  succeeds(t, 'run', ended)
  t.match(JSON.parse(ended.stdout || '{}'), works)
  return ended.stdout
}

/**
 * A compiler that keeps its objects, for the second build. Without optimization, which takes
 * most of the time and which the checkout's own build has.
 */
const compiler = join(folder, 'compiler')
const objects = join(folder, 'objects')
mkdirSync(objects)
writeFileSync(
  compiler,
  `#!/bin/sh
for word; do
  case "$last" in -o) object=$word ;; -MF) depends=$word ;; esac
  [ "$word" = -c ] && compiles=yes
  last=$word
done
[ -n "$compiles" ] || exec g++ "$@"
kept=${objects}/$(echo "$object" | tr / _)
if [ ! -e "$kept" ]; then
  echo "$object" >>${objects}/compiled
  g++ "$@" -O0 && cp "$object" "$kept" && cp "$depends" "$kept.d"
else
  cp "$kept" "$object" && cp "$kept.d" "$depends"
fi
`,
)
chmodSync(compiler, 0o755)

const scriptless = project('scriptless')

void t.test('where install scripts are off the error says what builds it', async (t) => {
  const installed = run(scriptless, 'npm', [...install, '--ignore-scripts', tarball])
  succeeds(t, 'installed', installed)
  const caught =
    "await import('p2pdma').catch(({ code, hint }) => console.log(JSON.stringify({ code, hint })))"
  const { stdout } = run(scriptless, process.execPath, ['--input-type=module', '--eval', caught])
  const { code, hint } = JSON.parse(stdout) as { code: string; hint: string }
  t.equal(code, 'ERR_DLOPEN_FAILED')
  const [, command = ''] = /^build it: \`([^\`]+)\`$/.exec(hint) ?? []
  // To the letter, from any folder.
  const built = run('/', 'sh', ['-c', command], { CXX: compiler })
  succeeds(t, 'built', built)
  runProgram(t, scriptless)
})

void t.test('where install scripts are on the installation builds it', async (t) => {
  const made = project('scripted')
  const more = { CXX: compiler, npm_config_dangerously_allow_all_scripts: 'true' }
  const installed = run(made, 'npm', [...install, '--ignore-scripts=false', tarball], more)
  succeeds(t, 'installed', installed)
  runProgram(t, made)
})

void t.test('a strict project compiles against it', async (t) => {
  for (const name of ['@types', 'undici-types']) {
    symlinkSync(join(root, 'node_modules', name), join(scriptless, 'node_modules', name))
  }
  const use = join(scriptless, 'use.ts')
  writeFileSync(
    use,
    `
import { MovableBuffer, memfd, openEngine } from 'p2pdma'
import type { SoftwareEngine, SoftwareFault, SoftwareStats } from 'p2pdma'
import type { Peer, VerbsEngine, VerbsFault, VerbsStats } from 'p2pdma'
import type { VfioEngine, VfioEvents, VfioFault, VfioLink, VfioStats } from 'p2pdma'
const software: SoftwareEngine = await openEngine('software')
const opening: Promise<VfioEngine> | Promise<VerbsEngine> = openEngine('vfio:0000:00:11.0')
const stats: SoftwareStats | VerbsStats | VfioStats = software.stats()
export function watch(engine: VfioEngine, onLink: (...args: VfioEvents['link']) => void): VfioLink | null {
  engine.on('link', onLink)
  return engine.link
}
export type Faults = SoftwareFault | VerbsFault | VfioFault
export async function use(peer: Peer | null): Promise<string> {
  await using buffer = await MovableBuffer.create(4096, memfd())
  const attachment = await software.importer().attach(buffer)
  const { bytes } = await attachment.importer.fill(attachment, 0, 4096, 7)
  return \`\${peer?.device} \${bytes} \${stats satisfies object} \${(await opening).name}\`
}
`,
  )
  const compiled = ts.createProgram([use], {
    target: ts.ScriptTarget.ES2022,
    lib: ['lib.es2023.d.ts', 'lib.esnext.disposable.d.ts'],
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    types: ['node'],
    typeRoots: [join(scriptless, 'node_modules/@types')],
    strict: true,
    skipLibCheck: false,
    exactOptionalPropertyTypes: true,
    noUncheckedIndexedAccess: true,
    noEmit: true,
  })
  const told = ts.getPreEmitDiagnostics(compiled).map(({ file, messageText }) => {
    return `${file?.fileName}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`
  })
  t.same(told, [])
  const installed = join(scriptless, 'node_modules/p2pdma/dist/lib/')
  const module = compiled
    .getTypeChecker()
    .getSymbolAtLocation(compiled.getSourceFile(`${installed}index.d.ts`)!)!
  t.ok(compiled.getTypeChecker().getExportsOfModule(module).length > 100, 'it is read')
  t.same(unexportedTypes(compiled, module, installed), [], 'named and not exported')
  t.same(hiddenExports(compiled, module), [], 'two of one name')
})

for (const major of MAJORS) {
  void t.test(`Node ${major} runs it`, async (t) => {
    const all = await nodes
    const node = all.find((each) => each.major === major)!
    if ('file' in node) {
      t.match(runProgram(t, scriptless, node.file), `"version":"v${major}.`)
      return
    }
    const isReached = all.some((each) => 'file' in each && each.major !== own)
    if (process.env['CI'] !== undefined && isReached) t.fail(node.reason)
    else t.pass(`Node ${major}`, { skip: node.reason })
  })
}

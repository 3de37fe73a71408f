/**
 * The native code under AddressSanitizer, UBSan and ThreadSanitizer: the software
 * engine's core, then whole addons with the unit tests that reach them. What a
 * sanitizer reports is a failure, with its text.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  cpSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { dist, root } from '../kernel/list.js'

/** With its addons in build/asan/build, beside the same programs: those load them, and no others do. */
const sanitized = join(root, 'build/asan')
const stress = join(root, 'scripts/sanitize-software.sh')

// The addons take a minute or two to build, and several times as long on a busy machine.
t.setTimeout(3_600_000)

interface Outcome {
  code: number | null
  /** stdout and stderr. */
  output: string
}

async function run(command: string, words: string[], env = process.env): Promise<Outcome> {
  const child = spawn(command, words, { cwd: root, env, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data: Buffer) => (output += data.toString()))
  }
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, output }
}

void t.test('the software engine’s core, by itself', async (t) => {
  const { code, output } = await run('sh', [stress, '1', '3'])
  t.equal(code, 0, output)
  t.equal(output.match(/^seed \d+: \d+ operations/gm)?.length, 6, 'three rounds for each')
})

void t.test('what the sanitizers are there for, they report', async (t) => {
  const { code, output } = await run('sh', [stress, '--break'])
  t.not(code, 0)
  t.match(output, /WARNING: ThreadSanitizer: data race/)
  t.match(output, /ERROR: AddressSanitizer: heap-buffer-overflow/)
})

/**
 * Those whose subject is native code, by itself or through the classes right above it.
 * Not wide-copy, which tries every length and would take most of the time.
 */
const nativeTests =
  /^(?:bad-input|exporters|kernel-(?:classes|lifecycle|poll)|mapping|verbs-(?:axes|columns)|software\/[\w-]+)\.test\.ts$/
const unitTests = readdirSync(join(root, 'test/unit'), { recursive: true, encoding: 'utf8' })
  .filter((name) => nativeTests.test(name))
  .map((name) => join('dist/test/unit', name.replace(/\.ts$/, '.js')))

/** Names of one file, so that a module knows itself by its place below `sanitized`. */
function linkPrograms() {
  const to = join(sanitized, 'dist')
  rmSync(to, { recursive: true, force: true })
  for (const name of readdirSync(dist, { recursive: true, encoding: 'utf8' })) {
    const from = join(dist, name)
    if (statSync(from).isDirectory()) mkdirSync(join(to, name), { recursive: true })
  }
  for (const name of readdirSync(dist, { recursive: true, encoding: 'utf8' })) {
    if (statSync(join(dist, name)).isFile()) linkSync(join(dist, name), join(to, name))
  }
  cpSync(join(root, 'package.json'), join(sanitized, 'package.json'))
}

function library(name: string): string {
  const { stdout } = spawnSync('g++', [`-print-file-name=${name}`], { encoding: 'utf8' })
  return stdout.trim()
}

/** Node has no libstdc++ of its own to lend: without one AddressSanitizer finds no `__cxa_throw`. */
const preloaded = ['libasan.so', 'libstdc++.so.6'].map(library).join(' ')

void t.test('the addons, by the unit tests that reach them', async (t) => {
  const build = await run(process.execPath, [
    join(root, 'scripts/build-native.mjs'),
    ...['--sanitize', '--if-stale'],
  ])
  t.equal(build.code, 0, build.output.slice(-4000))
  linkPrograms()
  const folder = mkdtempSync(join(tmpdir(), 'p2pdma-sanitizers-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const own = Object.entries(process.env).filter(([name]) => !/^_?TAP|^NODE_OPTIONS/.test(name))
  const env = {
    ...Object.fromEntries(own),
    TAP_TIMEOUT: '900',
    LD_PRELOAD: preloaded,
    // What Node itself leaves behind at its end is no leak of ours.
    ASAN_OPTIONS: `detect_leaks=0:log_path=${join(folder, 'asan')}`,
    UBSAN_OPTIONS: `print_stacktrace=1:log_path=${join(folder, 'ubsan')}`,
  }
  /** Of this process and of all that it started. */
  const reports = () => {
    const names = readdirSync(folder)
    const texts = names.map((name) => readFileSync(join(folder, name), 'utf8'))
    for (const name of names) rmSync(join(folder, name))
    return texts.join('\n')
  }

  const show = `
    await import('./dist/lib/native.js')
    const { readFileSync } = await import('node:fs')
    console.log(readFileSync('/proc/self/maps', 'utf8'))`
  const options = { cwd: sanitized, env, encoding: 'utf8' } as const
  const maps = spawnSync(process.execPath, ['--input-type=module', '-e', show], options)
  t.match(maps.stdout, /build\/asan\/build\/Release\/p2pdma\.node/, maps.stderr)
  t.match(maps.stdout, /libasan\.so/)

  t.ok(unitTests.length > 10, `${unitTests.length} files of tests`)
  const queue = [...unitTests]
  const worker = async () => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      const { code, output } = await run(process.execPath, [join(sanitized, file)], env)
      t.equal(code, 0, `${file}: ${code === 0 ? 'ends well' : output}`)
      const report = reports()
      t.equal(report, '', report === '' ? 'no report' : `${file}: ${report}`)
    }
  }
  await Promise.all([worker(), worker()])
})

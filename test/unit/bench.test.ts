/** That the benchmark runs and says what it promises; its figures are no matter here. */
import t, { type Test } from 'tap'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const main = fileURLToPath(new URL('../bench/main.js', import.meta.url))
const bench = (...args: string[]) =>
  spawnSync(process.execPath, [main, ...args], { encoding: 'utf8' })

interface Output {
  results: { name: string; unit: string; median: number; spread: number[]; parameters: object }[]
  ratios: Record<string, number>
}

t.test('the core suite, as a table and as JSON', (t) => {
  const { status, stdout, stderr } = bench('--quick', '--', '--suite', 'core', '--', '--json', '-')
  t.equal(status, 0, stderr)
  const { results, ratios } = JSON.parse(stdout) as Output
  t.strictSame(Object.keys(ratios), [
    'post_batch1_vs_cpp',
    'post_batch32_vs_cpp',
    'post_batch256_vs_cpp',
    'move_100k_vs_10',
    'move_100k_vs_10_loop_cpu',
    'moves_64_together_vs_singly',
    'move_lock_all_vs_what_moved',
    'uses_1000_channels_vs_1',
    'pause_64k_stop_vs_cpp',
    'pause_64k_unmap_vs_cpp',
    'pause_64k_copy_vs_cpp',
    'pause_64k_map_vs_cpp',
    'pause_64k_restart_vs_cpp',
    'pause_64k_vs_cpp',
    'pause_64k_cpu_vs_cpp',
  ])
  const named = (name: string) => results.filter((each) => each.name === name)
  for (const name of [
    ...Object.keys(ratios),
    'slice_p999_ms',
    'slice_items',
    'bytes_per_attachment',
    'pause_64k_heart_cpu',
    'import_ms',
  ]) {
    t.equal(named(name).length, name === 'slice_p999_ms' ? 3 : 1, name)
    t.match(stderr, new RegExp(`^${name} `, 'm'), 'the table gives way to the JSON')
  }
  for (const { name, median, spread, unit, parameters } of results) {
    // A few attachments take less than what a collection of code meanwhile gives back.
    const isFigure = unit === 'B' ? Number.isFinite(median) : median > 0
    t.ok(isFigure && spread.length === 2 && unit !== '' && parameters !== null, name)
  }
  t.end()
})

t.test('JSON to a file, the table on stdout', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'p2pdma-bench-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'bench.json')
  const { status, stdout, stderr } = bench('--quick', '--suite', 'import', '--json', file)
  t.equal(status, 0, stderr)
  t.match(stdout, /^import_ms /m)
  t.equal((JSON.parse(readFileSync(file, 'utf8')) as Output).results.length, 1)
  t.end()
})

t.test('what cannot be written to is known before anything is measured', (t) => {
  const { status, stdout, stderr } = bench('--json', '/nonexistent/bench.json')
  t.strictSame([status, stdout], [1, ''])
  t.match(stderr, /^p2pdma: .*bench\.json: .* \(ENOENT\)\n$/)
  t.match(bench('--help'), { status: 0, stdout: /^usage:/, stderr: '' })
  t.end()
})

t.test('a misspelt option: usage and exit 2', (t) => {
  for (const args of [['--sweet', 'core'], ['--suite', 'kore'], ['--json'], ['core']]) {
    const { status, stdout, stderr } = bench(...args)
    t.strictSame([status, stdout], [2, ''], args.join(' '))
    t.match(stderr, /usage:/)
  }
  t.end()
})

const root = fileURLToPath(new URL('../../../', import.meta.url))

/** Looks like a built checkout; `library` is its lib/index.js. Deleted after the test. */
function fakeCheckout(t: Test, library: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'p2pdma-beside-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  for (const each of ['dist/lib', 'build/Release'])
    mkdirSync(join(folder, each), { recursive: true })
  writeFileSync(join(folder, 'package.json'), '{ "name": "p2pdma", "type": "module" }')
  writeFileSync(join(folder, 'dist/lib/index.js'), library)
  writeFileSync(join(folder, 'build/Release/p2pdma.node'), '')
  return folder
}

t.test('beside another checkout: a ratio for each figure', (t) => {
  const { stdout, stderr } = bench('--quick', '--beside', root, '--suite', 'post')
  const output = JSON.parse(stdout) as Output & { beside: string }
  t.strictSame(join(output.beside, '/'), root)
  t.strictSame(Object.keys(output.ratios), ['post_batch1', 'post_batch32', 'post_batch256'])
  for (const { name, unit, median, spread, parameters } of output.results) {
    t.match({ unit, parameters }, { unit: 'ratio', parameters: { pairs: 2, processes: 1 } }, name)
    t.ok(median > 0 && spread[0]! <= median && median <= spread[1]!, name)
    t.match(stderr, new RegExp(`^${name} .* 1\\.03 .* ns/op`, 'm'), 'a line for each')
  }
  t.end()
})

t.test('beside one that is faster: exit 1, and says where; beside a slower one: 0', (t) => {
  // Their clocks lie, so that no busy machine makes them anything else.
  const faster = fakeCheckout(t, 'const at = performance.now(); performance.now = () => at')
  const slower = fakeCheckout(t, 'const at = performance.now(); performance.now = () => at + 1e9')
  const worse = bench('--quick', '--suite', 'import', '--beside', faster)
  t.equal(worse.status, 1, worse.stderr)
  t.match(worse.stderr, /^import_ms: the lower quartile of the ratio, [\d.]+, is above 1\.03$/m)
  t.ok((JSON.parse(worse.stdout) as Output).ratios.import_ms! > 1.03)
  const better = bench('--quick', '--suite', 'import', '--beside', slower)
  t.equal(better.status, 0, better.stderr)
  t.notMatch(better.stderr, /is above/)
  t.ok((JSON.parse(better.stdout) as Output).ratios.import_ms! < 0.1)
  t.end()
})

t.test('beside one that cannot be measured: which figure, where and why', (t) => {
  for (const [library, why] of [
    ['throw new Error("broken on purpose")', 'Error: broken on purpose'],
    ['process.exit(3)', 'its process ended with 3'],
    ['', 'SoftwareEngine is not a constructor'],
  ] as const) {
    const folder = fakeCheckout(t, library)
    const { status, stdout, stderr } = bench('--quick', '--suite', 'post', '--beside', folder)
    t.strictSame([status, stdout], [1, ''], why)
    t.match(stderr, `post_batch1 could not be measured in ${folder}: `)
    t.match(stderr, why)
  }
  t.end()
})

t.test('beside what is no other checkout: usage, a hint and exit 2', (t) => {
  const notBuilt = fakeCheckout(t, '')
  rmSync(join(notBuilt, 'dist'), { recursive: true })
  const notOurs = fakeCheckout(t, '')
  writeFileSync(join(notOurs, 'package.json'), '{ "name": "another" }')
  const noNative = fakeCheckout(t, '')
  rmSync(join(noNative, 'build'), { recursive: true })
  for (const [args, why] of [
    [['--beside', '/nonexistent'], /"\/nonexistent" is no folder/],
    [['--beside', main], /main\.js" is no folder/],
    [['--beside', ''], /"" is no folder/],
    [['--beside', notOurs], /is no checkout of p2pdma/],
    [['--beside', notBuilt], /not been built: it has no dist\/lib\/index\.js/],
    [['--beside', noNative], /not been built: it has no build\/Release\/p2pdma\.node/],
    [['--beside', root, '--suite', 'vfio'], /the suite vfio cannot be run beside/],
  ] as const) {
    const { status, stdout, stderr } = bench(...args)
    t.strictSame([status, stdout], [2, ''], args.join(' '))
    t.match(stderr, why)
    t.match(stderr, /^hint: .+\nusage:/m)
  }
  t.end()
})

t.test('suites that need devices: a typed error says where there are some', (t) => {
  for (const suite of ['vfio', 'verbs']) {
    t.match(bench('--help').stdout, new RegExp(`\\b${suite}\\b`))
    // With RDMA devices it would measure, for minutes.
    if (suite === 'verbs' && existsSync('/sys/class/infiniband')) continue
    const { status, stdout, stderr } = bench('--suite', suite)
    t.strictSame([status, stdout], [1, ''], suite)
    t.match(stderr, /^p2pdma: .*\(ENODEV\)\nhint: .*npm run rig -- npm run bench/, suite)
  }
  t.end()
})

/** That the benchmark runs and says what it promises; its figures are no matter here. */
import t from 'tap'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
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
  ])
  const named = (name: string) => results.filter((each) => each.name === name)
  for (const name of [
    ...Object.keys(ratios),
    'slice_p999_ms',
    'slice_items',
    'bytes_per_attachment',
    'import_ms',
  ]) {
    t.equal(named(name).length, 1, name)
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

// Runs the compiled tests under tap and says what came of them: a line for each
// file, the failures in full, and `N passed, N failed` at the end. What was
// skipped or is still to do counts as failed: a test that did not run shows
// nothing. The TAP itself is left in .tap/results.tap.
//
//   node scripts/test.mjs [--list] [PART-OF-A-PATH ...]
//
// `--list`: says which files those are, and runs none.
import { spawn } from 'node:child_process'
import { createWriteStream, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Parser } from 'tap-parser'
import { Progress } from './progress.mjs'
import { Report } from './tap-report.mjs'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const words = process.argv.slice(2)
const wanted = words.filter((word) => word !== '--list')

// From the sources, since dist may still hold tests that are gone. What is in no
// folder of these, nor run in the guest by those in `rig`, is a failure:
// test/unit/runners.test.ts.
const files = ['unit', 'seams', 'model', 'lifecycle', 'native', 'package', 'rig']
  .map((folder) => join('test', folder))
  .flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true })
      .filter((name) => name.endsWith('.test.ts'))
      .sort()
      .map((name) => join(folder, name)),
  )
  .filter((file) => wanted.length === 0 || wanted.some((part) => file.includes(part)))
if (files.length === 0) {
  console.error(`no test matches ${wanted.join(' ')}`)
  process.exit(2)
}
if (words.includes('--list')) {
  console.log(files.join('\n'))
  process.exit(0)
}

const folder = join(root, '.tap')
mkdirSync(folder, { recursive: true })
rmSync(join(folder, 'summary'), { force: true })

const tap = createRequire(import.meta.url).resolve('tap/package.json')
const child = spawn(
  process.execPath,
  [
    join(dirname(tap), 'dist/esm/run.mjs'),
    '--reporter=tap',
    ...files.map((file) => join('dist', file.replace(/\.ts$/, '.js'))),
  ],
  { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] },
)
const parser = new Parser()
const progress = new Progress()
const report = new Report(parser, (line) => {
  progress.clear()
  console.log(line)
})
progress.start(() => `${report.files} of ${files.length} files, ${report.failed} failed`)
child.stdout.pipe(createWriteStream(join(folder, 'results.tap')))
child.stdout.pipe(parser)

let code = 0
child.on('close', (status) => (code = status ?? 1))
parser.on('complete', () => setImmediate(finish))

function finish() {
  progress.stop()
  // A file that failed as a whole is counted by the report; this is tap's own failure.
  if (code !== 0 && report.failed === 0) report.fail(`tap ended with exit code ${code}`)
  if (report.passed + report.failed === 0) report.fail('no test ran')
  const summary = `${report.passed} passed, ${report.failed} failed`
  writeFileSync(join(folder, 'summary'), `${summary}\n`)
  console.log(summary)
  process.exitCode = report.failed === 0 ? 0 : 1
}

/** The examples that need no kernel feature, and that each says what it needs. */
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')
const examples = readdirSync(join(root, 'examples')).filter((name) => name.endsWith('.ts'))

void t.test('an example is short and imports the package by its name', async (t) => {
  t.equal(examples.length, 12)
  for (const name of examples) {
    const text = readFileSync(join(root, 'examples', name), 'utf8')
    t.ok(text.split('\n').length <= 60, `${name}: under 60 lines`)
    t.match(text, /from 'p2pdma'/, name)
    t.notMatch(text, /from '\./, `${name}: nothing but the public surface`)
  }
})

void t.test('move-under-load runs anywhere', async (t) => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [join(root, 'dist/examples/move-under-load.js')],
    { encoding: 'utf8' },
  )
  t.equal(status, 0, stderr)
  t.equal(stdout.match(/^moved from /gm)?.length, 6)
  t.match(stdout, /whole: true; stray writes: 0\n$/)
})

void t.test('batch runs anywhere', async (t) => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [join(root, 'dist/examples/batch.js')],
    { encoding: 'utf8' },
  )
  t.equal(status, 0, stderr)
  t.match(stdout, /^51200 copies in batches, 0 failed; [1-9]\d* moves meanwhile\n$/)
})

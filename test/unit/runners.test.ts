/** Each `*.test.ts` of the tree is run by somebody: one that is not says nothing, and looks as if it did. */
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { boots, kernelTests, root } from '../kernel/list.js'

const testsBelow = (folder: string) =>
  readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.test\.[cm]?[jt]sx?$/.test(name))
    .map((name) => join(folder, name))

/** What `npm test` gives to tap. */
const onHost = spawnSync(process.execPath, [join(root, 'scripts/test.mjs'), '--list'], {
  encoding: 'utf8',
})
  .stdout.trim()
  .split('\n')

/** The source of what is packed for the guest. */
const source = (argument: string) =>
  (argument.split(' ')[1] ?? '').replace(/^bundle\//, '').replace(/\.js$/, '.ts')

void t.test('a runner takes each test', async (t) => {
  const taken = new Set([...onHost, ...boots.flatMap((boot) => kernelTests(boot).map(source))])
  const tests = ['test', 'lib', 'examples', 'native', 'scripts'].flatMap(testsBelow)
  t.ok(tests.length > 50, `${tests.length} tests were found`)
  t.same(
    tests.filter((name) => !taken.has(name)),
    [],
  )
})

void t.test('each boot’s tests are run by one on the host, and packed', async (t) => {
  const onHosts = onHost
    .filter((name) => name.startsWith('test/rig/'))
    .map((name) => readFileSync(join(root, name), 'utf8'))
  for (const boot of boots) {
    const runs = onHosts.filter((text) =>
      new RegExp(`^await runInGuest\\('[^']*', '${boot}'`, 'm').test(text),
    )
    t.equal(runs.length, 1, boot)
    t.ok(kernelTests(boot).length > 0)
  }
  // scripts/bundle.mjs looks at the folder, and not below it.
  const nested = testsBelow('test/kernel').filter((name) => name.split('/').length > 3)
  t.same(nested, [])
})

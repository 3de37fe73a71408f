/** What others register is found by its name, and what cannot be registered says why. */
import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import {
  type Driver,
  type EngineFamily,
  exporterByName,
  INTERFACE_VERSION,
  openEngine,
  registerDriver,
  registerEngine,
  registerExporter,
} from '../../lib/index.js'
import { ToyEngine } from './toy-engine/index.js'
import './toy-exporter/index.js'

const here = dirname(fileURLToPath(import.meta.url))
const cli = join(here, '../../lib/cli/main.js')

void t.test('by its name', async (t) => {
  await using engine = await openEngine('toy:left')
  t.ok(engine instanceof ToyEngine)
  t.equal(engine.name, 'toy:left')
  await using plain = await openEngine('toy')
  t.equal(plain.name, 'toy')
  t.equal(exporterByName('toy-memory:a').placement, 'toy-memory:a')
  await t.rejects(openEngine('toys'), { message: /there are: software, .*, toy\[:NAME\]/ })
  t.throws(() => exporterByName('toy-memories'), { message: /memfd.*toy-memory\[:NAME\]/ })
  await t.rejects(openEngine('toy', { gidIndex: 1 }), { message: /options are for verbs only/ })
})

void t.test('another version, a name that is taken, and what is none', (t) => {
  const family: EngineFamily = {
    interfaceVersion: 1,
    name: 'other',
    spelling: 'other',
    open: () => Promise.resolve(null),
  }
  const driver: Driver = {
    interfaceVersion: 1,
    name: 'other',
    ids: [0x1234_5678],
    open: () => Promise.reject(new Error('of no device')),
  }
  const exporter = { interfaceVersion: 1, name: 'memfd', spelling: 'memfd', open: () => null }
  t.equal(INTERFACE_VERSION, 1)
  for (const [interfaceVersion, hint] of [
    [0, /newer version of the package/],
    [2, /newer version of p2pdma/],
  ] as const) {
    const wrong = { code: 'ERR_INTERFACE_VERSION', hint }
    t.throws(() => registerEngine({ ...family, interfaceVersion }), wrong)
    t.throws(() => registerExporter({ ...exporter, interfaceVersion }), wrong)
    t.throws(() => registerDriver({ ...driver, interfaceVersion }), wrong)
  }
  const taken = { code: 'ERR_NAME_TAKEN', hint: /./ }
  t.throws(() => registerEngine({ ...family, name: 'toy' }), taken)
  t.throws(() => registerEngine({ ...family, name: 'verbs' }), taken)
  t.throws(() => registerExporter(exporter), taken)
  t.throws(
    () => registerDriver({ ...driver, ids: [0x8086_10d3] }),
    taken,
    'the e1000e has a driver',
  )
  t.throws(() => registerEngine({ ...family, name: 'a:b' }), { code: 'ERR_INVALID_ARG_VALUE' })
  const { open: _, ...unopened } = family
  t.throws(() => registerEngine(unopened as EngineFamily), { code: 'ERR_INVALID_ARG_TYPE' })
  registerEngine(family)
  registerDriver(driver)
  t.throws(() => registerDriver({ ...driver, ids: [] }), taken)
  t.end()
})

void t.test('on the command line', (t) => {
  const smoke = (...words: string[]) =>
    spawnSync(process.execPath, [cli, 'smoke', ...words], { encoding: 'utf8', cwd: here })
  const short = ['--moves', '20', '--size', '256K']
  const plugins = ['--plugin', './toy-engine/index.js', '--plugin', './toy-exporter/index.js']
  const engine = smoke(...plugins, '--engine', 'toy', ...short)
  t.match(engine, { status: 0, stdout: /engine toy/ }, engine.stdout + engine.stderr)
  const without = smoke('--engine', 'toy', ...short)
  t.match(without, { status: 2, stderr: /No engine is named "toy"/ })
  for (const name of ['./nothing.js', '.', 'no-such-package']) {
    const missing = smoke('--plugin', name)
    t.match(missing, { status: 2, stderr: /--plugin (\.\/nothing\.js|\.|no-such-package): / })
  }
  const folder = t.testdir({ 'broken.mjs': "throw new Error('it does not start')" })
  const broken = smoke('--plugin', join(folder, 'broken.mjs'))
  t.match(broken, { status: 1, stderr: /broken\.mjs: it does not start/ })
  t.end()
})

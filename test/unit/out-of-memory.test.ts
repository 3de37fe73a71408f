/**
 * Without memory: no C++ exception ends the process. An addon of which each allocation
 * fails in turn, and children that have little address space.
 */
import t from 'tap'
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { compile, root } from './native-help.js'

t.setTimeout(900_000)

const here = dirname(fileURLToPath(import.meta.url))

const objects = join(root, 'build/stage/build/Release/obj.target/p2pdma/native')

/** A copy of an addon, of the objects that it was built of, whose operator new fails when told to. */
function failingAddon(): string {
  const folder = join(root, 'build/tests')
  mkdirSync(folder, { recursive: true })
  const entry = join(folder, 'addon-renamed.o')
  const rename = 'napi_register_module_v1=addon_register'
  execFileSync('objcopy', ['--redefine-sym', rename, join(objects, 'addon.o'), entry])
  const others = readdirSync(objects, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.o') && name !== 'addon.o')
    .map((name) => join(objects, name))
  const headers = join(dirname(dirname(process.execPath)), 'include/node')
  // Bound here: Node has an operator new of its own.
  const link = ['-shared', '-fPIC', '-Wl,-Bsymbolic', '-pthread', '-O1', `-I${headers}`]
  const source = 'test/native/failing-new.cc'
  return compile('p2pdma-failing.node', [...link, source, entry, ...others])
}

const isBuilt = existsSync(join(objects, 'addon.o'))

t.test('each allocation fails in turn', { skip: !isBuilt && 'no object files' }, (t) => {
  const child = spawnSync(process.execPath, [
    '--expose-gc',
    join(here, 'out-of-memory-child.js'),
    failingAddon(),
  ])
  const output = child.stdout.toString()
  t.equal(child.signal, null, child.stderr.toString().slice(-2000))
  const { untyped, made, kept } = JSON.parse(output) as Record<string, string[]>
  t.strictSame(untyped, [])
  t.strictSame(kept, [], 'and what was made is freed')
  t.comment(made?.join(', ') ?? '')
  // Or it has failed nothing.
  t.notMatch(made?.join() ?? '', /(mapFd|openChannel|letGo|openSoftwareEngine) 0/)
  t.end()
})

/** A program in 2.5 GB of address space, of which Node itself takes most. */
function inLittleSpace(program: string): { output: string; signal: string | null } {
  const words = ['-c', 'ulimit -v 2500000; exec "$@"', 'sh', process.execPath]
  const imports = `const P = await import(${JSON.stringify(join(here, '../../lib/index.js'))});`
  const { stdout, signal } = spawnSync('sh', [
    ...words,
    '--input-type=module',
    '-e',
    imports + program,
  ])
  return { output: stdout.toString(), signal }
}

t.test('address space runs out', (t) => {
  const report = `console.log(count < 100000 ? 'ends' : 'goes on', error?.code, error?.name)`
  const programs = {
    channels: 'const make = () => importer.channel({ depth: 65536 })',
    batches: 'const kept = []; const make = () => kept.push(new P.Batch(1 << 20))',
    mappings: `const memfd = P.Memfd.create(1 << 26); const kept = [];
      const make = () => kept.push(memfd.map())`,
  }
  for (const [name, make] of Object.entries(programs)) {
    const { output, signal } = inLittleSpace(`
      const engine = new P.SoftwareEngine(), importer = engine.importer(); ${make}
      let count = 0, error
      try { for (; count < 100000; count++) make() } catch (caught) { error = caught }
      ${report}
      await engine.close(); console.log('closed')`)
    t.equal(signal, null, `${name}: no signal`)
    t.match(output, /^ends ENOMEM \w+\nclosed\n$/, name)
  }
  t.end()
})

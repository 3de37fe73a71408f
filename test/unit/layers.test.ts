/**
 * The layers of lib/: an import only points down. A file may import from its
 * own folder and from any layer below it; layers of one row do not know each
 * other.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

/** From the top down. A name is a folder of lib/, or a file in it. */
const rows = [
  ['cli'],
  ['index.ts'],
  ['smoke'],
  ['doctor', 'rig'],
  ['strategies', 'sharing'],
  ['engines'],
  ['exporters'],
  ['move-notify'],
  ['kernel'],
  ['native-verbs.ts'],
  ['native.ts'],
  ['brand.ts'],
  ['build-command.ts'],
  ['shared-memory.ts'],
  ['failures'],
  ['errors.ts', 'page-size.ts'],
]

const lib = join(dirname(fileURLToPath(import.meta.url)), '../../../lib')
const files = readdirSync(lib, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .sort()

function layerOf(file: string): string {
  return file.split('/')[0] ?? file
}

function rowOf(layer: string): number {
  return rows.findIndex((row) => row.includes(layer))
}

/** What a file imports or re-exports, types too: `specifier`s, dynamic ones included. */
function imports(file: string): string[] {
  const text = readFileSync(join(lib, file), 'utf8')
  const pattern =
    /(?:^|\n)(?:import|export)\b[^'\n;]*?(?:\n[^'\n;]*?)*?'([^'\n]+)'|\bimport\('([^']+)'\)/g
  return [...text.matchAll(pattern)].map(([, still, dynamic]) => still ?? dynamic ?? '')
}

t.test('every file of lib/ is in a layer', async (t) => {
  t.strictSame(
    files.filter((file) => rowOf(layerOf(file)) === -1),
    [],
  )
})

t.test('an import only points down', async (t) => {
  const upward: string[] = []
  let arrows = 0
  for (const file of files) {
    for (const specifier of imports(file)) {
      if (!specifier.startsWith('.')) continue
      const target = normalize(join(dirname(file), specifier)).replace(/\.js$/, '.ts')
      const [from, to] = [layerOf(file), layerOf(target)]
      if (from === to) continue
      arrows++
      if (rowOf(to) <= rowOf(from)) upward.push(`${file} -> ${target}`)
    }
  }
  t.strictSame(upward, [])
  t.ok(arrows > 20, 'the imports were found')
})

t.test('only lib/native.ts and lib/native-verbs.ts load the addons', async (t) => {
  const loaders = files.filter((file) =>
    imports(file).some((name) => name === 'bindings' || name.endsWith('.node')),
  )
  t.strictSame(loaders, ['native-verbs.ts', 'native.ts'])
})

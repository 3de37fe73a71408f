/**
 * The layers of lib/: an import only points down. A file may import from its
 * own folder and from any layer below it; layers of one row do not know each
 * other. The heart's rooms are layers of the same kind. Within one layer files may
 * know each other, but no more than five in one circle.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

/** From the top down. A name is a folder of lib/, or a file in it. */
const rows = [
  ['cli'],
  ['index.ts'],
  ['smoke', 'conformance'],
  ['doctor', 'rig'],
  ['strategies', 'sharing'],
  ['engines'],
  ['exporters'],
  ['move-notify'],
  ['kernel'],
  ['native-verbs.ts'],
  ['native.ts'],
  ['brand.ts', 'registry.ts'],
  ['build-command.ts'],
  ['shared-memory.ts'],
  ['failures'],
  ['abi.ts', 'errors.ts', 'page-size.ts'],
]

/** The heart's rooms, from the top down; trace.ts names the channel's states, which know nothing. */
const rooms = [
  ['importer'],
  ['exporter'],
  ['reservation'],
  ['trace.ts'],
  ['importer/channel-states.ts'],
].map((row) => row.map((name) => `move-notify/${name}`))

/** Files that know each other, types included: more than these are one file in many pieces. */
const LARGEST_CIRCLE = 5

const lib = join(dirname(fileURLToPath(import.meta.url)), '../../../lib')
const files = readdirSync(lib, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .sort()

function layerOf(file: string): string {
  return file.split('/')[0] ?? file
}

/** The file itself where it is a layer; else its folder. */
function roomOf(file: string): string {
  if (rooms.some((row) => row.includes(file))) return file
  return file.split('/').slice(0, 2).join('/')
}

function rowOf(rows: string[][], layer: string): number {
  return rows.findIndex((row) => row.includes(layer))
}

/** What a file imports or re-exports, types too: `specifier`s, dynamic ones included. */
function imports(file: string): string[] {
  const text = readFileSync(join(lib, file), 'utf8')
  const pattern =
    /(?:^|\n)(?:import|export)\b[^'\n;]*?(?:\n[^'\n;]*?)*?'([^'\n]+)'|\bimport\('([^']+)'\)/g
  return [...text.matchAll(pattern)].map(([, still, dynamic]) => still ?? dynamic ?? '')
}

const graph = new Map(
  files.map((file) => [
    file,
    imports(file)
      .filter((specifier) => specifier.startsWith('.'))
      .map((specifier) => normalize(join(dirname(file), specifier)).replace(/\.js$/, '.ts'))
      // A string after an export looks the same.
      .filter((target) => files.includes(target)),
  ]),
)

/** Imports between layers that do not point down, and how many there are in all. */
function arrows(rows: string[][], layerOf: (file: string) => string, folder = '') {
  const upward: string[] = []
  let count = 0
  for (const [file, targets] of graph) {
    for (const target of targets) {
      if (!file.startsWith(folder) || !target.startsWith(folder)) continue
      const [from, to] = [layerOf(file), layerOf(target)]
      if (from === to) continue
      count++
      if (rowOf(rows, to) <= rowOf(rows, from)) upward.push(`${file} -> ${target}`)
    }
  }
  return { upward, count }
}

/** Tarjan's: the sets of files that reach each other by their imports. */
function circles(): string[][] {
  const order = new Map<string, number>()
  const open: string[] = []
  const found: string[][] = []
  const visit = (file: string): number => {
    order.set(file, order.size)
    let low = order.size - 1
    open.push(file)
    for (const target of graph.get(file) ?? []) {
      if (!order.has(target)) low = Math.min(low, visit(target))
      else if (open.includes(target)) low = Math.min(low, order.get(target) ?? low)
    }
    if (low === order.get(file)) found.push(open.splice(open.indexOf(file)))
    return low
  }
  for (const file of files) if (!order.has(file)) visit(file)
  return found
}

t.test('every file of lib/ is in a layer', async (t) => {
  t.strictSame(
    files.filter((file) => rowOf(rows, layerOf(file)) === -1),
    [],
  )
  const heart = files.filter((file) => layerOf(file) === 'move-notify')
  t.strictSame(
    heart.filter((file) => rowOf(rooms, roomOf(file)) === -1),
    [],
    'and every file of the heart in a room',
  )
})

t.test('an import only points down', async (t) => {
  const layers = arrows(rows, layerOf)
  t.strictSame(layers.upward, [])
  t.ok(layers.count > 20, 'the imports were found')
  const heart = arrows(rooms, roomOf, 'move-notify/')
  t.strictSame(heart.upward, [], 'in the heart, too')
  t.ok(heart.count > 20, 'and they were found')
})

t.test('no circle of imports is larger than five files', async (t) => {
  const sets = circles().sort((one, other) => other.length - one.length)
  t.equal(sets.flat().length, files.length)
  t.ok((sets[0]?.length ?? 0) > 1, 'circles were found')
  t.strictSame(
    sets.filter((set) => set.length > LARGEST_CIRCLE),
    [],
  )
})

t.test('only lib/native.ts and lib/native-verbs.ts load the addons', async (t) => {
  const loaders = files.filter((file) =>
    imports(file).some((name) => name === 'bindings' || name.endsWith('.node')),
  )
  t.strictSame(loaders, ['native-verbs.ts', 'native.ts'])
})

// Packs each program that runs in the guest, and tap, into one file below
// bundle/, at the path that it has below dist/: emulated, loading the modules one
// by one takes longer than most tests do. Not part of the package.
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const from = join(root, 'dist')
const to = join(root, 'bundle')

/** Where the sources are: dist may hold programs that are gone. */
const compiled = (folder) =>
  readdirSync(join(root, folder))
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(folder, name.replace(/\.ts$/, '.js')))

const programs = [
  // Some tests have another process import these.
  ...['lib/index.js', 'lib/kernel/index.js', 'lib/engines/index.js', 'lib/cli/main.js'],
  ...['test/bench/main.js', 'test/bench/verbs/far.js', 'test/soak/main.js'],
  ...compiled('test/kernel'),
  ...compiled('examples'),
]

/** A module knows itself by the path that it would have below bundle/, whatever it was packed into. */
const inPlace = (program) => ({
  name: 'in-place',
  setup(pack) {
    pack.onResolve({ filter: /^p2pdma$/ }, () => ({ path: join(from, 'lib/index.js') }))
    pack.onLoad({ filter: /\.js$/ }, ({ path }) => {
      if (!path.startsWith(`${from}/`)) return null
      const place = relative(dirname(program), relative(from, path))
      const url = `new URL(${JSON.stringify(place)}, import.meta.url).href`
      const text = readFileSync(path, 'utf8')
      return { contents: text.replaceAll('import.meta.url', url), loader: 'js' }
    })
  },
})

const common = {
  bundle: true,
  format: 'esm',
  platform: 'node',
  target: 'node20',
  logLevel: 'warning',
  // For the parts that are CommonJS.
  banner: {
    js: `import { createRequire as __createRequire } from 'node:module'
const require = __createRequire(import.meta.url)`,
  },
}

function write(name, text) {
  mkdirSync(dirname(join(to, name)), { recursive: true })
  writeFileSync(join(to, name), `${text}\n`)
}

rmSync(to, { recursive: true, force: true })
// Of stacks tap shows nothing that is in this folder.
const tap = 'node_modules/@tapjs/packed/index.js'
write('node_modules/tap/package.json', '{ "type": "module", "exports": "./index.js" }')
write(
  'node_modules/tap/index.js',
  `export * from '../../${tap}'\nexport { default } from '../../${tap}'`,
)
await build({
  ...common,
  stdin: { contents: "export * from 'tap'\nexport { default } from 'tap'", resolveDir: root },
  outfile: join(to, tap),
})
await Promise.all(
  programs.map((program) =>
    build({
      ...common,
      entryPoints: [join(from, program)],
      external: ['tap', 'bindings'],
      plugins: [inPlace(program)],
      outfile: join(to, program),
    }),
  ),
)

// Formats the C++ and C sources (--write), or says which are not formatted
// (--check). The binary comes with the npm package clang-format, so that
// everybody has the same version.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const command = createRequire(import.meta.url).resolve('clang-format')

const mode = process.argv[2]
if (mode !== '--check' && mode !== '--write') {
  console.error('usage: clang-format.mjs --check | --write')
  process.exit(2)
}

const files = ['native', 'test/modules', 'test/bench']
  .filter((folder) => existsSync(join(root, folder)))
  .flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true }).map((name) => join(folder, name)),
  )
  .filter((name) => /\.(cc|c|h)$/.test(name))

if (files.length > 0) {
  const flags = mode === '--write' ? ['-i'] : ['--dry-run', '--Werror']
  const args = [command, ...flags, '--style=file', ...files]
  const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' })
  process.exitCode = status ?? 1
}

// Builds the C program that the benchmark `vfio` compares with, where it is
// older than its sources. Not part of the package: only a checkout has it.
import { existsSync, mkdirSync, readdirSync, statSync } from 'node:fs'
import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const folder = join(root, 'test/bench/e1000e')
const output = join(root, 'build/bench/e1000e-peer')

const files = readdirSync(folder).map((name) => join(folder, name))
const newest = Math.max(...files.map((name) => statSync(name).mtimeMs))
if (!existsSync(output) || statSync(output).mtimeMs < newest) {
  mkdirSync(dirname(output), { recursive: true })
  const sources = files.filter((name) => name.endsWith('.c'))
  const flags = ['-std=c11', '-D_GNU_SOURCE', '-O2', '-Wall', '-Wextra']
  const { error, status } = spawnSync(
    process.env.CC || 'cc',
    [...flags, '-o', output, ...sources],
    {
      stdio: ['ignore', process.stderr, process.stderr],
    },
  )
  if (error !== undefined) console.error(`build-peer: ${error.message}`)
  process.exitCode = status ?? 1
}

// Builds the C programs that the benchmarks `vfio` and `verbs` compare with, where
// they are older than their sources; that for `verbs` only where the headers of
// libibverbs are. Not part of the package: only a checkout has them.
import { existsSync, mkdirSync, readdirSync, statSync } from 'node:fs'
import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { hasVerbs } from './has-verbs.mjs'

const root = dirname(dirname(fileURLToPath(import.meta.url)))

function build(folder, name, libraries = []) {
  const output = join(root, 'build/bench', name)
  const files = readdirSync(folder).map((each) => join(folder, each))
  const newest = Math.max(...files.map((each) => statSync(each).mtimeMs))
  if (existsSync(output) && statSync(output).mtimeMs >= newest) return
  mkdirSync(dirname(output), { recursive: true })
  const sources = files.filter((each) => each.endsWith('.c'))
  const flags = ['-std=c11', '-D_GNU_SOURCE', '-O2', '-Wall', '-Wextra']
  const { error, status } = spawnSync(
    process.env.CC || 'cc',
    [...flags, '-o', output, ...sources, ...libraries],
    { stdio: ['ignore', process.stderr, process.stderr] },
  )
  if (error !== undefined) console.error(`build-peer: ${error.message}`)
  if (status !== 0) process.exitCode = status ?? 1
}

build(join(root, 'test/bench/e1000e'), 'e1000e-peer')
if (hasVerbs()) build(join(root, 'test/bench/verbs-peer'), 'verbs-peer', ['-libverbs'])

/** C++ of the tests: compiled once a run, beside the addons. */
import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')

const compiler = process.env.CXX ?? 'c++'

/** Runs the compiler in the package's folder; `output` is below build/tests. */
export function compile(output: string, args: readonly string[]): string {
  const folder = join(root, 'build/tests')
  mkdirSync(folder, { recursive: true })
  const path = join(folder, output)
  const flags = ['-std=c++20', '-D_GNU_SOURCE', '-g', '-Inative']
  execFileSync(compiler, [...flags, ...args, '-o', path], { cwd: root, stdio: 'inherit' })
  return path
}

/** What tests do with C++, compiled once a run, beside the addons; and with what was compiled. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
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
  // Another run may be executing the one that is there.
  const made = `${path}.${process.pid}`
  execFileSync(compiler, [...flags, ...args, '-o', made], { cwd: root, stdio: 'inherit' })
  renameSync(made, path)
  return path
}

/** Makes a copy of a library, or an addon, in which one string is another of the same length. */
export function patched(from: string, to: string, string: string, other: string): void {
  const bytes = readFileSync(from)
  for (let at = bytes.indexOf(string); at !== -1; at = bytes.indexOf(string, at + 1)) {
    bytes.write(other, at, 'latin1')
  }
  writeFileSync(to, bytes)
}

/** The package as it is installed, but for what is built: no addon is there. */
import { cpSync, mkdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { root } from '../kernel/list.js'

export function copyPackage(to: string): string {
  mkdirSync(join(to, 'dist'), { recursive: true })
  for (const each of ['package.json', 'dist/lib']) {
    cpSync(join(root, each), join(to, each), { recursive: true })
  }
  symlinkSync(join(root, 'node_modules'), join(to, 'node_modules'))
  return to
}

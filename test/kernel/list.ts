/** What runs on a kernel that has the exporters: in the guest, or on hardware. */
import { readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const dist = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
export const root = dirname(dist)

/** The compiled files of a folder, from its sources: dist may hold some that are gone. */
function compiled(folder: string, suffix: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(suffix))
    .sort()
    .map((name) => join('dist', folder, name.replace(/\.ts$/, '.js')))
}

/** Arguments for run.js. */
export function kernelTests(): string[] {
  return [
    ...compiled('test/kernel', '.test.ts').map((file) => `tap ${file}`),
    ...compiled('examples', '.ts').map((file) => `run ${file}`),
  ]
}

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

/**
 * These take devices at the rig's addresses from their drivers, and drive them, or
 * want the rig's soft-RoCE:
 * on another machine anything may be there.
 */
const forTheRig = /\/(bind|(vfio|verbs)[^/]*)\.test\.js$/

/** These need the modules of test/modules: `rig --rxe-dmabuf`. */
const forOurModules = /\/rxe-dmabuf[^/]*\.test\.js$/

/** Arguments for run.js. */
export function kernelTests(where: 'rig' | 'rxe-dmabuf' | 'hardware'): string[] {
  const all = compiled('test/kernel', '.test.ts')
  if (where === 'rxe-dmabuf') {
    return all.filter((file) => forOurModules.test(file)).map((file) => `tap ${file}`)
  }
  const tests = all.filter((file) => !forOurModules.test(file))
  return [
    ...tests
      .filter((file) => where === 'rig' || !forTheRig.test(file))
      .map((file) => `tap ${file}`),
    ...compiled('examples', '.ts').map((file) => `run ${file}`),
  ]
}

/** What runs on a kernel that has the exporters: in the guest, or on hardware. */
import { readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const dist = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
export const root = dirname(dist)

/** Packed, see scripts/bundle.mjs, of a folder; from its sources: there may be some that are gone. */
function packed(folder: string, suffix: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(suffix))
    .sort()
    .map((name) => join('bundle', folder, name.replace(/\.ts$/, '.js')))
}

/**
 * These take devices at the rig's addresses from their drivers, and drive them, or
 * want the rig's soft-RoCE:
 * on another machine anything may be there.
 */
const forTheRig = /\/(bind|(vfio|verbs)[^/]*)\.test\.js$/

/** These need the modules of test/modules: `rig --rxe-dmabuf`. */
const forOurModules = /\/rxe-dmabuf[^/]*\.test\.js$/

/** Half of the work in the rig: it has a guest of its own, beside the others'. */
const forVerbs = /\/verbs[^/]*\.test\.js$/

/** What goes another way where iommufd is: the spaces' own, and one of each layer above. */
const forIommufd = /\/vfio(-dma|-engine|-smoke)?\.test\.js$/

/**
 * Examples that others run: the two of vfio-smoke.test.ts, where one sends what the other
 * takes, and the one that needs nothing of a kernel (test/unit/examples.test.ts).
 */
const runElsewhere = /\/(packet-(generator|sink)|batch)\.js$/

/** Each is one boot of the rig, by a test of test/rig. */
export const boots = ['rig', 'verbs', 'rxe-dmabuf', 'iommufd'] as const

/** Arguments for run.js. */
export function kernelTests(where: (typeof boots)[number] | 'hardware'): string[] {
  const isWanted = {
    rig: (file: string) => !forOurModules.test(file) && !forVerbs.test(file),
    verbs: (file: string) => forVerbs.test(file),
    'rxe-dmabuf': (file: string) => forOurModules.test(file),
    iommufd: (file: string) => forIommufd.test(file),
    hardware: (file: string) => !forOurModules.test(file) && !forTheRig.test(file),
  }[where]
  const tests = packed('test/kernel', '.test.ts').filter(isWanted)
  const examples = packed('examples', '.ts').filter(
    (file) => where === 'hardware' || (where === 'rig' && !runElsewhere.test(file)),
  )
  // See `iommu` of support.ts.
  const words = where === 'iommufd' ? ' iommufd' : ''
  return [...tests.map((file) => `tap ${file}${words}`), ...examples.map((file) => `run ${file}`)]
}

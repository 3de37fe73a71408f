/**
 * Modules of test/modules, built for a kernel of the rig with some of its own sources.
 * In the cache, by kernel and by what test/modules holds of them.
 */
import { createHash } from 'node:crypto'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { P2pdmaError } from '../errors.js'
import { cachePath, packageRoot, putIntoCache } from './cache.js'
import { cachedKernels, matchesVersion, neededModules, type Kernel } from './kernel.js'
import { ownWorkshop } from './own-kernel.js'
import { findToolchain, type Workshop } from './toolchain.js'

interface Definition {
  /** What it is, to say so. */
  readonly title: string
  /** The folder of our sources in the repository, and which files of it they are. */
  readonly folder: string
  readonly files: RegExp
  /** What is taken of the kernel's sources: paths in its tree. */
  readonly kernels: readonly string[]
  /** Where in the kernel's tree our files belong, and Kbuild begins; '' is its top. */
  readonly at: string
  /** What comes of it, in load order; paths below `at`. */
  readonly built: readonly string[]
  /** Not built for a kernel that has this module itself. */
  readonly unless?: string
}

const rxe = 'drivers/infiniband/sw/rxe'

const definitions = {
  /** Soft-RoCE that registers dma-bufs, an exporter whose buffers move, what has the kernel complain. */
  'rxe-dmabuf': {
    title: 'soft-RoCE with dma-bufs',
    folder: 'test/modules',
    files: /^(Kbuild|[^/]*\.[ch])$/,
    kernels: [rxe],
    at: rxe,
    built: ['rdma_rxe.ko', 'p2pdma_mover.ko', 'p2pdma_complain.ko'],
  },
  /** IOMMUFD, and the VFIO modules that it changes: none of our own. */
  iommufd: {
    title: 'iommufd',
    folder: 'test/modules/iommufd',
    files: /(^|\/)(Kbuild|[^/]*\.(c|mk))$/,
    kernels: [
      'drivers/iommu/iommufd',
      'drivers/iommu/iommu-priv.h',
      'drivers/vfio',
      'lib/interval_tree.c',
    ],
    at: '',
    built: [
      'drivers/iommu/iommufd/iommufd.ko',
      'drivers/vfio/vfio.ko',
      'drivers/vfio/vfio_iommu_type1.ko',
      'drivers/vfio/pci/vfio-pci-core.ko',
      'drivers/vfio/pci/vfio-pci.ko',
    ],
    unless: 'iommufd',
  },
} as const satisfies Record<string, Definition>

export type ModuleSet = keyof typeof definitions

/** For every set, so that the sources are fetched once. */
const kernelSources = Object.values(definitions).flatMap(({ kernels }) => kernels)

export interface BuiltModules {
  /** What they are. */
  readonly title: string
  /** The files, in load order; each instead of the kernel's own of that name, where it has one. */
  readonly files: readonly string[]
}

/** The sets that are asked for. */
export function moduleSets(wanted: { rxeDmabuf?: boolean; iommufd?: boolean }): ModuleSet[] {
  const sets: ModuleSet[] = []
  if (wanted.rxeDmabuf === true) sets.push('rxe-dmabuf')
  if (wanted.iommufd === true) sets.push('iommufd')
  return sets
}

/**
 * A kernel and modules for it: `kernel`, or, where they do not build for that one,
 * the newest that `version` allows for which the cache holds them. Rejects with
 * ERR_RIG_MODULES.
 */
export async function kernelWithModules(
  kernel: Kernel,
  version: string | undefined,
  sets: readonly ModuleSet[],
  say: (message: string) => void,
): Promise<{ kernel: Kernel; modules: BuiltModules[] }> {
  try {
    return { kernel, modules: await modulesFor(kernel, sets, say) }
  } catch (error) {
    if (kernel.own !== undefined) throw error
    for (const other of cachedKernels().filter(({ release }) => matchesVersion(release, version))) {
      const modules = await modulesFor(other, sets, null)
      if (modules === null) continue
      const why = error instanceof Error ? error.message.split('\n')[0] : String(error)
      process.stderr.write(
        `rig: the modules do not build for ${kernel.release} (${why}): ` +
          `kernel ${other.release} instead, for which the cache has them\n`,
      )
      return { kernel: other, modules }
    }
    throw error
  }
}

/** Those of some sets; null, where `say` is null, if the cache lacks one. */
async function modulesFor(
  kernel: Kernel,
  sets: readonly ModuleSet[],
  say: (message: string) => void,
): Promise<BuiltModules[]>
async function modulesFor(
  kernel: Kernel,
  sets: readonly ModuleSet[],
  say: null,
): Promise<BuiltModules[] | null>
async function modulesFor(
  kernel: Kernel,
  sets: readonly ModuleSet[],
  say: ((message: string) => void) | null,
): Promise<BuiltModules[] | null> {
  const found: BuiltModules[] = []
  for (const name of sets) {
    const set: Definition = definitions[name]
    if (set.unless !== undefined && (await neededModules(kernel, set.unless)) !== null) {
      found.push({ title: `${set.title} of the kernel's own`, files: [] })
      continue
    }
    // A tree's sources and what is built of them change together, and then all is anew.
    const workshop = kernel.own === undefined ? null : ownWorkshop(kernel, kernel.own, set.kernels)
    const folder = folderOf(kernel, set, workshop)
    if (!isBuilt(folder, set)) {
      if (say === null) return null
      const shop = workshop ?? (await findToolchain(kernel, kernelSources, say))
      await build(kernel, set, shop, folder, say)
    }
    const files = set.built.map((path) => join(folder, basename(path)))
    found.push({ title: set.title, files })
  }
  return found
}

function isBuilt(folder: string, { built }: Definition): boolean {
  return built.every((path) => existsSync(join(folder, basename(path))))
}

function folderOf(kernel: Kernel, set: Definition, workshop: Workshop | null): string {
  const hash = createHash('sha256')
  for (const name of sourceFiles(set)) {
    const content = readFileSync(join(packageRoot, set.folder, name))
    hash.update(`${name} ${content.length}\n`).update(content)
  }
  if (workshop !== null) hash.update(stateOf(kernel, set, workshop))
  return join(cachePath('modules', kernel.release), hash.digest('hex').slice(0, 16))
}

/** What a build for a tree of somebody's own depends on: when its files have last changed. */
function stateOf(kernel: Kernel, { kernels }: Definition, { source }: Workshop): string {
  const tree = kernel.own?.build ?? ''
  const paths = [
    ...['include/generated/autoconf.h', 'Module.symvers'].map((name) => join(tree, name)),
    ...kernels.flatMap((path) => filesOf(join(source, path))),
  ]
  return [kernel.image, ...paths]
    .filter((path) => existsSync(path))
    .map((path) => `${path} ${statSync(path).mtimeMs} ${statSync(path).size}\n`)
    .join('')
}

/** A folder's sources, or the one that it is; not what a build has left among them. */
function filesOf(path: string): string[] {
  if (!statSync(path).isDirectory()) return [path]
  return readdirSync(path, { recursive: true, encoding: 'utf8' })
    .filter((name) => /(\.[ch]|Makefile)$/.test(name) && !name.endsWith('.mod.c'))
    .sort()
    .map((name) => join(path, name))
}

/** Of ours: names below the set's folder. */
function sourceFiles({ folder, files }: Definition): string[] {
  const path = join(packageRoot, folder)
  if (!existsSync(path)) {
    throw new P2pdmaError('the sources of the modules for tests are not here', {
      code: 'ERR_RIG_MODULES',
      hint: 'they are in the repository only (test/modules), not in the npm package',
    })
  }
  const names = readdirSync(path, { recursive: true, encoding: 'utf8' })
  return names.filter((name) => files.test(name)).sort()
}

async function build(
  kernel: Kernel,
  set: Definition,
  workshop: Workshop,
  target: string,
  say: (message: string) => void,
): Promise<void> {
  say(`building ${set.title} for ${kernel.release}`)
  const folder = workshop.scratch()
  try {
    for (const path of set.kernels) {
      for (const file of filesOf(join(workshop.source, path))) {
        copyInto(file, join(folder, file.slice(workshop.source.length)))
      }
    }
    for (const name of sourceFiles(set)) {
      copyInto(join(packageRoot, set.folder, name), join(folder, set.at, name))
    }
    const inside = join(workshop.inside(folder), set.at)
    const log = join(cachePath('logs'), `modules-${kernel.release}.log`)
    writeFileSync(log, '')
    await workshop.run(['make', ...workshop.make, `M=${inside}`, '-j2', 'modules'], log)
    // Without debug information: the guest would read 20 times as much.
    await workshop.run(['strip', '-g', ...set.built.map((path) => join(inside, path))], log)
    keep(
      set.built.map((path) => join(folder, set.at, path)),
      target,
    )
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  if (isBuilt(target, set)) return
  throw new P2pdmaError('the build made no modules', { code: 'ERR_RIG_MODULES' })
}

function copyInto(file: string, target: string): void {
  mkdirSync(dirname(target), { recursive: true })
  copyFileSync(file, target)
}

function keep(files: readonly string[], target: string): void {
  const temporary = mkdtempSync(`${target}.`)
  for (const file of files) copyFileSync(file, join(temporary, basename(file)))
  putIntoCache(temporary, target)
}

/** The guest's kernel: a stock Debian one, unpacked in the cache, never installed. */
import { existsSync, mkdtempSync, readdirSync, renameSync, rmSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { P2pdmaError } from '../errors.js'
import { PrivateApt } from './apt.js'
import { cachePath } from './cache.js'
import { runProgram, requireTool } from './tools.js'

/** Where kernels are from. */
export const suite = 'trixie-backports'

export interface Kernel {
  /** As `uname -r` says it: `7.3.4+deb13-amd64`. */
  readonly release: string
  /** The boot image. */
  readonly image: string
  /** A root folder with `lib/modules/RELEASE` in it, as `modprobe -d` wants it. */
  readonly root: string
  /** The folder of the modules themselves. */
  readonly modules: string
  /** Where it is none of the cache's: somebody's own. */
  readonly own?: OwnKernel
}

export interface OwnKernel {
  /** The folder against which Kbuild builds modules for it; null where there is none. */
  readonly build: string | null
  /** Its configuration, the text; null where none is beside it. */
  readonly config: string | null
}

/** The cached kernels, newest first. */
export function cachedKernels(): Kernel[] {
  const folder = cachePath('kernels')
  return readdirSync(folder)
    .filter((name) => /^\d/.test(name))
    .sort(compareVersions)
    .reverse()
    .map((release) => describe(join(folder, release), release))
    .filter((kernel) => existsSync(kernel.image))
}

/** The newest cached kernel, or the newest whose version starts with `version`. */
export function findKernel(version?: string): Kernel {
  const kernel = cachedKernels().find(({ release }) => matchesVersion(release, version))
  if (kernel !== undefined) return kernel
  const wanted = version === undefined ? '' : ` ${version}`
  throw new P2pdmaError(`the rig has no kernel${wanted} in its cache`, {
    code: 'ERR_RIG_KERNEL_MISSING',
    hint:
      version === undefined
        ? './setup, or: p2pdma rig --setup'
        : `p2pdma rig --setup --kernel ${version}`,
  })
}

/**
 * Fetches the newest 7.x kernel of the suite (or the newest that starts with
 * `version`) into the cache; `say` hears what is done.
 */
export async function fetchKernel(
  version: string | undefined,
  say: (message: string) => void,
): Promise<Kernel> {
  const apt = await PrivateApt.open(cachePath('apt'), suite)
  say(`looking for the newest kernel in ${suite}`)
  await apt.update()
  const names = await apt.names('linux-')
  const release = names
    .map((name) => /^linux-(?:binary|image)-(7\.[\d.]+(?:~\w+)?(?:\+\w+)?-amd64)$/.exec(name)?.[1])
    .filter((found) => found !== undefined)
    .filter((found) => matchesVersion(found, version))
    .sort(compareVersions)
    .at(-1)
  if (release === undefined) {
    throw new P2pdmaError(`${suite} has no kernel ${version ?? '7.x'}`, {
      code: 'ERR_RIG_KERNEL_MISSING',
      hint: 'exact versions vanish from that suite: leave --kernel out for the newest',
    })
  }
  const folder = cachePath('kernels')
  const target = join(folder, release)
  if (!existsSync(target)) {
    // Older releases have all in -image; newer ones split it up.
    const parts = ['image', 'binary', 'modules', 'base'].map((part) => `linux-${part}-${release}`)
    const packages = parts.filter((name) => names.includes(name))
    say(`fetching ${packages.join(', ')}`)
    const temporary = mkdtempSync(join(folder, '.unpack-'))
    try {
      await unpack(apt, packages, release, temporary, say)
      renameSync(join(temporary, 'root'), target)
    } finally {
      rmSync(temporary, { recursive: true, force: true })
    }
  }
  return describe(target, release)
}

async function unpack(
  apt: PrivateApt,
  packages: string[],
  release: string,
  folder: string,
  say: (message: string) => void,
): Promise<void> {
  await apt.download(packages, folder)
  const root = join(folder, 'root')
  const dpkg = requireTool('dpkg')
  say(`unpacking ${release}`)
  for (const name of readdirSync(folder).filter((file) => file.endsWith('.deb'))) {
    await runProgram(dpkg, ['-x', join(folder, name), root])
  }
  // The packages are made for a merged /usr; depmod and modprobe look below /lib.
  if (!existsSync(join(root, 'lib'))) symlinkSync('usr/lib', join(root, 'lib'))
  await runProgram(requireTool('depmod'), ['-b', root, release])
  if (!existsSync(describe(root, release).image)) {
    throw new P2pdmaError(`the packages of kernel ${release} hold no boot image`, {
      code: 'ERR_RIG_KERNEL_MISSING',
    })
  }
}

function describe(root: string, release: string): Kernel {
  const modules = join(root, 'lib/modules', release)
  const beside = join(modules, 'vmlinuz')
  const image = existsSync(beside) ? beside : join(root, `boot/vmlinuz-${release}`)
  return { release, image, root, modules }
}

/**
 * The files of a module and of those that it needs, in load order, none of what is
 * built in; null where the kernel has no such module.
 */
export async function neededModules(kernel: Kernel, name: string): Promise<string[] | null> {
  const args = ['--show-depends', '-S', kernel.release, '-d', kernel.root, name]
  try {
    const stdout = await runProgram(requireTool('modprobe'), args)
    return [...stdout.toString().matchAll(/^insmod (\S+)/gm)].map(([, file = '']) => file)
  } catch (error) {
    if (/not found in directory/.test((error as Error).message)) return null
    throw error
  }
}

/** `7.3` means 7.3.4 but not 7.30.1. */
export function matchesVersion(release: string, version: string | undefined): boolean {
  return version === undefined || release === version || /^[^\d]/.test(after(release, version))
}

function after(release: string, version: string): string {
  return release.startsWith(version) ? release.slice(version.length) : '0'
}

export function compareVersions(a: string, b: string): number {
  const [left, right] = [a, b].map((release) => release.split(/[^\d]+/).map(Number))
  for (let i = 0; i < Math.max(left!.length, right!.length); i++) {
    const difference = (left![i] ?? 0) - (right![i] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}

/**
 * The modules of test/modules, built for a kernel of the rig: soft-RoCE that
 * registers dma-bufs, an exporter whose buffers move, and what has the kernel
 * complain. In the cache, by kernel and by what test/modules holds.
 */
import { createHash } from 'node:crypto'
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { P2pdmaError } from '../errors.js'
import { cachePath, packageRoot } from './cache.js'
import { cachedKernels, findKernel, matchesVersion, type Kernel } from './kernel.js'
import { findToolchain, runInToolchain } from './toolchain.js'

const sources = join(packageRoot, 'test/modules')
const built = ['rdma_rxe.ko', 'p2pdma_mover.ko', 'p2pdma_complain.ko'] as const

export interface BuiltModules {
  /** Instead of the kernel's own. */
  readonly rxe: string
  readonly mover: string
  /** Has the kernel complain on command. */
  readonly complain: string
}

/**
 * A kernel and the modules for it: the one that the rig would take, or, where
 * the modules do not build for that one and no version is asked for, the newest
 * for which the cache holds them. Rejects with ERR_RIG_MODULES.
 */
export async function kernelWithModules(
  version: string | undefined,
  say: (message: string) => void,
): Promise<{ kernel: Kernel; modules: BuiltModules }> {
  const kernel = findKernel(version)
  const found = cached(kernel)
  if (found !== null) return { kernel, modules: found }
  try {
    return { kernel, modules: await build(kernel, say) }
  } catch (error) {
    for (const other of cachedKernels().filter(({ release }) => matchesVersion(release, version))) {
      const modules = cached(other)
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

function cached(kernel: Kernel): BuiltModules | null {
  const folder = folderOf(kernel)
  if (!built.every((name) => existsSync(join(folder, name)))) return null
  const [rxe, mover, complain] = built
  return { rxe: join(folder, rxe), mover: join(folder, mover), complain: join(folder, complain) }
}

function folderOf(kernel: Kernel): string {
  return join(cachePath('modules', kernel.release), hashOfSources())
}

function sourceFiles(): string[] {
  if (!existsSync(sources)) {
    throw new P2pdmaError('the sources of the modules for tests are not here', {
      code: 'ERR_RIG_MODULES',
      hint: 'they are in the repository only (test/modules), not in the npm package',
    })
  }
  const names = readdirSync(sources).filter((name) => name === 'Kbuild' || /\.[ch]$/.test(name))
  return names.sort().map((name) => join(sources, name))
}

function hashOfSources(): string {
  const hash = createHash('sha256')
  for (const file of sourceFiles()) {
    const content = readFileSync(file)
    hash.update(`${basename(file)} ${content.length}\n`).update(content)
  }
  return hash.digest('hex').slice(0, 16)
}

async function build(kernel: Kernel, say: (message: string) => void): Promise<BuiltModules> {
  const toolchain = await findToolchain(kernel, say)
  say(`building modules for ${kernel.release}`)
  const folder = mkdtempSync(join(toolchain.root, 'tmp/modules-'))
  try {
    cpSync(toolchain.rxe, folder, { recursive: true })
    for (const file of sourceFiles()) copyFileSync(file, join(folder, basename(file)))
    const inside = `/tmp/${basename(folder)}`
    const log = join(cachePath('logs'), `modules-${kernel.release}.log`)
    writeFileSync(log, '')
    const headers = `/usr/src/linux-headers-${kernel.release}`
    const compiler = `CC=${toolchain.compiler}`
    const make = ['make', '-C', headers, `M=${inside}`, compiler, '-j2', 'modules']
    await runInToolchain(toolchain, make, log)
    // Without debug information: the guest would read 20 times as much.
    await runInToolchain(
      toolchain,
      ['strip', '-g', ...built.map((name) => `${inside}/${name}`)],
      log,
    )
    keep(folder, folderOf(kernel))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  const modules = cached(kernel)
  if (modules !== null) return modules
  throw new P2pdmaError('the build made no modules', { code: 'ERR_RIG_MODULES' })
}

/** Into the cache in one step: another run may be at the same. */
function keep(from: string, target: string): void {
  const temporary = mkdtempSync(`${target}.`)
  for (const name of built) copyFileSync(join(from, name), join(temporary, name))
  try {
    renameSync(temporary, target)
  } catch (error) {
    rmSync(temporary, { recursive: true, force: true })
    if (!existsSync(target)) throw error
  }
}

/** `p2pdma rig --setup`: the packages that the rig calls, its kernel, and modules for tests. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cachedKernels, fetchKernel, matchesVersion, type Kernel } from './kernel.js'
import { kernelWithModules, type ModuleSet } from './modules.js'
import { chooseKernel, isPath } from './own-kernel.js'
import { missingPackages, requireTool, toolsMissing } from './tools.js'

/**
 * Makes the rig ready, and does nothing that is done already. Root installs
 * missing packages; anybody else is told (ERR_RIG_TOOL_MISSING) which.
 */
export async function setUpRig(
  version: string | undefined,
  sets: readonly ModuleSet[],
  say: (message: string) => void,
  kernelModules?: string,
): Promise<Kernel> {
  await installTools(say)
  const isOwn = version !== undefined && isPath(version)
  const kernel = isOwn
    ? await chooseKernel(version, kernelModules)
    : await stockKernel(version, say)
  say(`kernel ${kernel.release} is in ${kernel.root}`)
  const { modules } = await kernelWithModules(kernel, version, sets, say)
  for (const { title, files } of modules) say(`${title} is ${files[0] ?? 'there'}`)
  return kernel
}

async function stockKernel(
  version: string | undefined,
  say: (message: string) => void,
): Promise<Kernel> {
  const cached = cachedKernels().find(({ release }) => matchesVersion(release, version))
  return cached ?? (await fetchKernel(version, say))
}

async function installTools(say: (message: string) => void): Promise<void> {
  const missing = missingPackages()
  if (missing.length === 0) return
  if (process.getuid?.() !== 0) throw toolsMissing(missing)
  say(`installing ${missing.join(' ')}`)
  await aptGet('update', '-qq')
  await aptGet('install', '-y', '-qq', '--no-install-recommends', ...missing)
  const still = missingPackages()
  if (still.length > 0) throw toolsMissing(still)
}

async function aptGet(...args: string[]): Promise<void> {
  const child = spawn(requireTool('apt-get'), args, {
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    stdio: ['ignore', 2, 2],
  })
  const [code] = (await once(child, 'close')) as [number | null]
  if (code !== 0) throw toolsMissing(missingPackages())
}

/** `p2pdma rig --setup`: the packages that the rig calls, its kernel, and modules for tests. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cachedKernels, fetchKernel, matchesVersion, type Kernel } from './kernel.js'
import { kernelWithModules } from './modules.js'
import { missingPackages, requireTool, toolsMissing } from './tools.js'

/**
 * Makes the rig ready, and does nothing that is done already. Root installs
 * missing packages; anybody else is told (ERR_RIG_TOOL_MISSING) which.
 */
export async function setUpRig(
  version: string | undefined,
  rxeDmabuf: boolean,
  say: (message: string) => void,
): Promise<Kernel> {
  await installTools(say)
  const cached = cachedKernels().find(({ release }) => matchesVersion(release, version))
  const kernel = cached ?? (await fetchKernel(version, say))
  say(`kernel ${kernel.release} is in ${kernel.root}`)
  if (rxeDmabuf) {
    const { modules } = await kernelWithModules(version, say)
    say(`soft-RoCE with dma-bufs is ${modules.rxe}`)
  }
  return kernel
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

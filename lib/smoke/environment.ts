/** What the figures were measured on. */
import { readFileSync } from 'node:fs'
import { arch, availableParallelism, release, totalmem } from 'node:os'

export interface Environment {
  node: string
  kernel: string
  arch: string
  cpus: number
  memoryBytes: number
  /** Whether the CPU says that it is a virtual machine's. */
  hypervisor: boolean
  /** Of this package. */
  version: string
}

export function environment(): Environment {
  return {
    node: process.version,
    kernel: release(),
    arch: arch(),
    cpus: availableParallelism(),
    memoryBytes: totalmem(),
    hypervisor: hasHypervisorFlag(),
    version: packageVersion(),
  }
}

function hasHypervisorFlag(): boolean {
  try {
    return /^flags\s*:.*\bhypervisor\b/m.test(readFileSync('/proc/cpuinfo', 'utf8'))
  } catch {
    return false
  }
}

function packageVersion(): string {
  const url = new URL('../../../package.json', import.meta.url)
  const { version } = JSON.parse(readFileSync(url, 'utf8')) as { version: string }
  return version
}

/** How the rig is called from where this package is: its checkout, or a project that installed it. */
export function rigCommand(): string {
  return import.meta.url.includes('/node_modules/') ? 'npx p2pdma rig --' : 'npm run rig --'
}

/** What the kernel tells of its PCI devices, and the modules that drive them. */
import { execFile } from 'node:child_process'
import { closeSync, constants, openSync } from 'node:fs'
import { join } from 'node:path'
import { programEnvironment } from '../programs.js'
import { System } from '../system.js'

const DEVICES = '/sys/bus/pci/devices'

export class PciSystem extends System {
  /** In a device's folder; without a name, the folder. */
  device(address: string, name = ''): string {
    return join(DEVICES, address, name)
  }

  /** Whether somebody has the block device for himself: mounted in another namespace, or in a pool. */
  isClaimed(name: string): boolean {
    if (!this.isReal) return false
    try {
      closeSync(openSync(join('/dev', name), constants.O_RDONLY | constants.O_EXCL))
      return false
    } catch (error) {
      return (error as NodeJS.ErrnoException).code === 'EBUSY'
    }
  }

  /** Rejects with what modprobe has to say. */
  loadModule(name: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const options = { env: programEnvironment() }
      execFile('modprobe', ['--', name], options, (error, _, stderr) => {
        if (error === null) resolve()
        else reject(new Error(stderr.trim() || error.message))
      })
    })
  }
}

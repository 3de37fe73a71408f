/** Which processes have a device of VFIO open. */
import { type Holder, holdersOfFiles } from '../holders.js'
import type { PciDevice } from './device.js'
import type { PciSystem } from './system.js'

/**
 * Those that have its group, its own character device, or the device itself
 * open. Needs root to see the processes of others.
 */
export async function holdersOf(system: PciSystem, device: PciDevice): Promise<Holder[]> {
  const files = new Set([
    `/dev/vfio/${device.iommuGroup}`,
    `/dev/vfio/noiommu-${device.iommuGroup}`,
  ])
  for (const name of system.list(system.device(device.address, 'vfio-dev'))) {
    files.add(`/dev/vfio/devices/${name}`)
  }
  const folder = system.resolve(system.device(device.address))
  return holdersOfFiles(
    system,
    (target, pid, fd) =>
      target.includes('vfio') && (files.has(target) || syspath(system, pid, fd) === folder),
  )
}

/** A device's own descriptor says whose it is since Linux 6.17 (vfio_device_show_fdinfo). */
function syspath(system: PciSystem, pid: string, fd: string): string | null {
  const info = system.read(`/proc/${pid}/fdinfo/${fd}`) ?? ''
  const path = /^vfio-device-syspath:\s*(\S+)/m.exec(info)?.[1]
  return path === undefined ? null : system.resolve(path.replace(/^\/?(?=devices\/)/, '/sys/'))
}

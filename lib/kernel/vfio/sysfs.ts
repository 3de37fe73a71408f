/** What sysfs says of a device and of its IOMMU group. */
import { existsSync, readFileSync, readdirSync, readlinkSync } from 'node:fs'
import { basename } from 'node:path'

const DEVICES = '/sys/bus/pci/devices'

export interface GroupMember {
  /** `0000:00:11.0` */
  address: string
  /** The driver's name; null where none is bound. */
  driver: string | null
}

export function groupMembers(group: string): GroupMember[] {
  return list(`/sys/kernel/iommu_groups/${group}/devices`).map((address) => ({
    address,
    driver: driverOf(address),
  }))
}

/** Whether there is such a PCI device. */
export function deviceExists(address: string): boolean {
  return existsSync(`${DEVICES}/${address}`)
}

export function driverOf(address: string): string | null {
  return linkName(`${DEVICES}/${address}/driver`)
}

/**
 * The number of a PCI device's IOMMU group; null where it has none, or one
 * that VFIO has made up (vfio_noiommu_group_alloc).
 */
export function groupOf(address: string): string | null {
  const group = linkName(`${DEVICES}/${address}/iommu_group`)
  if (group === null) return null
  return readText(`/sys/kernel/iommu_groups/${group}/name`) === 'vfio-noiommu' ? null : group
}

/** Whether VFIO has it, by vfio-pci or by a driver of its kind. */
export function isVfioDevice(address: string): boolean {
  if (list(`${DEVICES}/${address}/vfio-dev`).length > 0) return true
  return driverOf(address)?.includes('vfio') === true
}

/** The device file that goes with iommufd; null where the kernel has none. */
export function deviceFile(address: string): string | null {
  const [name] = list(`${DEVICES}/${address}/vfio-dev`)
  const path = `/dev/vfio/devices/${name ?? ''}`
  return name !== undefined && existsSync(path) ? path : null
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder).sort()
  } catch {
    return []
  }
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, 'latin1').trim()
  } catch {
    return null
  }
}

function linkName(path: string): string | null {
  try {
    return basename(readlinkSync(path))
  } catch {
    return null
  }
}

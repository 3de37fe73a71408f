/** Who is in an IOMMU group, from sysfs. */
import { readdirSync, readlinkSync } from 'node:fs'
import { basename } from 'node:path'

export interface GroupMember {
  /** `0000:00:11.0` */
  address: string
  /** The driver's name; null where none is bound. */
  driver: string | null
}

export function groupMembers(group: string): GroupMember[] {
  const folder = `/sys/kernel/iommu_groups/${group}/devices`
  return list(folder).map((address) => ({
    address,
    driver: linkName(`/sys/bus/pci/devices/${address}/driver`),
  }))
}

/** The number of a PCI device's IOMMU group; null where it has none. */
export function groupOf(address: string): string | null {
  return linkName(`/sys/bus/pci/devices/${address}/iommu_group`)
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder).sort()
  } catch {
    return []
  }
}

function linkName(path: string): string | null {
  try {
    return basename(readlinkSync(path))
  } catch {
    return null
  }
}

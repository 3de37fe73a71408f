/** A PCI device as sysfs has it. */
import { P2pdmaError } from '../../errors.js'
import { parseBdf } from './address.js'
import type { PciSystem } from './system.js'

export interface PciDevice {
  /** `0000:00:11.0` */
  address: string
  vendor: number
  device: number
  /** Class, subclass and programming interface, 24 bits. */
  class: number
  /** The driver's name; null where none is bound. */
  driver: string | null
  /** The only driver that may have it; null where any may. */
  driverOverride: string | null
  /** The number of its IOMMU group; null where no IOMMU stands behind it. */
  iommuGroup: string | null
}

/** Class and subclass: what forwards to other devices, and is nobody's to drive. */
export function isBridge({ class: code }: PciDevice): boolean {
  return code >> 16 === 0x06
}

export function listDevices(system: PciSystem): PciDevice[] {
  return system.list(system.device('')).map((address) => facts(system, address))
}

/** ENODEV where there is none. */
export function findDevice(address: string, system: PciSystem): PciDevice {
  const parsed = parseBdf(address)
  if (!system.exists(system.device(parsed))) {
    throw new P2pdmaError(`There is no PCI device ${parsed}`, {
      code: 'ENODEV',
      argument: 'address',
      hint: '`ls /sys/bus/pci/devices` shows those that there are',
    })
  }
  return facts(system, parsed)
}

/** The devices that the IOMMU cannot tell apart, with their bridges. */
export function groupOf(group: string, system: PciSystem): PciDevice[] {
  const members = system.list(`/sys/kernel/iommu_groups/${group}/devices`)
  return members.map((address) => facts(system, address))
}

function facts(system: PciSystem, address: string): PciDevice {
  const number = (name: string) => Number(system.read(system.device(address, name)) ?? 0)
  const override = system.read(system.device(address, 'driver_override'))
  return {
    address,
    vendor: number('vendor'),
    device: number('device'),
    class: number('class'),
    driver: system.linkName(system.device(address, 'driver')),
    // drivers/pci/pci-sysfs.c prints a null pointer.
    driverOverride: override === '(null)' || override === '' ? null : override,
    iommuGroup: system.linkName(system.device(address, 'iommu_group')),
  }
}

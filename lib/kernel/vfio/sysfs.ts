/** What sysfs says of a device that VFIO is to open. */
import { pciDevice } from '../pci/index.js'
import { groupOf, type PciDevice } from '../pci/device.js'
import { PciSystem } from '../pci/system.js'

export interface VfioFacts extends PciDevice {
  /** Whether VFIO has it, by vfio-pci or by a driver of its kind. */
  isVfio: boolean
  /** Whether its IOMMU group is one that VFIO has made up (vfio_noiommu_group_alloc). */
  isNoIommu: boolean
  /** The device file that goes with iommufd; null where the kernel has none. */
  file: string | null
}

/** ENODEV where there is no such device. */
export function vfioFacts(address: string): VfioFacts {
  const system = new PciSystem()
  const device = pciDevice(address)
  const [name] = system.list(system.device(device.address, 'vfio-dev'))
  const file = `/dev/vfio/devices/${name ?? ''}`
  const groupName = system.read(`/sys/kernel/iommu_groups/${device.iommuGroup ?? ''}/name`)
  return {
    ...device,
    isVfio: name !== undefined || isVfioDriver(device.driver),
    isNoIommu: groupName === 'vfio-noiommu',
    file: name !== undefined && system.exists(file) ? file : null,
  }
}

/** Drivers that leave the DMA of a group to its owner (`driver_managed_dma`). */
const harmless: readonly (string | null)[] = [null, 'pcieport', 'pci-stub']

/** The devices of a group that kernel drivers have, each with its driver. */
export function inTheWay(group: string): string[] {
  return groupOf(group, new PciSystem())
    .filter(({ driver }) => !harmless.includes(driver) && !isVfioDriver(driver))
    .map(({ address, driver }) => `${address} (${driver ?? ''})`)
}

function isVfioDriver(driver: string | null): boolean {
  return driver?.includes('vfio') === true
}

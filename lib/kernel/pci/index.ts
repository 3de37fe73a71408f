/** The machine's PCI devices, and who drives them. */
import { bindDevices, type BindResult, unbindDevices } from './bind.js'
import { findDevice, listDevices, type PciDevice } from './device.js'
import { processJournal } from '../undo/journal.js'
import { PciSystem } from './system.js'

export { parseBdf } from './address.js'
export type { BindResult, PciDevice }

/** All PCI devices, in the order of their addresses. */
export function pciDevices(): PciDevice[] {
  return listDevices(new PciSystem())
}

/** One of them; ENODEV where there is none. */
export function pciDevice(address: string): PciDevice {
  return findDevice(address, new PciSystem())
}

/**
 * Binds devices to vfio-pci, one after the other, after looking at all of
 * them. Loads the modules where they are missing. What is bound already stays
 * as it is.
 *
 * Rejects, with nothing changed: ENODEV; EBUSY for what is mounted, up, or
 * otherwise in use; ERR_NO_IOMMU; ERR_GROUP_NOT_VIABLE where others of its IOMMU
 * group have drivers and are not among `addresses`; ERR_UNSUPPORTED for a
 * bridge; ERR_MODULE where vfio-pci cannot be loaded. Rejects with
 * ERR_BIND_FAILED where vfio-pci did not take one: all have their drivers back. Of a
 * process that is killed in the middle the next `p2pdma` puts it back. ERR_NO_JOURNAL
 * where it could not be noted for that.
 */
export async function bindToVfio(addresses: string | readonly string[]): Promise<BindResult[]> {
  return bindDevices(addresses, new PciSystem(), processJournal())
}

/**
 * Gives devices back to the drivers that the kernel has for them, if any.
 * Rejects, with nothing changed, with ENODEV, and with EBUSY while a process has
 * it open: the kernel would wait for its end (vfio_unregister_group_dev).
 */
export async function unbindFromVfio(addresses: string | readonly string[]): Promise<BindResult[]> {
  return unbindDevices(addresses, new PciSystem(), processJournal())
}

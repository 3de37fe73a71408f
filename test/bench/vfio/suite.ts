/** The user-space NIC driver against C. Wants two NICs, bound to vfio-pci, that hear each other. */
import type { Ratio } from '../measure.js'
import { findDevices } from './devices.js'
import { framesRatios } from './frames.js'
import { buildPeer } from './peer.js'

export async function vfioSuite(quick: boolean): Promise<Ratio[]> {
  const devices = findDevices()
  buildPeer()
  return framesRatios(devices, quick)
}

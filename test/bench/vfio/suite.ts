/** The user-space NIC driver against C. Wants two NICs and a memory device, bound to vfio-pci. */
import type { Ratio } from '../measure.js'
import { findDevices } from './devices.js'
import { framesRatios } from './frames.js'
import { pauseRatios } from './pause.js'
import { buildPeer } from './peer.js'

export async function vfioSuite(quick: boolean): Promise<Ratio[]> {
  const devices = findDevices()
  buildPeer()
  return [...(await framesRatios(devices, quick)), ...(await pauseRatios(devices, quick))]
}

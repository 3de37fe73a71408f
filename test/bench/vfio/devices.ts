/** Which devices there are to measure with: those that are bound to vfio-pci. */
import { P2pdmaError } from '../../../lib/errors.js'
import { pciDevices } from '../../../lib/kernel/pci/index.js'

export interface Devices {
  /** Two 82574 that hear each other; the first sends. */
  sender: string
  receiver: string
  /** The device whose BAR2 is memory. */
  memory: string
}

export function findDevices(): Devices {
  const nics = bound(0x8086, 0x10d3)
  const [memory] = bound(0x1af4, 0x1110)
  const [sender, receiver] = nics
  if (sender === undefined || receiver === undefined || memory === undefined) {
    throw new P2pdmaError('The suite vfio needs two 82574 NICs and an ivshmem device', {
      code: 'ENODEV',
      hint: 'bind them (`p2pdma bind`), or run it in the rig: npm run rig -- npm run bench -- --suite vfio',
    })
  }
  return { sender, receiver, memory }
}

function bound(vendor: number, device: number): string[] {
  return pciDevices()
    .filter((each) => each.driver === 'vfio-pci')
    .filter((each) => each.vendor === vendor && each.device === device)
    .map(({ address }) => address)
}

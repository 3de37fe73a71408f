/** Which devices there are to measure with: those that are bound to vfio-pci. */
import { readdirSync, readFileSync } from 'node:fs'
import { P2pdmaError } from '../../../lib/errors.js'

export interface Devices {
  /** Two 82574 that hear each other; the first sends. */
  sender: string
  receiver: string
  /** The device whose BAR2 is memory. */
  memory: string
}

const DRIVER = '/sys/bus/pci/drivers/vfio-pci'

export function findDevices(): Devices {
  const nics = bound('0x8086', '0x10d3')
  const [memory] = bound('0x1af4', '0x1110')
  const [sender, receiver] = nics
  if (sender === undefined || receiver === undefined || memory === undefined) {
    throw new P2pdmaError('The suite vfio needs two 82574 NICs and an ivshmem device', {
      code: 'ENODEV',
      hint: 'bind them (`p2pdma bind`), or run it in the rig: npm run rig -- npm run bench -- --suite vfio',
    })
  }
  return { sender, receiver, memory }
}

function bound(vendor: string, device: string): string[] {
  const read = (address: string, name: string) =>
    readFileSync(`${DRIVER}/${address}/${name}`, 'utf8').trim()
  let names: string[] = []
  try {
    names = readdirSync(DRIVER)
  } catch {
    // The driver is not loaded.
  }
  return names
    .filter((name) => /^[\da-f]{4,}:/.test(name))
    .filter((name) => read(name, 'vendor') === vendor && read(name, 'device') === device)
    .sort()
}

/** Devices bound to vfio-pci that have a BAR which looks like memory. */
import { readdirSync, readFileSync } from 'node:fs'

/** Flags of a line in a PCI device's `resource` (include/linux/ioport.h). */
const IORESOURCE_MEM = 0x200
const IORESOURCE_PREFETCH = 0x2000

/** Registers have smaller ones. */
const LEAST = 1 << 20

const BARS = 6

/**
 * PCI classes whose memory is there to hold what anybody writes: memory controllers, and
 * displays. What a NIC or a disk does with it nobody knows: such a one has to be named.
 */
const CLASSES = [0x05, 0x03]

/** PCI addresses. */
export function memoryDevices(sysfs = '/sys/bus/pci'): string[] {
  try {
    return readdirSync(`${sysfs}/drivers/vfio-pci`)
      .filter((name) => /^[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/.test(name))
      .filter((address) => CLASSES.includes(classOf(`${sysfs}/devices/${address}/class`)))
      .filter((address) => hasMemory(`${sysfs}/devices/${address}/resource`))
      .sort()
  } catch {
    return []
  }
}

function classOf(path: string): number {
  return Number(readFileSync(path, 'utf8')) >> 16
}

/** Reading memory has no side effect, so such a BAR says that it may be prefetched. */
function hasMemory(path: string): boolean {
  const lines = readFileSync(path, 'utf8').split('\n').slice(0, BARS)
  return lines.some((line) => {
    const [start = 0, end = 0, flags = 0] = line.split(' ').map(Number)
    const isMemory = (flags & IORESOURCE_MEM) !== 0 && (flags & IORESOURCE_PREFETCH) !== 0
    return isMemory && end - start + 1 >= LEAST
  })
}

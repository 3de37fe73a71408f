/** Which PCI devices the run is about: two NICs, and one with memory. */
import { readFileSync } from 'node:fs'
import { P2pdmaError } from '../../errors.js'
import { drivers, pciId } from '../../engines/vfio/drivers.js'
import { memoryDevices } from '../../exporters/memory-devices.js'
import { parseBdf, pciDevice, pciDevices, type PciDevice } from '../../kernel/pci/index.js'
import { rigCommand } from '../environment.js'

export interface Cast {
  sender: string
  receiver: string
  /** Null where there is none. */
  memory: string | null
}

const VFIO = 'vfio-pci'

/**
 * `nics`: none, or two addresses with a comma between; those that are missing
 * are looked for among what is bound to vfio-pci. Throws ERR_NO_DEVICE where too
 * few are found, ENODEV and ERR_NOT_BOUND for those that were named.
 */
export function castDevices(nics: string, memory: string | null): Cast {
  const named = nics === '' ? [] : nics.split(',').map((text) => bound(text, 'engine'))
  if (named.length > 2 || (named[0] !== undefined && named[0] === named[1])) {
    throw new P2pdmaError('--engine vfio takes the addresses of two NICs', {
      code: 'ERR_INVALID_ARG_VALUE',
      argument: 'engine',
      hint: 'as in vfio:0000:03:00.0,0000:04:00.0',
    })
  }
  const all = pciDevices().filter(({ driver }) => driver === VFIO)
  const found = all.filter((each) => isDriven(each) && !named.includes(each.address))
  const [sender, receiver] = [...named, ...found.map(({ address }) => address)]
  if (sender === undefined || receiver === undefined) throw tooFew(sender)
  return { sender, receiver, memory: memory === null ? largest() : bound(memory, 'memory') }
}

function bound(text: string, argument: string): string {
  const address = parseBdf(text, argument)
  const { driver } = pciDevice(address)
  if (driver === VFIO) return address
  throw new P2pdmaError(`${address} is bound to ${driver ?? 'no driver'}, not to ${VFIO}`, {
    code: 'ERR_NOT_BOUND',
    argument,
    hint: `\`p2pdma bind ${address}\``,
  })
}

function tooFew(sender: string | undefined): P2pdmaError {
  const one = sender === undefined ? 'no NIC' : `only one NIC, ${sender},`
  const idle = pciDevices().filter((each) => isDriven(each) && each.driver !== VFIO)
  const names = idle.map(({ address }) => address).join(' ')
  return new P2pdmaError(
    `${one} is bound to ${VFIO}: one has to send what another receives, over a cable or switch`,
    {
      code: 'ERR_NO_DEVICE',
      hint:
        idle.length > 0
          ? `\`p2pdma bind ${names}\``
          : `there are drivers for ${drivers.all.map(({ name }) => name).join(', ')}; ` +
            `or in a virtual machine: ${rigCommand()} p2pdma smoke --engine vfio`,
    },
  )
}

function isDriven({ vendor, device }: PciDevice): boolean {
  return drivers.all.some(({ ids }) => ids.includes(pciId(vendor, device)))
}

/** The one with the largest BAR of those whose memory may be written to. */
function largest(): string | null {
  const sized = memoryDevices()
    .map((address) => ({ address, size: largestBar(address) }))
    .filter(({ size }) => size > 0)
    .sort((a, b) => b.size - a.size)
  return sized[0]?.address ?? null
}

/** include/linux/ioport.h */
const IORESOURCE_MEM = 0x200

function largestBar(address: string): number {
  const text = readFileSync(`/sys/bus/pci/devices/${address}/resource`, 'utf8')
  const sizes = text.split('\n', 6).map((line) => {
    const [start = 0, end = 0, flags = 0] = line.split(' ').map(Number)
    return (flags & IORESOURCE_MEM) === 0 ? 0 : end - start + 1
  })
  return Math.max(...sizes)
}

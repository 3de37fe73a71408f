/**
 * What PCI devices say of themselves: ids, memory, interrupts, capabilities.
 * Takes addresses, by default those of all devices that are bound to vfio-pci
 * (`p2pdma bind`), and needs an IOMMU.
 */
import { pciDevices, PciConfig, VfioDevice, type InterruptKind } from 'p2pdma'

const CAPABILITIES: Record<number, string> = {
  0x01: 'power management',
  0x05: 'MSI',
  0x10: 'PCI Express',
  0x11: 'MSI-X',
}

const hex = (value: number, digits: number) => value.toString(16).padStart(digits, '0')

async function show(address: string): Promise<void> {
  await using device = await VfioDevice.open(address)
  const { config, interrupts } = device
  const subsystem = [PciConfig.SUBSYSTEM_VENDOR_ID, PciConfig.SUBSYSTEM_ID]
  console.log(
    `${address}: ${hex(device.vendorId, 4)}:${hex(device.deviceId, 4)}`,
    `revision ${hex(config.read8(PciConfig.REVISION), 2)},`,
    `class ${hex(config.read16(PciConfig.CLASS), 4)},`,
    `subsystem ${subsystem.map((offset) => hex(config.read16(offset), 4)).join(':')};`,
    `by ${device.space.kind}${device.resettable ? ', can be reset' : ''}`,
  )
  for (const { index, size, mappable } of device.regions) {
    if (index > 5 || size === 0) continue
    console.log(`  BAR ${index}: ${size} bytes${mappable ? ', can be mapped' : ''}`)
  }
  const kinds: InterruptKind[] = ['intx', 'msi', 'msix']
  const counts = kinds.map((kind) => `${interrupts.count(kind)} ${kind}`)
  console.log(`  interrupts: ${counts.join(', ')}`)
  const names = config.capabilities().map(({ id }) => CAPABILITIES[id] ?? `0x${hex(id, 2)}`)
  console.log(`  capabilities: ${names.join(', ') || 'none'}`)
}

const bound = pciDevices().filter(({ driver }) => driver === 'vfio-pci')
const addresses = process.argv.slice(2)
if (addresses.length === 0) addresses.push(...bound.map(({ address }) => address))
if (addresses.length === 0) console.log('no device is bound to vfio-pci')
for (const address of addresses) await show(address)

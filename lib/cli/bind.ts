/** `p2pdma bind`: take devices from their drivers, for programs to drive them through VFIO. */
import { runBinding } from './binding.js'

export const summary = 'take PCI devices from their drivers, for VFIO'

export const usage = `BDF...

BDF is a device's address, as 0000:03:00.0. It is bound to vfio-pci, which is
loaded if need be, until \`p2pdma unbind\` gives it back or the machine boots.
Refused is what somebody would miss: what is mounted, up, open in a process, the
boot's display, or shares its IOMMU group with a device that has a driver and is
not named too. All are bound or none: what was taken goes back where one fails, on
a signal, and after a kill -9 by the next p2pdma.

Exit codes: 0 all are bound, 1 refused (nothing is changed) or failed, 2 this usage.`

export function run(argv: string[]): Promise<number> {
  return runBinding(argv, `usage: p2pdma bind ${usage}\n`, async (addresses) => {
    const { bindToVfio } = await import('../kernel/pci/index.js')
    return bindToVfio(addresses)
  })
}

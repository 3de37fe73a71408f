/** `p2pdma unbind`: give devices back to their drivers. */
import { runBinding } from './binding.js'

export const summary = 'give them back'

export const usage = `BDF...

BDF is a device's address, as 0000:03:00.0. The kernel chooses among the drivers
that are loaded. Refused while a process has the device open.

Exit codes: 0 vfio-pci has none of them, 1 refused (nothing is changed) or
failed, 2 this usage.`

export function run(argv: string[]): Promise<number> {
  return runBinding(argv, `usage: p2pdma unbind ${usage}\n`, async (addresses) => {
    const { unbindFromVfio } = await import('../kernel/pci/index.js')
    return unbindFromVfio(addresses)
  })
}

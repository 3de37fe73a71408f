/** Why an IOMMU group cannot be had. */
import { P2pdmaError } from '../../errors.js'
import { groupMembers } from './sysfs.js'

/** Drivers that leave the DMA of a group to its owner (`driver_managed_dma`). */
const harmless: readonly (string | null)[] = [null, 'pcieport', 'pci-stub']

/** The group's devices that kernel drivers have, each with its driver. */
export function inTheWay(group: string): string[] {
  return groupMembers(group)
    .filter(({ driver }) => !harmless.includes(driver) && driver?.includes('vfio') !== true)
    .map(({ address, driver }) => `${address} (${driver ?? ''})`)
}

/** ERR_GROUP_NOT_VIABLE, with the names of those in the way. */
export function notViableError(group: string, cause?: unknown): P2pdmaError {
  const others = inTheWay(group)
  const who = others.length === 0 ? 'somebody who has left' : others.join(', ')
  return new P2pdmaError(
    `IOMMU group ${group} is not viable: in the way ${others.length > 1 ? 'are' : 'is'} ${who}`,
    {
      code: 'ERR_GROUP_NOT_VIABLE',
      hint: 'bind every device of the group, or unbind its driver: `p2pdma bind`',
      cause,
    },
  )
}

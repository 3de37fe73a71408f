/** Opens a device by whichever of its two interfaces is there. */
import { existsSync } from 'node:fs'
import { release } from 'node:os'
import { P2pdmaError } from '../../errors.js'
import type { NativeFd } from '../../native.js'
import type { DmaSpace } from './dma-space.js'
import { IOMMUFD, IommufdSpace } from './iommufd.js'
import { type VfioFacts, vfioFacts } from './sysfs.js'
import { CONTAINER, Type1Space } from './type1.js'

export type SpaceKind = 'type1' | 'iommufd'

export interface OpenedDevice {
  fd: NativeFd
  space: DmaSpace
}

/**
 * `kind`: the only one that is good enough; default: iommufd where the kernel
 * has it, but type1 where that alone takes device memory.
 */
export async function openDevice(
  address: string,
  kind: SpaceKind | undefined,
): Promise<OpenedDevice> {
  const facts = vfioFacts(address)
  const group = checkDevice(facts)
  if (kind === 'iommufd') return openIommufd(facts.file, group)
  // Another device of the group decides: the kernel lets a group be used one way only.
  if (kind === 'type1' || Type1Space.known(group) !== undefined) return openType1(address, group)
  if (facts.file === null || !existsSync(IOMMUFD)) return openType1(address, group)
  const isShared = IommufdSpace.known(group) !== undefined
  const isFull = takesDeviceMemory(release()) || !existsSync(CONTAINER)
  return isShared || isFull ? openIommufd(facts.file, group) : openType1(address, group)
}

/**
 * Whether iommufd of this kernel maps BARs, by VFIO's dma-bufs of them: both
 * came with Linux 6.19 (iommufd_ioas_map_file, vfio_pci_dmabuf.c).
 */
export function takesDeviceMemory(kernel: string): boolean {
  const [major = 0, minor = 0] = kernel.split('.').map((part) => parseInt(part, 10))
  return major > 6 || (major === 6 && minor >= 19)
}

/** Returns its IOMMU group. */
function checkDevice({ address, iommuGroup, isNoIommu, isVfio, driver }: VfioFacts): string {
  if (iommuGroup === null || isNoIommu) {
    throw new P2pdmaError(`No IOMMU stands behind ${address}`, {
      code: 'ERR_NO_IOMMU',
      argument: 'address',
      hint: 'switch the IOMMU on: in the firmware, and intel_iommu=on on the command line',
    })
  }
  if (isVfio) return iommuGroup
  const now = driver === null ? 'not bound to any driver' : `bound to ${driver}`
  throw new P2pdmaError(`${address} is ${now}, not to vfio-pci`, {
    code: 'ERR_NOT_BOUND',
    argument: 'address',
    hint: `\`p2pdma bind ${address}\``,
  })
}

async function openType1(address: string, group: string): Promise<OpenedDevice> {
  const space = Type1Space.open(group)
  return closingOnFailure(space, () => space.device(address))
}

async function openIommufd(file: string | null, group: string): Promise<OpenedDevice> {
  if (file === null || !existsSync(IOMMUFD)) {
    const missing = file === null ? 'device files of VFIO (/dev/vfio/devices)' : IOMMUFD
    throw new P2pdmaError(`This kernel has no ${missing}`, {
      code: 'ERR_UNSUPPORTED',
      argument: 'space',
      hint: 'it needs Linux 6.6 with CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV; `modprobe iommufd`',
    })
  }
  const space = IommufdSpace.open(group)
  return closingOnFailure(space, () => space.device(file))
}

async function closingOnFailure(
  space: DmaSpace,
  work: () => Promise<NativeFd>,
): Promise<OpenedDevice> {
  try {
    return { fd: await work(), space }
  } catch (error) {
    space.close()
    throw error
  }
}

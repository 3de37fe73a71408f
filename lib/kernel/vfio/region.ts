/** What VFIO says of a device's regions. */
import { native, type NativeFd } from '../../native.js'
import { translate } from '../call.js'
import { RegionFlag } from './abi.js'

export interface RegionInfo {
  index: number
  /** Bytes; 0 where the device has no such region. */
  size: number
  readable: boolean
  writable: boolean
  /** Whether the CPU can map it. */
  mappable: boolean
  /** What can be mapped, where that is not all of it: bytes from its start. */
  areas: { offset: number; size: number }[] | null
  /** Whether the table of MSI-X lies in a part that can be mapped. */
  msixMappable: boolean
}

/** With its offset in the device's file. */
export function regionInfo(fd: NativeFd, index: number): { offset: number; region: RegionInfo } {
  let info
  try {
    info = native.vfioRegionInfo(fd, index)
  } catch (error) {
    // VGA's region, of a device that is none.
    if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw translate(error)
    info = { flags: 0, size: 0, offset: 0, areas: null, msixMappable: false }
  }
  const { flags, size, offset, areas, msixMappable } = info
  const pairs: { offset: number; size: number }[] = []
  for (let i = 0; areas !== null && i + 1 < areas.length; i += 2) {
    pairs.push({ offset: areas[i] ?? 0, size: areas[i + 1] ?? 0 })
  }
  return {
    offset,
    region: {
      index,
      size,
      readable: (flags & RegionFlag.READ) !== 0,
      writable: (flags & RegionFlag.WRITE) !== 0,
      mappable: (flags & RegionFlag.MMAP) !== 0,
      areas: areas === null ? null : pairs,
      msixMappable,
    },
  }
}

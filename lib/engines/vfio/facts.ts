/** What an engine over VFIO says of itself and of its device. */
import type { P2pdmaError } from '../../errors.js'
import { Op } from '../../move-notify/importer/batch.js'
import type { EngineCapabilities, OperationCapability } from '../../move-notify/importer/engine.js'
import { dmaRefusalOf } from './device-mappings.js'
import type { VfioLink } from './driver.js'

/** What an engine's device has done since it was opened. */
export interface VfioStats {
  /** The driver's sums since it was opened, by the names of the datasheet. */
  device: Readonly<Record<string, number>>
  /** What of them are frames that the device dropped. */
  dropped: number
  /** Times the device was reset, by whoever it was, while it was open. */
  resets: number
}

export interface VfioEvents {
  /** The link has come up or gone down. */
  link: [VfioLink]
  /** The device is being reset, and why. Work that cannot be repeated has an unknown outcome. */
  reset: [string]
  /**
   * The device is gone, or answers no more: `engine.error`, and all that was in
   * flight and waited has rejected with it. Nothing of it is mapped any more, and
   * it has been let go: once it is back, open it again.
   */
  lost: [P2pdmaError]
}

/** Memory comes by its pages, a BAR by its mapping: the IOMMU is given no dma-buf as such. */
export function capabilitiesOf(operations: readonly OperationCapability[]): EngineCapabilities {
  return {
    operations,
    isTwoSided: operations.some(({ op }) => op === Op.SEND || op === Op.RECEIVE),
    maps: { dmaBufs: false, cpuMemory: true, bars: true },
    lateAccess: 'fault',
    canMap: dmaRefusalOf,
  }
}

/** What the kernel says of a device by itself: the request and the error interrupt of VFIO. */
import { native, type NativeFd } from '../../native.js'
import { call } from '../call.js'
import { Irq, IrqFlag, IrqSet } from './abi.js'
import { drop, openVector, type Vector } from './interrupts.js'

export interface NoticeHandlers {
  /** The kernel wants the device back (vfio_pci_core.c, vfio_pci_core_request). */
  request: () => void
  /** An uncorrectable error (vfio_pci_core.c, vfio_pci_core_aer_err_detected). */
  error: () => void
}

/**
 * Listens to both, where the device has them: only PCI Express reports errors.
 * Does not keep the process alive. Returns what stops it; the kernel forgets the
 * eventfds when the device is closed.
 */
export function listenToNotices(device: NativeFd, handlers: NoticeHandlers): () => void {
  const vectors: Vector[] = []
  try {
    for (const [index, handler] of [
      [Irq.REQUEST, handlers.request],
      [Irq.ERROR, handlers.error],
    ] as const) {
      if (!hasNotice(device, index)) continue
      const vector = openVector(handler)
      vectors.push(vector)
      const flags = IrqSet.DATA_EVENTFD | IrqSet.TRIGGER
      call(() => {
        native.vfioSetInterrupts(device, index, 0, 1, flags, [vector.eventfd])
      })
    }
  } catch (error) {
    drop(vectors)
    throw error
  }
  return () => {
    drop(vectors.splice(0))
  }
}

function hasNotice(device: NativeFd, index: number): boolean {
  try {
    const { flags, count } = native.vfioInterruptInfo(device, index)
    return count > 0 && (flags & IrqFlag.EVENTFD) !== 0
  } catch {
    // EINVAL: the kernel has none of this kind, or not for this device.
    return false
  }
}

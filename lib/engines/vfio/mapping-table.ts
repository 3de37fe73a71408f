/** The attachments of a device behind an IOMMU. Each keeps its IOVA range until it is released. */
import { MappingState, STORAGE_ACCESS } from '../../abi.js'
import { slotOf } from '../../move-notify/importer/ids.js'
import { P2pdmaError } from '../../errors.js'
import { AttachmentTable } from '../queue/table.js'
import { grownColumn, sharedColumn } from '../queue/shared-columns.js'

export class MappingTable extends AttachmentTable {
  /** Bytes of the IOVA range kept: `sizes`, rounded up to pages; 0: none is kept. */
  reserved = sharedColumn(this.ids.length, Float64Array)
  /** Slots with an IOVA that have no mapping now. */
  unmapped = 0
  /** Slots given up so far. */
  removals = 0

  override find(id: number): number {
    const slot = super.find(id)
    return slot >= 0 && this.reserved[slot] !== 0 ? slot : -1
  }

  /** ERR_INVALID_STATE where another has the slot still. */
  override claim(id: number): number {
    const slot = slotOf(id)
    if ((this.reserved[slot] ?? 0) !== 0 && this.ids[slot] !== id) {
      throw new P2pdmaError(`attachment ${this.ids[slot] ?? 0} still has the place of ${id}`, {
        code: 'ERR_INVALID_STATE',
        argument: 'id',
      })
    }
    return super.claim(id)
  }

  /** The id names the device's own storage, of `size` bytes: nothing is mapped for it. */
  addStorage(id: number, size: number, access: number): void {
    const slot = this.claim(id)
    this.sizes[slot] = size
    this.access[slot] = access | STORAGE_ACCESS
    this.iovas[slot] = 0
    this.states[slot] = MappingState.OPEN
  }

  dropStorage(id: number): void {
    const slot = super.find(id)
    if (slot >= 0) this.states[slot] = MappingState.NONE
  }

  /** Of the storage, too. */
  override sizeOf(id: number): number {
    return this.sizes[super.find(id)] ?? 0
  }

  protected override grow(length: number): void {
    super.grow(length)
    this.reserved = grownColumn(this.reserved, length, Float64Array)
  }
}

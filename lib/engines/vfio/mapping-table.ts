/**
 * What the device reaches, by attachment id. An id is a slot with a tag above
 * it (move-notify/importer/ids.ts); the columns are indexed by slot, so looking one up
 * allocates nothing.
 */
import { MappingState, SLOT_BITS } from '../../abi.js'
import { P2pdmaError } from '../../errors.js'
import { grownColumn, sharedColumn } from '../shared-columns.js'

const SLOT_MASK = (1 << SLOT_BITS) - 1

export class MappingTable {
  /** Whose the slot is now, by slot. */
  ids = sharedColumn(64, Uint32Array)
  states = sharedColumn(64, Uint8Array)
  access = sharedColumn(64, Uint8Array)
  iovas = sharedColumn(64, Float64Array)
  /** Bytes that operations may use. */
  sizes = sharedColumn(64, Float64Array)
  /** Bytes of the IOVA range kept: `sizes`, rounded up to pages; 0: none is kept. */
  reserved = sharedColumn(64, Float64Array)
  /** Slots with an IOVA that have no mapping now. */
  unmapped = 0
  /** Slots given up so far. */
  removals = 0

  /** The slot of an id that owns it, or -1. */
  find(id: number): number {
    const slot = id & SLOT_MASK
    return slot < this.ids.length && this.ids[slot] === id && this.reserved[slot] !== 0 ? slot : -1
  }

  /** Whether the device reaches what the id names. */
  isMapped(id: number): boolean {
    const slot = this.find(id)
    return slot >= 0 && (this.states[slot] ?? 0) >= MappingState.SEALED
  }

  /** Makes the slot the id's own; ERR_INVALID_STATE where another has it still. */
  claim(id: number): number {
    const slot = id & SLOT_MASK
    if (slot >= this.ids.length) this.#grow(slot)
    if (this.reserved[slot] !== 0 && this.ids[slot] !== id) {
      throw new P2pdmaError(`attachment ${this.ids[slot] ?? 0} still has the place of ${id}`, {
        code: 'ERR_INVALID_STATE',
        argument: 'id',
      })
    }
    this.ids[slot] = id
    return slot
  }

  #grow(slot: number): void {
    let length = this.ids.length
    while (length <= slot) length *= 2
    this.ids = grownColumn(this.ids, length, Uint32Array)
    this.states = grownColumn(this.states, length, Uint8Array)
    this.access = grownColumn(this.access, length, Uint8Array)
    this.iovas = grownColumn(this.iovas, length, Float64Array)
    this.sizes = grownColumn(this.sizes, length, Float64Array)
    this.reserved = grownColumn(this.reserved, length, Float64Array)
  }
}

/**
 * The attachment table: what rows may name, by slot of an attachment id
 * (move-notify/importer/ids.ts). Columns, since native code resolves every row
 * in them (native/queue/table.h); looking one up allocates nothing.
 */
import { MappingState } from '../../abi.js'
import { slotOf } from '../../move-notify/importer/ids.js'
import { grownColumn, sharedColumn } from './shared-columns.js'

const LEAST = 64

/** An engine adds columns of its own: see `grow`. */
export class AttachmentTable {
  /** Whose the slot is now. */
  ids = sharedColumn(LEAST, Uint32Array)
  /** `MappingState`. */
  states = sharedColumn(LEAST, Uint8Array)
  /** `Access` bits. */
  access = sharedColumn(LEAST, Uint8Array)
  iovas = sharedColumn(LEAST, Float64Array)
  /** Bytes that operations may use. */
  sizes = sharedColumn(LEAST, Float64Array)

  /** The slot of an id that owns it, or -1. */
  find(id: number): number {
    const slot = slotOf(id)
    return this.ids[slot] === id ? slot : -1
  }

  /** Makes the slot the id's own. */
  claim(id: number): number {
    const slot = slotOf(id)
    let length = this.ids.length
    while (length <= slot) length *= 2
    if (length !== this.ids.length) this.grow(length)
    this.ids[slot] = id
    return slot
  }

  stateOf(id: number): number {
    return this.states[this.find(id)] ?? MappingState.NONE
  }

  /** Nothing happens where the id has no slot. */
  setState(id: number, state: number): void {
    const slot = this.find(id)
    if (slot >= 0) this.states[slot] = state
  }

  sizeOf(id: number): number {
    return this.sizes[this.find(id)] ?? 0
  }

  /** Whether the device reaches what the id names. */
  isMapped(id: number): boolean {
    return this.stateOf(id) >= MappingState.SEALED
  }

  /** Closes it to new work, if it is open. */
  seal(id: number): void {
    if (this.stateOf(id) === MappingState.OPEN) this.setState(id, MappingState.SEALED)
  }

  unseal(id: number): void {
    if (this.stateOf(id) === MappingState.SEALED) this.setState(id, MappingState.OPEN)
  }

  /** Gives every column room for `length` slots. */
  protected grow(length: number): void {
    this.ids = grownColumn(this.ids, length, Uint32Array)
    this.states = grownColumn(this.states, length, Uint8Array)
    this.access = grownColumn(this.access, length, Uint8Array)
    this.iovas = grownColumn(this.iovas, length, Float64Array)
    this.sizes = grownColumn(this.sizes, length, Float64Array)
  }
}

/**
 * What operations may name, by slot of an attachment id (move-notify/importer/ids.ts):
 * regions of ours, and the peers' buffers that we hold keys to. Columns, since
 * native code resolves every row in them (native/verbs/rows/regions.h).
 */
import { Reach, SLOT_BITS } from '../../abi.js'
import { grownColumn, sharedColumn } from '../shared-columns.js'

const SLOT_MASK = (1 << SLOT_BITS) - 1

/** What an id stands for. */
export interface Entry {
  /** `Access` bits. */
  access: number
  /** Bytes. */
  size: number
  iova: number
  /** lkey of ours, rkey of a peer's. */
  key: number
  /** Number of the queue pair on which a peer's may be used; 0: it is one of ours. */
  queue: number
}

export class RegionTable {
  /** Whose the slot is now; its reach says whether anybody's. */
  ids = sharedColumn(64, Uint32Array)
  iovas = sharedColumn(64, Float64Array)
  sizes = sharedColumn(64, Float64Array)
  keys = sharedColumn(64, Uint32Array)
  queues = sharedColumn(64, Uint32Array)
  reach = sharedColumn(64, Uint8Array)
  access = sharedColumn(64, Uint8Array)

  put(id: number, entry: Entry, reach: number): void {
    const slot = id & SLOT_MASK
    if (slot >= this.ids.length) this.#grow(slot)
    this.ids[slot] = id
    this.access[slot] = entry.access
    this.sizes[slot] = entry.size
    this.iovas[slot] = entry.iova
    this.keys[slot] = entry.key
    this.queues[slot] = entry.queue
    this.reach[slot] = reach
  }

  #slotOf(id: number): number {
    const slot = id & SLOT_MASK
    return this.ids[slot] === id ? slot : -1
  }

  reachOf(id: number): number {
    return this.reach[this.#slotOf(id)] ?? Reach.NONE
  }

  /** Nothing happens where the id has no entry. */
  setReach(id: number, reach: number): void {
    const slot = this.#slotOf(id)
    if (slot >= 0) this.reach[slot] = reach
  }

  setKey(id: number, iova: number, key: number): void {
    const slot = this.#slotOf(id)
    if (slot < 0) return
    this.iovas[slot] = iova
    this.keys[slot] = key
  }

  keyOf(id: number): { iova: number; rkey: number } {
    const slot = this.#slotOf(id)
    return { iova: this.iovas[slot] ?? 0, rkey: this.keys[slot] ?? 0 }
  }

  sizeOf(id: number): number {
    return this.sizes[this.#slotOf(id)] ?? 0
  }

  /** Whether it is a peer's. */
  isRemote(id: number): boolean {
    return (this.queues[this.#slotOf(id)] ?? 0) !== 0
  }

  #grow(slot: number): void {
    let length = this.ids.length
    while (length <= slot) length *= 2
    this.ids = grownColumn(this.ids, length, Uint32Array)
    this.iovas = grownColumn(this.iovas, length, Float64Array)
    this.sizes = grownColumn(this.sizes, length, Float64Array)
    this.keys = grownColumn(this.keys, length, Uint32Array)
    this.queues = grownColumn(this.queues, length, Uint32Array)
    this.reach = grownColumn(this.reach, length, Uint8Array)
    this.access = grownColumn(this.access, length, Uint8Array)
  }
}

/** What work requests may name: regions of ours, and the peers' buffers that we hold keys to. */
import { AttachmentTable } from '../queue/table.js'
import { grownColumn, sharedColumn } from '../queue/shared-columns.js'

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

export class RegionTable extends AttachmentTable {
  keys = sharedColumn(this.ids.length, Uint32Array)
  queues = sharedColumn(this.ids.length, Uint32Array)

  put(id: number, entry: Entry, state: number): void {
    const slot = this.claim(id)
    this.access[slot] = entry.access
    this.sizes[slot] = entry.size
    this.iovas[slot] = entry.iova
    this.keys[slot] = entry.key
    this.queues[slot] = entry.queue
    this.states[slot] = state
  }

  setKey(id: number, iova: number, key: number): void {
    const slot = this.find(id)
    if (slot < 0) return
    this.iovas[slot] = iova
    this.keys[slot] = key
  }

  keyOf(id: number): { iova: number; rkey: number } {
    const slot = this.find(id)
    return { iova: this.iovas[slot] ?? 0, rkey: this.keys[slot] ?? 0 }
  }

  /** Whether it is a peer's. */
  isRemote(id: number): boolean {
    return (this.queues[this.find(id)] ?? 0) !== 0
  }

  protected override grow(length: number): void {
    super.grow(length)
    this.keys = grownColumn(this.keys, length, Uint32Array)
    this.queues = grownColumn(this.queues, length, Uint32Array)
  }
}

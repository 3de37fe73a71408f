/**
 * How a buffer is divided: slots of one size, a block in each with a guard line
 * before and after it. The front slots carry stamped blocks, in groups; the
 * back ones the load, which is copied over and over to keep the device busy.
 */

/** Bytes of a line, and of each guard. */
export const LINE = 64

export interface Layout {
  /** Bytes from one slot to the next. */
  slotSize: number
  /** Bytes of a block. */
  payload: number
  /** Slots of one group: they are stamped, copied and verified together. */
  groupSize: number
  /** Groups of a buffer. */
  groups: number
  /** First slot of the load. */
  loadSlot: number
  /** Slots of the load, all of them copied by one operation. */
  loadSlots: number
}

const MIN_SLOT = 4096
const MAX_SLOT = 1 << 16
const MAX_GROUP = 32
/** Groups in the smallest buffer: a group is used again only when others have been. */
const MIN_GROUPS = 6

export function layOut(size: number): Layout {
  const wanted = 2 ** Math.floor(Math.log2(size / 128))
  const slotSize = Math.min(MAX_SLOT, Math.max(MIN_SLOT, wanted))
  const slots = Math.floor(size / slotSize)
  const loadSlots = Math.floor(slots / 4)
  const stamped = slots - loadSlots
  const groupSize = Math.min(MAX_GROUP, Math.floor(stamped / MIN_GROUPS))
  return {
    slotSize,
    payload: slotSize - 2 * LINE,
    groupSize,
    groups: Math.floor(stamped / groupSize),
    loadSlot: slots - loadSlots,
    loadSlots,
  }
}

/** For a device that a load of long copies would keep from the stamped ones: none. */
export function layOutBlocks(size: number): Layout {
  const { slotSize, payload } = layOut(size)
  const slots = Math.floor(size / slotSize)
  const groupSize = Math.min(MAX_GROUP, Math.floor(slots / MIN_GROUPS))
  const groups = Math.floor(slots / groupSize)
  return { slotSize, payload, groupSize, groups, loadSlot: slots, loadSlots: 0 }
}

/** Bytes from one frame's slot to the next: what a NIC takes a receive buffer to have. */
export const FRAME_SLOT = 2048
/** Whole lines of a frame of 1514 bytes at most, behind its header. */
const FRAME_PAYLOAD = 23 * LINE

/** For frames: no load, and the last slot is left out, so that each receive buffer is inside. */
export function layOutFrames(size: number): Layout {
  const slots = Math.floor(size / FRAME_SLOT) - 1
  const groupSize = Math.min(MAX_GROUP, Math.floor(slots / MIN_GROUPS))
  return {
    slotSize: FRAME_SLOT,
    payload: FRAME_PAYLOAD,
    groupSize,
    groups: Math.floor(slots / groupSize),
    loadSlot: slots,
    loadSlots: 0,
  }
}

/** Where a slot's block begins, bytes from the buffer's start. */
export function payloadOffset(layout: Layout, slot: number): number {
  return slot * layout.slotSize + LINE
}

/** The slots of a group. */
export function groupSlots(layout: Layout, group: number): number[] {
  return Array.from({ length: layout.groupSize }, (_, i) => group * layout.groupSize + i)
}

/** The slots of the load. */
export function loadSlots(layout: Layout): number[] {
  return Array.from({ length: layout.loadSlots }, (_, i) => layout.loadSlot + i)
}

/**
 * The numbers that TypeScript and the addons share. This is their one source:
 * scripts/abi.mjs makes native/abi.h of it, so nothing but constants is here.
 */

/**
 * What an operation does. COPY and FILL can be repeated without harm, the others cannot.
 * SEND: one frame or message of `length` bytes out of the source. RECEIVE: the next one that
 * arrives goes into `length` bytes of the target; it may stay posted for ever.
 */
export const Op = { NOP: 0, COPY: 1, FILL: 2, FETCH_ADD: 3, SEND: 4, RECEIVE: 5 } as const

/** How an operation ended. */
export const Status = {
  OK: 0,
  /** The mapping it was resolved to was dead when the device used it. */
  FAULT: 1,
  /** Its attachment was failed, revoked or closed before it began. */
  NOT_MAPPED: 2,
  /** A forced stop cut it off and it cannot be repeated. */
  OUTCOME_UNKNOWN: 3,
  /** The channel was closed before it began. */
  CANCELLED: 4,
  /** The device says that it went wrong; the completion's result is its own code for it. */
  DEVICE_ERROR: 5,
} as const

/** What the device may do through a mapping (bit mask). */
export const Access = { READ: 1, WRITE: 2 } as const

/**
 * Beside `Access` bits of an attachment table's: the id names what the device has itself, its
 * storage; offsets are in that.
 */
export const STORAGE_ACCESS = 4

/** What is wrong with a row of a batch. */
export const RowDefect = {
  NONE: 0,
  UNKNOWN_OP: 1,
  UNSUPPORTED_OP: 2,
  LENGTH: 3,
  SOURCE_OFFSET: 4,
  TARGET_OFFSET: 5,
  OPERAND: 6,
  SOURCE_ACCESS: 7,
  SOURCE_BOUNDS: 8,
  TARGET_ACCESS: 9,
  TARGET_BOUNDS: 10,
  ATOMIC_LENGTH: 11,
  ATOMIC_OFFSET: 12,
  FILL_OPERAND: 13,
  OVERLAP: 14,
  SOURCE_QUEUE: 15,
  TARGET_QUEUE: 16,
  REMOTES: 17,
  TARGET_OURS: 18,
  SOURCE_THEIRS: 19,
  TARGET_THEIRS: 20,
  SOURCE_ALIGNMENT: 21,
  TARGET_ALIGNMENT: 22,
  LENGTH_ALIGNMENT: 23,
  STORAGE: 24,
} as const

/** An attachment id is `tag << SLOT_BITS | slot`. */
export const SLOT_BITS = 20

/** Operations that one channel of the software engine can hold at most. */
export const SOFTWARE_MAX_DEPTH = 65_536

/** Indexes of the numbers that go in and out with calls of the software engine's channel. */
export const SoftwareBell = {
  FIRST: 0,
  COUNT: 1,
  ACCEPTED: 2,
  DEFECT: 3,
  IN_FLIGHT: 4,
  REAPED: 5,
  STALE: 6,
  LENGTH: 7,
} as const

/** What a channel of the software engine tells the event loop (bit mask). */
export const SoftwareEvent = { COMPLETION: 1, QUIET: 2 } as const

/** Deliberate faults of the software engine. */
export const Fault = {
  /** The next COPY completes without having written. */
  LOST: 0,
  /** The next COPY is executed again after its completion. */
  DOUBLED: 1,
  /** The next COPY writes its first half only, and completes. */
  TORN: 2,
  /** 8 bytes are written into the range that the next unmap retires. */
  STRAY: 3,
  /** The next operation hangs in its middle. */
  STALL: 4,
  /** The next operation completes twice. */
  DOUBLED_COMPLETION: 5,
} as const

/** Indexes of the numbers that go in and out with calls of a descriptor ring. */
export const RingBell = {
  HEAD: 0,
  PENDING: 1,
  EPOCH: 2,
  FIRST: 3,
  COUNT: 4,
  TELL: 5,
  ACCEPTED: 6,
  DEFECT: 7,
  TAKEN: 8,
  BAD: 9,
  DONE: 10,
  /** Pending ones whose completions have been taken, before one that is under way. */
  GAPS: 11,
  UNMATCHED: 12,
  LENGTH: 13,
} as const

/** What an attachment's mapping is in. */
export const MappingState = {
  /** There is none, though its place may be kept for the next. */
  NONE: 0,
  /** Being mapped or unmapped: the device may reach it or not. */
  CHANGING: 1,
  /** Work accepted before reaches it; new work does not. */
  SEALED: 2,
  OPEN: 3,
} as const

/** Indexes of the numbers that go in and out with calls of a queue pair's work queues. */
export const WorkBell = {
  FIRST: 0,
  COUNT: 1,
  EPOCH: 2,
  ACCEPTED: 3,
  DEFECT: 4,
  CREDITED: 5,
  GONE: 6,
  ERROR: 7,
  POLLED: 8,
  IS_BAD: 9,
  BAD_KIND: 10,
  BAD_POSITION: 11,
  BAD_STATUS: 12,
  TAKEN: 13,
  /** Cursors of the sends and of the receives: `RowCursor`. */
  SENDS: 14,
  RECEIVES: 19,
  ARRIVALS_ONLY: 24,
  MICROSECONDS: 25,
  EVENT_OF: 26,
  LENGTH: 27,
} as const

/** Cursors of rows, one after the other. */
export const RowCursor = {
  /** The oldest. */
  HEAD: 0,
  /** The next one to hand over. */
  NEXT: 1,
  /** The next one to accept. */
  TAIL: 2,
  /** How many the queue pair has. */
  HANDED: 3,
  /** Before it, all are done. */
  DONE: 4,
} as const

/** How far a row is that a channel has accepted; where they end in order, only a queue pair's says. */
export const Stage = {
  /** Held here: not handed to the queue pair, or taken back from it. */
  HELD: 0,
  /** The queue pair has it. */
  HANDED: 1,
  /** Its result is known. */
  DONE: 2,
  /** Its completion has been reaped, that of one before it has not. */
  REAPED: 3,
} as const

/** Kinds of work request, in the lowest bits of a request's id. */
export const WorkKind = { SEND: 0, RECEIVE: 1, VOID: 2 } as const

/** Indexes of what the two ends of a queue pair know of each other. */
export const WorkCount = {
  /** 1 or 0. */
  IS_READY: 0,
  IS_PAUSED_BY_PEER: 1,
  LIFE: 2,
  SENT: 3,
  CREDIT: 4,
  POSTED: 5,
  RECEIVED: 6,
  VOIDS: 7,
  NUMBER: 8,
  UNMATCHED: 9,
  LENGTH: 10,
} as const

/** What was found in a stamped block: one content, and a bit for each guard line that changed. */
export const Verdict = {
  /** What was expected. */
  INTACT: 0,
  /** The marker throughout: nothing has arrived. */
  UNTOUCHED: 1,
  /** Another block's stamp throughout. */
  FOREIGN: 2,
  /** Neither: part of one and part of another. */
  MIXED: 3,
  CONTENT: 3,
  GUARD_BEFORE: 4,
  GUARD_AFTER: 8,
} as const

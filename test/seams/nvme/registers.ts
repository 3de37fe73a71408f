/** Registers and commands of an NVMe controller: the NVM Express base specification 1.4. */

/** 3.1: offsets in BAR0, bytes. */
export const Reg = {
  CAP_LOW: 0x00,
  CAP_HIGH: 0x04,
  CC: 0x14,
  CSTS: 0x1c,
  AQA: 0x24,
  ASQ_LOW: 0x28,
  ASQ_HIGH: 0x2c,
  ACQ_LOW: 0x30,
  ACQ_HIGH: 0x34,
  DOORBELLS: 0x1000,
} as const

/** 3.1.5: the NVM command set, pages of 4 KiB, entries of 64 and 16 bytes. */
export const CC_ENABLE = 1
export const CC_SETTINGS = (6 << 16) | (4 << 20)

/** 3.1.6 */
export const Csts = { READY: 1, FATAL: 2 } as const

/** What a register reads as whose device does not answer. */
export const ALL = 0xffff_ffff

/** CC.MPS, as `CC_SETTINGS` has it. */
export const PAGE = 4096

/** A submission queue's entry, and a completion queue's, in words of 32 bits. */
export const COMMAND_WORDS = 16
export const COMPLETION_WORDS = 4

/** 5: admin commands. */
export const Admin = {
  DELETE_SQ: 0x00,
  CREATE_SQ: 0x01,
  DELETE_CQ: 0x04,
  CREATE_CQ: 0x05,
  IDENTIFY: 0x06,
} as const

/** 5.15: what is to be identified. */
export const Identify = { NAMESPACE: 0, CONTROLLER: 1 } as const

/** 6: commands of an I/O queue. */
export const Io = { WRITE: 0x01, READ: 0x02 } as const

/** Words of a command, 4.2: the command's id is in the upper half of the first. */
export const Command = {
  OPCODE: 0,
  NAMESPACE: 1,
  /** Where the data begins, and where its second page does. */
  PRP1: 6,
  PRP2: 8,
  /** Of READ and WRITE: the first block, of 64 bits, and how many there are, less 1. */
  FIRST_BLOCK: 10,
  BLOCKS: 12,
} as const

export const ID_SHIFT = 16

/** 4.6, of a completion's last word: the command's id, the phase tag, the status (0: it went well). */
export const Completed = {
  WORD: 3,
  ID: 0xffff,
  PHASE: 1 << 16,
  STATUS_SHIFT: 17,
  /** Status code and its type; above them is whether a retry may help. */
  STATUS: 0x7ff,
} as const

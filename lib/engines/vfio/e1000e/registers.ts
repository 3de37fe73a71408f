/** The 82574's registers: Intel 82574 GbE Controller Family Datasheet, chapter 10. */

export const Reg = {
  CTRL: 0x0000,
  STATUS: 0x0008,
  CTRL_EXT: 0x0018,
  MDIC: 0x0020,
  ICR: 0x00c0,
  IMS: 0x00d0,
  IMC: 0x00d8,
  EIAC: 0x00dc,
  IAM: 0x00e0,
  IVAR: 0x00e4,
  RCTL: 0x0100,
  TCTL: 0x0400,
  TIPG: 0x0410,
  /** Frames in the receiver's FIFO. */
  RDFPC: 0x2430,
  RDBAL: 0x2800,
  RDTR: 0x2820,
  TDBAL: 0x3800,
  TXDCTL: 0x3828,
  MTA: 0x5200,
  RAL0: 0x5400,
  RAH0: 0x5404,
} as const

/** From a ring's first register, RDBAL or TDBAL. */
export const Ring = { BASE_LOW: 0, BASE_HIGH: 4, LENGTH: 8, HEAD: 0x10, TAIL: 0x18 } as const

export const Ctrl = {
  FULL_DUPLEX: 1 << 0,
  MASTER_DISABLE: 1 << 2,
  SET_LINK_UP: 1 << 6,
  RESET: 1 << 26,
} as const

/**
 * A message masks the causes of it that IAM has, as in netdev.c of Linux
 * (e1000_configure_msix); EIAC alone clears the causes, and masks them in QEMU only.
 */
export const CtrlExt = { AUTO_MASK: 1 << 24, PENDING_BITS: 1 << 31 } as const

export const StatusBit = {
  FULL_DUPLEX: 1 << 0,
  LINK_UP: 1 << 1,
  /** Two bits: 10, 100, 1000, 1000 Mb/s. */
  SPEED_SHIFT: 6,
  MASTER_ENABLE: 1 << 19,
} as const

export const Rctl = {
  ENABLE: 1 << 1,
  UNICAST_PROMISCUOUS: 1 << 3,
  MULTICAST_PROMISCUOUS: 1 << 4,
  BROADCAST: 1 << 15,
  STRIP_CRC: 1 << 26,
} as const

export const Tctl = {
  ENABLE: 1 << 1,
  PAD_SHORT: 1 << 3,
  COLLISION_THRESHOLD: 0x0f << 4,
  COLLISION_DISTANCE: 0x3f << 12,
} as const

/** 10.2.6.8: bit 22 must be set; thresholds count descriptors. */
export const TXDCTL = (1 << 22) | (1 << 24)

/** 10.2.6.2: the inter-packet gaps of IEEE 802.3. */
export const TIPG = 8 | (8 << 10) | (6 << 20)

/** 10.2.2.7: a write to a register of the PHY, whose address is 1. */
export const MDIC_WRITE = (1 << 21) | (1 << 26)
export const MDIC_READY = 1 << 28

/** IEEE 802.3, clause 22: the PHY's control register. */
export const Phy = { CONTROL: 0, AUTONEGOTIATE: 1 << 12, RESTART: 1 << 9 } as const

/** Causes of interrupts, in ICR, IMS, IMC and EIAC. */
export const Cause = {
  LINK: 1 << 2,
  RX_QUEUE_0: 1 << 20,
  TX_QUEUE_0: 1 << 22,
  OTHER: 1 << 24,
} as const

/** The MSI-X vectors that we use, and where IVAR sends each cause: 10.2.4.9. */
export const MsixVector = { RX: 0, TX: 1, OTHER: 2 } as const
export const IVAR = MsixVector.RX | 8 | ((MsixVector.TX | 8) << 8) | ((MsixVector.OTHER | 8) << 16)

/** Entries of the multicast table. */
export const MTA_ENTRIES = 128

/** Bytes of a legacy descriptor, receive (7.1.4.1) and transmit (7.2.10.1). */
export const DESCRIPTOR_BYTES = 16

/** 10.2.5.7, 10.2.6.5: a ring's length is a multiple of 128 bytes, in 20 bits. */
export const RING_ENTRIES = { min: 8, max: 32_768 } as const

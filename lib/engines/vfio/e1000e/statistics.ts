/** The statistics registers, which a read clears: 82574 datasheet 10.2.7. */
import type { Registers } from '../../../kernel/vfio/index.js'
import { Reg } from './registers.js'

const counters = {
  crcErrors: 0x4000,
  alignmentErrors: 0x4004,
  receiveErrors: 0x400c,
  missedPackets: 0x4010,
  lateCollisions: 0x4020,
  lengthErrors: 0x4040,
  xonReceived: 0x4048,
  xonTransmitted: 0x404c,
  xoffReceived: 0x4050,
  xoffTransmitted: 0x4054,
  goodPacketsReceived: 0x4074,
  broadcastReceived: 0x4078,
  multicastReceived: 0x407c,
  goodPacketsTransmitted: 0x4080,
  noBuffers: 0x40a0,
  undersized: 0x40a4,
  fragments: 0x40a8,
  oversized: 0x40ac,
  jabbers: 0x40b0,
  packetsReceived: 0x40d0,
  packetsTransmitted: 0x40d4,
} as const

/** The low word is read first, the high word clears: 10.2.7.22. */
const octets = { goodOctetsReceived: 0x4088, goodOctetsTransmitted: 0x4090 } as const

/** Frames that the device did not deliver. `noBuffers` ones may have waited in its FIFO. */
const drops = [
  'crcErrors',
  'alignmentErrors',
  'receiveErrors',
  'missedPackets',
  'undersized',
  'fragments',
  'oversized',
  'jabbers',
] as const

export class Statistics {
  readonly #registers: Registers
  readonly sums: Record<string, number> = {}

  constructor(registers: Registers) {
    this.#registers = registers
    this.read()
    for (const name of Object.keys(this.sums)) this.sums[name] = 0
  }

  /** Adds what the registers have; they stick at their highest value. */
  read(): void {
    const registers = this.#registers
    // It has left the bus: all ones count nothing.
    if (registers.read32(Reg.STATUS) === 0xffffffff) return
    for (const [name, offset] of Object.entries(counters)) this.#add(name, registers.read32(offset))
    for (const [name, offset] of Object.entries(octets)) {
      const low = registers.read32(offset)
      this.#add(name, low + registers.read32(offset + 4) * 2 ** 32)
    }
  }

  #add(name: string, value: number): void {
    this.sums[name] = (this.sums[name] ?? 0) + value
  }

  get dropped(): number {
    return drops.reduce((sum, name) => sum + (this.sums[name] ?? 0), 0)
  }
}

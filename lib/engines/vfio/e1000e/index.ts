/**
 * Intel 82574L: one receive and one transmit ring of legacy descriptors,
 * MSI-X. Written after the datasheet; numbers of sections are the datasheet's
 * (Intel 82574 GbE Controller Family, 317694).
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { P2pdmaError } from '../../../errors.js'
import { waitUntil } from '../../../kernel/patience.js'
import type { Registers } from '../../../kernel/vfio/index.js'
import type {
  NicDevice,
  NicDriver,
  NicHost,
  Health,
  VfioFault,
  VfioLink,
  RingQueue,
} from '../driver.js'
import { receive, send } from './limits.js'
import {
  Cause,
  Ctrl,
  CtrlExt,
  DESCRIPTOR_BYTES,
  IVAR,
  MDIC_WRITE,
  MTA_ENTRIES,
  Phy,
  RING_ENTRIES,
  Rctl,
  Reg,
  Ring,
  StatusBit,
  TIPG,
  TXDCTL,
  Tctl,
  MsixVector,
} from './registers.js'
import { DescriptorRing } from './ring.js'
import { RxQueue, receiveForm } from './rx-queue.js'
import { Statistics } from './statistics.js'
import { TxQueue, sendForm } from './tx-queue.js'

const ALL = 0xffffffff
/** How long the device may take for a step of a reset, ms. */
const STEP_MS = 1000

/** With its CRC, a VLAN tag, preamble and gap. */
const LONGEST_FRAME_BITS = (1522 + 20) * 8

const RCTL_OFF =
  Rctl.UNICAST_PROMISCUOUS | Rctl.MULTICAST_PROMISCUOUS | Rctl.BROADCAST | Rctl.STRIP_CRC
const RCTL_ON = RCTL_OFF | Rctl.ENABLE
const TCTL_ON = Tctl.ENABLE | Tctl.PAD_SHORT | Tctl.COLLISION_THRESHOLD | Tctl.COLLISION_DISTANCE

export const e1000e: NicDriver = {
  interfaceVersion: 1,
  name: 'e1000e (82574L)',
  ids: [0x8086_10d3],
  async open(host) {
    const nic = new E1000e(host)
    await nic.revive()
    nic.enableInterrupts()
    return nic
  },
}

/** Far longer than EITR holds an interrupt back: 128 us unless it is written. */
const THROTTLE_MS = 10

class E1000e implements NicDevice {
  readonly queues = ['tx', 'rx'] as const
  readonly operations = [
    { ...send, withPeer: true },
    { ...receive, withPeer: true },
  ]
  readonly ringEntries = RING_ENTRIES
  readonly #host: NicHost
  readonly #registers: Registers
  readonly #statistics: Statistics
  readonly #rings = new Map<string, { ring: DescriptorRing; queue: RingQueue }>()
  #link: VfioLink = { isUp: false, speed: 0, isFullDuplex: false }
  #isOn = false

  constructor(host: NicHost) {
    this.#host = host
    this.#registers = host.device.openRegisters(0)
    this.#statistics = new Statistics(this.#registers)
  }

  get mac(): string {
    const low = this.#registers.read32(Reg.RAL0)
    const high = this.#registers.read32(Reg.RAH0)
    return [low, low >>> 8, low >>> 16, low >>> 24, high, high >>> 8]
      .map((byte) => (byte & 0xff).toString(16).padStart(2, '0'))
      .join(':')
  }

  get link(): VfioLink {
    return this.#link
  }

  /** MSI-X: a vector for each queue, which need not be told apart by reading ICR. */
  enableInterrupts(): void {
    const { interrupts } = this.#host.device
    interrupts.enable('msix', [
      () => this.#host.onInterrupt('rx'),
      () => this.#host.onInterrupt('tx'),
      () => this.#onOther(),
    ])
    this.#registers.write32(Reg.IMS, Cause.LINK | Cause.OTHER)
  }

  #onOther(): void {
    if (this.health() !== 'sound') return
    this.#registers.read32(Reg.ICR)
    this.#lookAtLink()
    this.#registers.write32(Reg.IMS, Cause.LINK | Cause.OTHER)
  }

  #lookAtLink(status = this.#registers.read32(Reg.STATUS)): void {
    const isUp = (status & StatusBit.LINK_UP) !== 0
    const speed = isUp ? ([10, 100, 1000, 1000][(status >>> StatusBit.SPEED_SHIFT) & 3] ?? 0) : 0
    const isFullDuplex = isUp && (status & StatusBit.FULL_DUPLEX) !== 0
    const before = this.#link
    this.#link = { isUp, speed, isFullDuplex }
    if (before.isUp !== isUp || before.speed !== speed) this.#host.onLink(this.#link)
  }

  openQueue(name: string, entries: number): RingQueue {
    const registers = this.#registers
    const memory = this.#host.allocate(entries * DESCRIPTOR_BYTES)
    const [base, form] = name === 'tx' ? [Reg.TDBAL, sendForm] : [Reg.RDBAL, receiveForm]
    const ring = new DescriptorRing(registers, memory, base, entries, form, () => {
      this.#rings.delete(name)
      return this.#isOn && !this.#host.device.closed
    })
    const queue =
      name === 'tx'
        ? new TxQueue(ring, () => {
            registers.write32(Reg.IMS, Cause.TX_QUEUE_0)
          })
        : new RxQueue(ring, {
            on: () => {
              registers.write32(Reg.RCTL, RCTL_ON)
            },
            off: () => {
              registers.write32(Reg.RCTL, RCTL_OFF)
              registers.read32(Reg.RCTL)
            },
            hasFrames: () => registers.read32(Reg.RDFPC) !== 0,
            frameMs: () => frameMs(this.#link),
            arm: () => {
              registers.write32(Reg.IMS, Cause.RX_QUEUE_0)
            },
          })
    this.#rings.set(name, { ring, queue })
    if (this.#isOn) queue.setUp()
    return queue
  }

  hold(queue: string, hold: boolean): void {
    this.#host.device.interrupts.hold(queue === 'tx' ? MsixVector.TX : MsixVector.RX, hold)
  }

  /** TIPG and the rings' bases are lost in every reset; STATUS has bits that are never all set. */
  health(): Health {
    const status = this.#registers.read32(Reg.STATUS)
    if (status === ALL) return 'gone'
    // A link that goes down raises no interrupt everywhere.
    if (this.#isOn) this.#lookAtLink(status)
    if (this.#registers.read32(Reg.TIPG) !== TIPG) return 'reset'
    for (const { ring } of this.#rings.values()) if (!ring.isKnown) return 'reset'
    return 'sound'
  }

  /** 5.2.3: without bus mastering the device sends no request; a read flushes those before. */
  halt(): void {
    this.#isOn = false
    try {
      this.#host.device.config.setMaster(false)
    } catch {
      // It has left the bus, and DMA with it.
    }
    this.#registers.write32(Reg.IMC, ALL)
    this.#registers.write32(Reg.RCTL, 0)
    this.#registers.write32(Reg.TCTL, 0)
    this.#registers.read32(Reg.STATUS)
  }

  /** 4.6: initialization. */
  async revive(): Promise<void> {
    const registers = this.#registers
    const { config } = this.#host.device
    this.halt()
    this.#statistics.read()
    // 4.6.2: no request of its own may be outstanding when it is reset.
    registers.write32(Reg.CTRL, (registers.read32(Reg.CTRL) | Ctrl.MASTER_DISABLE) >>> 0)
    await this.#until(Reg.STATUS, StatusBit.MASTER_ENABLE, 'does not end its requests')
    registers.write32(Reg.CTRL, (registers.read32(Reg.CTRL) | Ctrl.RESET) >>> 0)
    // 4.6.2.1: the registers are not to be read before the EEPROM has been.
    await sleep(10)
    await this.#until(Reg.CTRL, Ctrl.RESET, 'does not come out of its reset')
    registers.write32(Reg.IMC, ALL)
    registers.read32(Reg.ICR)
    const ctrl = registers.read32(Reg.CTRL) & ~Ctrl.MASTER_DISABLE
    registers.write32(Reg.CTRL, (ctrl | Ctrl.SET_LINK_UP) >>> 0)
    for (let i = 0; i < MTA_ENTRIES; i++) registers.write32(Reg.MTA + 4 * i, 0)
    registers.write32(Reg.IVAR, IVAR)
    // A queue's interrupt masks itself, until it is armed again.
    const queues = Cause.RX_QUEUE_0 | Cause.TX_QUEUE_0
    const extended = registers.read32(Reg.CTRL_EXT) | CtrlExt.AUTO_MASK | CtrlExt.PENDING_BITS
    registers.write32(Reg.CTRL_EXT, extended >>> 0)
    registers.write32(Reg.IAM, queues)
    registers.write32(Reg.EIAC, queues)
    registers.write32(Reg.RCTL, RCTL_OFF)
    for (const { queue } of this.#rings.values()) queue.setUp()
    registers.write32(Reg.TXDCTL, TXDCTL)
    registers.write32(Reg.TIPG, TIPG)
    config.setMaster(true)
    this.#isOn = true
    registers.write32(Reg.TCTL, TCTL_ON)
    registers.write32(Reg.IMS, Cause.LINK | Cause.OTHER)
    this.#lookAtLink()
  }

  async #until(offset: number, bit: number, what: string): Promise<void> {
    const isDone = () => (this.#registers.read32(offset) & bit) === 0
    if (await waitUntil(isDone, STEP_MS)) return
    throw new P2pdmaError(`${this.#host.device.address} ${what}`, {
      code: 'ETIMEDOUT',
      hint: 'reset it, or its slot',
    })
  }

  inject(fault: VfioFault): void {
    const registers = this.#registers
    if (fault === 'hang-tx') registers.write32(Reg.TCTL, TCTL_ON & ~Tctl.ENABLE)
    else if (fault === 'link-down') {
      const control = Phy.AUTONEGOTIATE | Phy.RESTART
      registers.write32(Reg.MDIC, (control | (Phy.CONTROL << 16) | MDIC_WRITE) >>> 0)
    } else {
      registers.write32(Reg.CTRL, (registers.read32(Reg.CTRL) | Ctrl.RESET) >>> 0)
      // QEMU's device forgets nothing before version 8: what a reset leaves is written.
      for (const offset of [Reg.RCTL, Reg.TCTL, Reg.TIPG]) registers.write32(offset, 0)
      for (const base of [Reg.RDBAL, Reg.TDBAL]) {
        for (const offset of Object.values(Ring)) registers.write32(base + offset, 0)
      }
    }
  }

  statistics(): Readonly<Record<string, number>> {
    if (this.#isOn && !this.#host.device.closed) this.#statistics.read()
    return this.#statistics.sums
  }

  get dropped(): number {
    return this.#statistics.dropped
  }

  async close(): Promise<void> {
    const { device } = this.#host
    if (!device.closed) {
      this.halt()
      // An interrupt may be on its way still, after its throttle; QEMU aborts where the vectors
      // are off by then (e1000e_intrmgr_on_msix_throttling_timer). Linux waits as long (e1000e_down).
      await sleep(THROTTLE_MS)
      if (!device.closed) device.interrupts.close()
    }
    for (const { queue } of [...this.#rings.values()]) queue.close()
  }
}

/** What the longest frame takes on the wire. */
function frameMs({ speed }: VfioLink): number {
  return LONGEST_FRAME_BITS / ((speed === 0 ? 1000 : speed) * 1000)
}

/** The admin queue: one command at a time, waited for within the call. */
import { type DmaMemory, type DriverHost, P2pdmaError, type Registers } from '../../../lib/index.js'
import {
  Admin,
  ALL,
  Command,
  COMMAND_WORDS,
  Completed,
  COMPLETION_WORDS,
  ID_SHIFT,
  PAGE,
  Reg,
} from './registers.js'

const ENTRIES = 16

/** Far longer than any of the commands here takes, ms. The event loop stands still meanwhile. */
const COMMAND_MS = 2000

export class AdminQueue {
  readonly #host: DriverHost
  readonly #registers: Registers
  readonly #stride: number
  /** The queues, and a page for what is identified. */
  readonly #memory: { sq: DmaMemory; cq: DmaMemory; data: DmaMemory }
  #tail = 0
  #head = 0
  #phase: number = Completed.PHASE
  #id = 0

  /** `stride`: bytes from one doorbell to the next. */
  constructor(host: DriverHost, registers: Registers, stride: number) {
    this.#host = host
    this.#registers = registers
    this.#stride = stride
    this.#memory = {
      sq: host.allocate(ENTRIES * COMMAND_WORDS * 4),
      cq: host.allocate(ENTRIES * COMPLETION_WORDS * 4),
      data: host.allocate(PAGE),
    }
  }

  /** 7.6.1: tells a controller that is switched off where the queue is; it is empty. */
  setUp(): void {
    const { sq, cq } = this.#memory
    for (const memory of [sq, cq]) new Uint32Array(memory.view()).fill(0)
    this.#tail = this.#head = 0
    this.#phase = Completed.PHASE
    const registers = this.#registers
    registers.write32(Reg.AQA, (ENTRIES - 1) | ((ENTRIES - 1) << 16))
    for (const [low, high, { iova }] of [
      [Reg.ASQ_LOW, Reg.ASQ_HIGH, sq],
      [Reg.ACQ_LOW, Reg.ACQ_HIGH, cq],
    ] as const) {
      registers.write32(low, iova >>> 0)
      registers.write32(high, Math.floor(iova / 2 ** 32))
    }
  }

  /** A page of what the controller says of itself (`Identify`), or of a namespace. */
  identify(what: number, namespace: number): DataView {
    const { data } = this.#memory
    new Uint8Array(data.view()).fill(0)
    this.run(Admin.IDENTIFY, { namespace, address: data.iova, words: [what] })
    return new DataView(data.view().slice(0, PAGE))
  }

  /** Words 10, 11... of the command. ERR_DEVICE where the controller refuses it; ETIMEDOUT. */
  run(opcode: number, { namespace = 0, address = 0, words = [] as readonly number[] } = {}): void {
    const command = new Uint32Array(COMMAND_WORDS)
    const id = (this.#id = (this.#id + 1) & 0x7fff)
    command[Command.OPCODE] = opcode | (id << ID_SHIFT)
    command[Command.NAMESPACE] = namespace
    command[Command.PRP1] = address >>> 0
    command[Command.PRP1 + 1] = Math.floor(address / 2 ** 32)
    command.set(words, 10)
    const { sq } = this.#memory
    new Uint32Array(sq.view()).set(command, this.#tail * COMMAND_WORDS)
    this.#tail = (this.#tail + 1) % ENTRIES
    this.#registers.write32(Reg.DOORBELLS, this.#tail)
    const status = this.#wait(opcode, id)
    if (status === 0) return
    throw this.#error('ERR_DEVICE', `refuses command 0x${hex(opcode)}: status 0x${hex(status)}`)
  }

  /** What is left of a command that was given up is passed over. */
  #wait(opcode: number, id: number): number {
    const until = performance.now() + COMMAND_MS
    for (;;) {
      const isLate = performance.now() > until
      // What the device had written before it answers is there; a bound that is over has one more look.
      if (this.#registers.read32(Reg.CSTS) === ALL) {
        throw this.#error('ERR_DEVICE_LOST', 'does not answer')
      }
      for (let word = this.#next(); word !== null; word = this.#next()) {
        if ((word & Completed.ID) === id)
          return (word >>> Completed.STATUS_SHIFT) & Completed.STATUS
      }
      if (isLate) throw this.#error('ETIMEDOUT', `does not end command 0x${hex(opcode)}`)
    }
  }

  /** Takes a completion; its last word. */
  #next(): number | null {
    const words = new Uint32Array(this.#memory.cq.view())
    const word = words[this.#head * COMPLETION_WORDS + Completed.WORD] ?? 0
    if ((word & Completed.PHASE) !== this.#phase) return null
    this.#head = (this.#head + 1) % ENTRIES
    if (this.#head === 0) this.#phase ^= Completed.PHASE
    this.#registers.write32(Reg.DOORBELLS + this.#stride, this.#head)
    return word
  }

  #error(code: string, what: string): P2pdmaError {
    return new P2pdmaError(`${this.#host.device.address} ${what}`, {
      code,
      hint: 'reset it, or its slot',
    })
  }

  /** The device must be off. */
  close(): void {
    for (const memory of Object.values(this.#memory)) memory.close()
  }
}

const hex = (value: number) => value.toString(16)

/** An I/O queue pair: commands in one ring, completions in another. */
import {
  type CompletionForm,
  type DescriptorForm,
  type DmaMemory,
  type DriverHost,
  Op,
  type QueueOperation,
  type Registers,
  type RingMemory,
  type RingQueue,
} from '../../../lib/index.js'
import type { AdminQueue } from './admin.js'
import {
  Admin,
  Command,
  COMMAND_WORDS,
  Completed,
  COMPLETION_WORDS,
  ID_SHIFT,
  Io,
  PAGE,
  Reg,
} from './registers.js'

/** Its number, and its vector's; 0 are the admin queue's. */
export const QUEUE = 1

/** The namespace that there is: QEMU's first. */
export const NAMESPACE = 1

/** 5.4: the interrupts of this vector, physically contiguous. */
const CQ_FLAGS = (QUEUE << 16) | 3
/** 5.5: of that completion queue, physically contiguous. */
const SQ_FLAGS = (QUEUE << 16) | 1

function commandForm(blockBytes: number): DescriptorForm {
  const words = new Uint32Array(COMMAND_WORDS)
  words[Command.NAMESPACE] = NAMESPACE
  return {
    words,
    operationWord: Command.OPCODE,
    idWord: Command.OPCODE,
    idShift: ID_SHIFT,
    addressWord: Command.PRP1,
    // No list: an operation reaches no third page.
    secondPageWord: Command.PRP2,
    pageBytes: PAGE,
    storageWord: Command.FIRST_BLOCK,
    lengthWord: Command.BLOCKS,
    lengthLess: 1,
    blockBytes,
  }
}

const completionForm: CompletionForm = {
  words: COMPLETION_WORDS,
  phaseWord: Completed.WORD,
  phaseMask: Completed.PHASE,
  idWord: Completed.WORD,
  idMask: Completed.ID,
  idShift: 0,
  goodWord: Completed.WORD,
  goodMask: (Completed.STATUS << Completed.STATUS_SHIFT) >>> 0,
  goodValue: 0,
}

/**
 * WRITE is a COPY into the storage, READ one out of it: each can be repeated without harm. A page
 * of a memory that is aligned to blocks reaches two pages at most, PRP1 and PRP2.
 */
export function operationsOf(blockBytes: number): readonly QueueOperation[] {
  const granularity = { minLength: blockBytes, maxLength: PAGE, alignment: blockBytes }
  return [
    { op: Op.COPY, storage: 'target', code: Io.WRITE, ...granularity },
    { op: Op.COPY, storage: 'source', code: Io.READ, ...granularity },
  ]
}

export class IoQueue implements RingQueue {
  readonly name = 'io'
  readonly operations: readonly QueueOperation[]
  readonly repeatable = true
  /** What has been fetched cannot be called back, but for an abort that may come late. */
  readonly drains = true
  readonly ring: RingMemory
  readonly #registers: Registers
  readonly #admin: AdminQueue
  readonly #commands: DmaMemory
  readonly #completions: DmaMemory
  readonly #onClose: () => boolean
  /** The controller has it, as it was made: nothing has been handed over. */
  #isNew = false
  /** It could not be made: the device wants a reset. */
  isBroken = false

  /** `doorbells`: bytes from one to the next. `onClose`: whether the controller is on. */
  constructor(
    host: DriverHost,
    registers: Registers,
    admin: AdminQueue,
    shape: { entries: number; doorbells: number; blockBytes: number; onClose: () => boolean },
  ) {
    const { entries, doorbells, blockBytes } = shape
    this.#registers = registers
    this.#admin = admin
    this.#onClose = shape.onClose
    this.#commands = host.allocate(entries * COMMAND_WORDS * 4)
    this.#completions = host.allocate(entries * COMPLETION_WORDS * 4)
    this.operations = operationsOf(blockBytes)
    const tail = Reg.DOORBELLS + 2 * QUEUE * doorbells
    this.ring = {
      memory: this.#commands.mapping,
      entries,
      form: commandForm(blockBytes),
      registers,
      tail,
      completions: {
        memory: this.#completions.mapping,
        entries,
        form: completionForm,
        head: tail + doorbells,
      },
    }
  }

  /** The controller has been switched on, and knows no I/O queue. Throws where it refuses it. */
  create(): void {
    for (const memory of [this.#commands, this.#completions]) {
      new Uint32Array(memory.view()).fill(0)
    }
    const shape = QUEUE | ((this.ring.entries - 1) << 16)
    const completions = { address: this.#completions.iova, words: [shape >>> 0, CQ_FLAGS] }
    this.#admin.run(Admin.CREATE_CQ, completions)
    const commands = { address: this.#commands.iova, words: [shape >>> 0, SQ_FLAGS] }
    this.#admin.run(Admin.CREATE_SQ, commands)
    this.#isNew = true
    this.isBroken = false
  }

  /** 7.3.3: in this order. */
  #delete(): void {
    this.#admin.run(Admin.DELETE_SQ, { words: [QUEUE] })
    this.#admin.run(Admin.DELETE_CQ, { words: [QUEUE] })
  }

  setUp(): void {
    if (this.#isNew) return
    try {
      this.#delete()
      this.create()
    } catch {
      this.isBroken = true
    }
  }

  errorCode(word: number): number {
    return (word >>> Completed.STATUS_SHIFT) & Completed.STATUS
  }

  tell(tail: number): void {
    this.#registers.write32(this.ring.tail, tail)
  }

  /** All is done that was handed over: what is told of a completion has been transferred. */
  stop(): boolean {
    return true
  }

  start(): void {
    this.#isNew = false
  }

  /** Each completion raises an interrupt. */
  arm(): void {}

  close(): void {
    try {
      if (this.#onClose()) this.#delete()
    } finally {
      // What the device may do with it still, the IOMMU refuses.
      this.#commands.close()
      this.#completions.close()
    }
  }
}

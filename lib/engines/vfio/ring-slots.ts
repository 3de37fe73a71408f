/**
 * The slots of a ring: which are pending, what was posted there, and the native
 * side that turns rows into descriptors and finished descriptors into
 * completions (native/ring/ring.h), with one call a batch.
 */
import { RingBell as Bell } from '../../abi.js'
import { call } from '../../kernel/call.js'
import type { Mapping } from '../../kernel/mapping.js'
import type { Registers } from '../../kernel/vfio/index.js'
import { Op } from '../../move-notify/importer/batch.js'
import {
  native,
  type NativeCompletionForm,
  type NativeDescriptorForm,
  type NativeRing,
} from '../../native.js'
import { sharedMemory } from '../../shared-memory.js'
import type { BackendRows } from '../queue/channel.js'
import { ColumnsInUse } from '../queue/native-columns.js'
import type { RowRules } from '../queue/row-error.js'
import type { Uses } from '../queue/uses.js'
import type { QueueOperation } from './driver.js'
import type { MappingTable } from './mapping-table.js'
import { RingRows } from './ring-rows.js'

/** What a descriptor looks like. */
export type DescriptorForm = NativeDescriptorForm

/** What a completion looks like that is not in its descriptor. */
export type CompletionForm = NativeCompletionForm

/** Where a device writes completions, in the order in which operations end. */
export interface CompletionRing {
  readonly memory: Mapping
  /** As many as the ring has descriptors, or more. */
  readonly entries: number
  readonly form: CompletionForm
  /** Offset of the register that takes the entry after the last one read; of the ring's registers. */
  readonly head: number
}

/** A ring as its driver describes it. */
export interface RingMemory {
  readonly memory: Mapping
  readonly entries: number
  readonly form: DescriptorForm
  readonly registers: Registers
  /** Offset of the register that takes the slot after the last one handed over. */
  readonly tail: number
  /** Left out: the device says in the descriptor that it has finished it, in order. */
  readonly completions?: CompletionRing
}

export interface RingUse {
  readonly queue: string
  readonly operations: readonly QueueOperation[]
}

export class RingSlots implements BackendRows {
  readonly rows: RingRows
  readonly rules: RowRules
  readonly columns: ColumnsInUse
  readonly #native: NativeRing
  readonly #table: MappingTable
  readonly #bell = new Uint32Array(sharedMemory(Bell.LENGTH * 4))
  readonly #mask: number
  /** Whether the device is told of the completions that are taken off a ring of theirs. */
  tells = true
  /** The columns of the table that the native side has. */
  #ids: Uint32Array | null = null

  constructor(use: RingUse, ring: RingMemory, table: MappingTable) {
    const { entries, form, completions } = ring
    const rows = new RingRows(entries)
    this.#native = call(() =>
      native.openRing(
        ring.memory.handle,
        entries,
        ring.registers.handle,
        ring.tail,
        form,
        use.operations.map(({ storage, code = 0, ...rest }) => ({
          ...rest,
          storage: storage === undefined ? 0 : storage === 'source' ? 1 : 2,
          code,
        })),
        completions && { ...completions, ...completions.form, memory: completions.memory.handle },
        rows.cookies,
        rows.offsets,
        rows.lengths,
        rows.ids,
        rows.places,
        rows.kinds,
        rows.stages,
        this.#bell,
        rows.uses.untold,
      ),
    )
    this.columns = new ColumnsInUse(this.#native)
    this.rules = rulesOf(use, table)
    this.#table = table
    this.#mask = entries - 1
    this.rows = rows
    this.epoch = 1
  }

  get uses(): Uses {
    return this.rows.uses
  }

  get entries(): number {
    return this.#mask + 1
  }

  /** The oldest slot that has not been reaped. */
  get head(): number {
    return this.#bell[Bell.HEAD] ?? 0
  }

  /**
   * How many slots from the head on the device has; and, where operations do not end in order,
   * those whose completions have been taken before an older one's.
   */
  get pending(): number {
    return this.#bell[Bell.PENDING] ?? 0
  }

  set pending(count: number) {
    this.#bell[Bell.PENDING] = count
  }

  /** The slot after the last pending one. */
  get tail(): number {
    return (this.head + this.pending) & this.#mask
  }

  get epoch(): number {
    return this.#bell[Bell.EPOCH] ?? 0
  }

  set epoch(epoch: number) {
    this.#bell[Bell.EPOCH] = epoch
  }

  /** The slot of the pending row `index`. */
  slot(index: number): number {
    return (this.head + index) & this.#mask
  }

  /** As `Backend.post`, `room` rows at most; `tell`: stores the tail as well. */
  post(first: number, count: number, room: number, tell: boolean): number {
    this.#useTable()
    const bell = this.#bell
    bell[Bell.FIRST] = first
    bell[Bell.COUNT] = count < room ? count : room
    bell[Bell.TELL] = tell ? 1 : 0
    this.#native.post()
    return bell[Bell.ACCEPTED] ?? 0
  }

  get defect(): number {
    return this.#bell[Bell.DEFECT] ?? 0
  }

  #useTable(): void {
    const { ids, states, access, iovas, sizes } = this.#table
    if (ids === this.#ids) return
    const { uses } = this.rows
    uses.grow(ids.length)
    call(() => this.#native.useTable(ids.length, ids, states, access, iovas, sizes, uses.last))
    this.#ids = ids
  }

  /** Whether what is pending names this id. */
  isUsed(id: number): boolean {
    const { uses, ids } = this.rows
    const row = uses.lastRow(id)
    if (row >= 0 && ((row - this.head) & this.#mask) < this.pending && ids[row] === id) return true
    uses.end(id)
    return false
  }

  /** As `Backend.reap`; the result of one that went wrong is the word that says so. */
  reap(): number {
    this.#bell[Bell.TELL] = this.tells ? 1 : 0
    this.#native.reap()
    return this.#bell[Bell.TAKEN] ?? 0
  }

  /** How many of those that `reap` took last went wrong. */
  get wrong(): number {
    return this.#bell[Bell.BAD] ?? 0
  }

  /** How many completions can be reaped, in order. */
  get done(): number {
    if (this.pending === 0) return 0
    this.#bell[Bell.TELL] = this.tells ? 1 : 0
    this.#native.done()
    return this.#bell[Bell.DONE] ?? 0
  }

  /** Whether the device has finished all that it was given. */
  get isIdle(): boolean {
    const { done } = this
    return done + (this.#bell[Bell.GAPS] ?? 0) >= this.pending
  }

  /** Completions that named nothing the device had. */
  get unmatched(): number {
    return this.#bell[Bell.UNMATCHED] ?? 0
  }

  /** Takes `count` from the head, whatever the device says. */
  drop(count: number): void {
    const bell = this.#bell
    bell[Bell.HEAD] = this.slot(count)
    bell[Bell.PENDING] = this.pending - count
  }

  /** What is pending begins at slot 0 from now on, and the device's completions begin anew. */
  rewind(): void {
    this.rows.rewind(this.head, this.pending)
    this.#bell[Bell.HEAD] = 0
    this.#native.rewind()
  }

  /** Writes what is pending into the ring, resolved as of now. */
  refill(): void {
    this.#useTable()
    call(() => this.#native.refill())
  }

  /** Idempotent. */
  close(): void {
    this.#native.close()
    this.pending = 0
  }
}

const words: Readonly<Record<number, string>> = {
  [Op.COPY]: 'copies',
  [Op.SEND]: 'sends',
  [Op.RECEIVE]: 'receives',
}

function rulesOf({ queue, operations }: RingUse, table: MappingTable): RowRules {
  const ops = [...new Set(operations.map(({ op }) => op))]
  const does = ops.map((op) => words[op] ?? '').join(' and ')
  const lengths = operations.map((each) => `from ${each.minLength} to ${each.maxLength}`)
  return {
    unsupported: {
      text: ` must be ${ops.join(' or ')}: the queue ${queue} ${does}`,
      hint: `open a channel on another queue than ${queue}`,
    },
    lengths: [...new Set(lengths)].join(', or '),
    alignment: Math.max(...operations.map(({ alignment }) => alignment)),
    sizeOf: (id) => table.sizeOf(id),
  }
}

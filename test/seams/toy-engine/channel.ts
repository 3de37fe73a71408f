/** A queue in an array, worked off by a timer. */
import {
  Access,
  type Batch,
  type Completions,
  type EngineChannel,
  type EngineChannelOptions,
  Op,
  P2pdmaError,
  PostError,
  Status,
} from '../../../lib/index.js'

/** Memory that the toy has been given. */
export interface Mapped {
  /** Null as soon as it is unmapped. */
  bytes: Buffer | null
  size: number
  access: number
  sealed: boolean
}

interface Row {
  op: number
  source: number
  target: number
  sourceOffset: number
  targetOffset: number
  length: number
  operand: number
  cookie: number
}

interface Done {
  cookie: number
  result: number
  status: number
}

export interface Table {
  get(id: number): Mapped | undefined
}

export class ToyChannel implements EngineChannel {
  readonly depth: number
  readonly #options: EngineChannelOptions
  readonly #table: Table
  readonly #onClose: (channel: ToyChannel) => void
  #queue: Row[] = []
  #done: Done[] = []
  #timer: NodeJS.Timeout | null = null
  #epoch = 1
  #isStopped = false
  #isArmed = false
  #isClosed = false
  readonly stale = 0
  /** Bytes that it has moved. */
  bytes = 0

  constructor(options: EngineChannelOptions, table: Table, onClose: (channel: ToyChannel) => void) {
    this.depth = options.depth
    this.#options = options
    this.#table = table
    this.#onClose = onClose
  }

  get inFlight(): number {
    return this.#queue.length + this.#done.length
  }

  post(batch: Batch, first: number, count: number): number {
    this.#checkOpen()
    let accepted = 0
    while (accepted < count && !this.#isStopped && this.inFlight < this.depth) {
      const row = rowOf(batch, first + accepted)
      const wrong = this.#wrong(row)
      if (wrong !== null) {
        const [code, column, what] = wrong
        const argument = `batch.${column}[${first + accepted}]`
        this.#work()
        throw new PostError(`${argument} ${what}`, { code, argument }, accepted)
      }
      const named = namedBy(row)
      if (named.some((id) => this.#table.get(id)?.sealed !== false)) break
      this.#queue.push(row)
      for (const id of named) this.#options.onUse?.(id)
      accepted++
    }
    this.#work()
    return accepted
  }

  #wrong(row: Row): [code: string, column: string, what: string] | null {
    const { op, length } = row
    const value = 'ERR_INVALID_ARG_VALUE'
    if (op !== Op.NOP && op !== Op.COPY && op !== Op.FILL) {
      return ['ERR_UNSUPPORTED', 'op', 'must be NOP, COPY or FILL: the toy does nothing else']
    }
    if (!(Number.isSafeInteger(length) && length >= 0)) {
      return [value, 'length', 'must be a whole number']
    }
    if (op === Op.NOP) return null
    const sides = [
      { side: 'target', id: row.target, at: row.targetOffset, right: Access.WRITE as number },
    ]
    if (op === Op.COPY) {
      sides.push({ side: 'source', id: row.source, at: row.sourceOffset, right: Access.READ })
    }
    for (const { side, id, at, right } of sides) {
      const mapped = this.#table.get(id)
      if (mapped === undefined) continue
      if (!(Number.isSafeInteger(at) && at >= 0 && at + length <= mapped.size)) {
        return [value, `${side}Offset`, `must leave ${length} of ${mapped.size} bytes`]
      }
      if ((mapped.access & right) === 0) return [value, side, 'may not be accessed so']
    }
    return null
  }

  /** One operation a tick: whoever stops the channel finds it between two of them. */
  #work(): void {
    if (this.#timer !== null || this.#isStopped || this.#queue.length === 0) return
    this.#timer = setTimeout(() => {
      this.#timer = null
      const row = this.#queue.shift()
      if (row === undefined) return
      this.#done.push({ cookie: row.cookie, ...this.#execute(row) })
      this.#notify()
      this.#work()
    })
  }

  /** The mapping is looked up now, whatever was there when the row was posted. */
  #execute(row: Row): { result: number; status: number } {
    const { op, length } = row
    if (op === Op.NOP) return { result: 0, status: Status.OK }
    const target = this.#table.get(row.target)?.bytes
    if (target == null) return { result: 0, status: Status.NOT_MAPPED }
    if (op === Op.FILL) {
      target.fill(row.operand, row.targetOffset, row.targetOffset + length)
    } else {
      const source = this.#table.get(row.source)?.bytes
      if (source == null) return { result: 0, status: Status.NOT_MAPPED }
      source.copy(target, row.targetOffset, row.sourceOffset, row.sourceOffset + length)
    }
    this.bytes += length
    return { result: length, status: Status.OK }
  }

  #notify(): void {
    if (!this.#isArmed || this.#done.length === 0) return
    this.#isArmed = false
    setImmediate(() => {
      if (!this.#isClosed) this.#options.onCompletion()
    })
  }

  reap(out: Completions): number {
    this.#checkOpen()
    const done = this.#done.splice(0, out.capacity)
    for (const [i, { cookie, result, status }] of done.entries()) {
      out.cookie[i] = cookie
      out.result[i] = result
      out.status[i] = status
      out.epoch[i] = this.#epoch
    }
    return done.length
  }

  arm(): void {
    this.#checkOpen()
    this.#isArmed = true
    this.#notify()
  }

  uses(id: number): boolean {
    return this.#queue.some((row) => namedBy(row).includes(id))
  }

  stop(): void {
    this.#checkOpen()
    this.#isStopped = true
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
  }

  /** It never hangs, and no operation is ever cut off. */
  force(): number {
    this.stop()
    return ++this.#epoch
  }

  restart(): void {
    this.#checkOpen()
    if (!this.#isStopped) {
      throw new P2pdmaError('The channel is not stopped', { code: 'ERR_INVALID_STATE' })
    }
    this.#isStopped = false
    this.#work()
  }

  close(): void {
    if (this.#isClosed) return
    this.stop()
    this.#isClosed = true
    this.#queue = []
    this.#done = []
    this.#onClose(this)
    const { onClosed } = this.#options
    if (onClosed !== undefined) queueMicrotask(onClosed)
  }

  #checkOpen(): void {
    if (this.#isClosed) throw new P2pdmaError('The channel is closed', { code: 'ERR_CLOSED' })
  }
}

function rowOf(batch: Batch, i: number): Row {
  return {
    op: batch.op[i] ?? 0,
    source: batch.source[i] ?? 0,
    target: batch.target[i] ?? 0,
    sourceOffset: batch.sourceOffset[i] ?? 0,
    targetOffset: batch.targetOffset[i] ?? 0,
    length: batch.length[i] ?? 0,
    operand: batch.operand[i] ?? 0,
    cookie: batch.cookie[i] ?? 0,
  }
}

function namedBy({ op, source, target }: Row): number[] {
  if (op === Op.NOP) return []
  return op === Op.COPY ? [source, target] : [target]
}

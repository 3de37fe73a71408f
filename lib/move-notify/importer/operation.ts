import type { P2pdmaError } from '../../errors.js'
import type { AttachmentState } from './attachment-states.js'
import type { AbortWatch } from './abort-watch.js'

/** What an operation may name: an attachment, or a peer's buffer that we hold a key to. */
export interface Named {
  readonly id: number
  readonly state: AttachmentState
  /** Why it can be named no more, or null. */
  readonly error: P2pdmaError | null
  /** Why it was without a mapping last, or null. */
  readonly lastError: P2pdmaError | null
}

/** How an operation ended that did what it should. */
export interface Completion {
  /** Bytes transferred; RECEIVE: those that arrived. */
  bytes: number
  /** FETCH_ADD: the value before the addition. */
  previous?: number
}

export interface OperationOptions {
  /**
   * Rejects with ABORT_ERR. Work that waits is taken out; work in flight cannot
   * be called back, and goes on: a RECEIVE that the device has keeps its place,
   * and what arrives for it is written to its target and then dropped.
   */
  signal?: AbortSignal | undefined
}

export interface CompletionsSyncOptions {
  /**
   * Only what has arrived is waited for, while there are receives for it; what was
   * sent and is done waits with it. In a dialogue that is half of the wake-ups
   * (verbs: solicited events). An engine may take no notice. Default false.
   */
  arrivalsOnly?: boolean
}

export interface CompletionsOptions extends OperationOptions, CompletionsSyncOptions {}

/** One row of a batch, before it is posted, and the promise for it. */
export class Operation {
  readonly op: number
  readonly source: Named | null
  readonly sourceOffset: number
  readonly target: Named | null
  readonly targetOffset: number
  readonly length: number
  readonly operand: number
  readonly promise: Promise<Completion>
  /** Has waited for a gate or a mapping. */
  parked = false
  /** The device has it. */
  isPosted = false
  /** It is counted among what waits for its attachments. */
  isAwaiting = false
  #resolve: (completion: Completion) => void = () => {}
  #reject: (error: Error) => void = () => {}
  #isSettled = false
  #signal: AbortSignal | undefined
  #watch: AbortWatch<Operation> | undefined

  constructor(
    op: number,
    source: Named | null,
    sourceOffset: number,
    target: Named | null,
    targetOffset: number,
    length: number,
    operand: number,
  ) {
    this.op = op
    this.source = source
    this.sourceOffset = sourceOffset
    this.target = target
    this.targetOffset = targetOffset
    this.length = length
    this.operand = operand
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
  }

  names(attachment: Named): boolean {
    return this.source === attachment || this.target === attachment
  }

  /** Whether its promise has been resolved or rejected; the device may have it still. */
  get isSettled(): boolean {
    return this.#isSettled
  }

  /** Whether both mappings are live. */
  get isMapped(): boolean {
    return (
      (this.source === null || this.source.state === 'mapped') &&
      (this.target === null || this.target.state === 'mapped')
    )
  }

  /** Why it can never be posted, or null. */
  get hopeless(): P2pdmaError | null {
    return this.source?.error ?? this.target?.error ?? null
  }

  /** Why the device found no mapping, though there may be one again; or null. */
  get whyUnmapped(): P2pdmaError | null {
    return this.hopeless ?? this.source?.lastError ?? this.target?.lastError ?? null
  }

  /** Rejects when the signal says so, until it has been settled. */
  watch(signal: AbortSignal, watch: AbortWatch<Operation>): void {
    this.#signal = signal
    this.#watch = watch
    watch.add(signal, this)
  }

  complete(completion: Completion): void {
    this.#unwatch()
    this.#resolve(completion)
  }

  /** Nobody may be awaiting it yet when a close rejects it: that must not end the process. */
  fail(error: Error): void {
    this.#unwatch()
    this.promise.catch(() => {})
    this.#reject(error)
  }

  #unwatch(): void {
    this.#isSettled = true
    if (this.#signal !== undefined) this.#watch?.remove(this.#signal, this)
    this.#watch = undefined
  }
}

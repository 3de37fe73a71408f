/** Completions, polled in batches, or told by an event. */
import { brand } from '../../brand.js'
import { checkBoolean, checkInteger, checkOptions, typeError } from '../../errors.js'
import { nativeVerbs, type NativeCq } from '../../native-verbs.js'
import { call } from '../call.js'
import { WorkCompletions } from './columns.js'
import { CompletionChannel } from './completion-channel.js'
import { VerbsObject } from './verbs-object.js'

export interface CompletionQueueOptions {
  /** With `onEvent`: where its events come from. */
  channel?: CompletionChannel | undefined
  /** Called once after each `arm()`, when there are completions to poll. */
  onEvent?: (() => void) | undefined
}

/** @internal */
export interface CompletionQueueRequest {
  id: number
  channel: CompletionChannel | null
  onEvent: (() => void) | null
}

let lastId = 0

export class CompletionQueue extends VerbsObject<'cq'> {
  static {
    brand(this)
  }

  /** Completions that there is room for. One more is an error of the queue's, and of all that use it. */
  readonly capacity: number
  /** What its asynchronous events call it. */
  readonly id: number
  readonly #request: CompletionQueueRequest

  private constructor(native: NativeCq, parents: VerbsObject[], request: CompletionQueueRequest) {
    super(native, parents)
    this.capacity = native.capacity
    this.id = request.id
    this.#request = request
    if (request.channel !== null && request.onEvent !== null) {
      request.channel.route(request.id, request.onEvent)
    }
  }

  /** @internal */
  static check(
    device: VerbsObject,
    capacity: number,
    options: CompletionQueueOptions,
  ): CompletionQueueRequest {
    checkInteger('capacity', capacity, 1, 0x7fffffff)
    const { channel, onEvent } = checkOptions(options)
    if (channel !== undefined && !(channel instanceof CompletionChannel)) {
      throw typeError('channel', 'a CompletionChannel', channel)
    }
    if (onEvent !== undefined && typeof onEvent !== 'function') {
      throw typeError('onEvent', 'a function', onEvent)
    }
    if (channel === undefined && onEvent !== undefined) {
      throw typeError('channel', 'a CompletionChannel, beside onEvent', channel)
    }
    if (channel !== undefined && !channel.isOf(device)) {
      throw typeError('channel', "one of the same device's", channel)
    }
    lastId = (lastId % 0x7fffffff) + 1
    return { id: lastId, channel: channel ?? null, onEvent: onEvent ?? null }
  }

  /** @internal */
  static fromNative(
    native: NativeCq,
    device: VerbsObject,
    request: CompletionQueueRequest,
  ): CompletionQueue {
    const parents = request.channel === null ? [device] : [device, request.channel]
    return new CompletionQueue(native, parents, request)
  }

  protected get what(): string {
    return 'CompletionQueue'
  }

  /**
   * Moves completions into the first rows, at most `max` of them, in one native
   * call; returns how many. Fewer than asked for: there are no more just now.
   */
  poll(completions: WorkCompletions, max?: number): number {
    if (!(completions instanceof WorkCompletions)) {
      throw typeError('completions', 'WorkCompletions', completions)
    }
    const most = checkInteger('max', max ?? completions.capacity, 0, completions.capacity)
    return call(() => nativeVerbs().verbsPollCq(this.handle, completions.native, most))
  }

  /**
   * Has the next completion that comes call `onEvent`, once. What came before
   * does not: poll once more after this.
   */
  arm(solicitedOnly = false): void {
    checkBoolean('solicitedOnly', solicitedOnly)
    call(() => {
      nativeVerbs().verbsArmCq(this.handle, solicitedOnly)
    })
  }

  protected override onClose(): void {
    this.#request.channel?.unroute(this.id)
  }
}

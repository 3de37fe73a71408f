/** Where completion events come from, told on the caller's event loop. */
import { brand } from '../../brand.js'
import { checkBoolean } from '../../errors.js'
import type { NativeWatch } from '../../native.js'
import { nativeVerbs, type NativeChannel } from '../../native-verbs.js'
import { call } from '../call.js'
import { VerbsObject } from './verbs-object.js'

type Listener = () => void

function tell(listeners: Map<number, WeakRef<Listener>>, id: number): void {
  listeners.get(id)?.deref()?.()
}

/** A channel that was collected unclosed is watched no longer. */
const forgotten = new FinalizationRegistry<NativeWatch>((watch) => {
  watch.stop()
})

export class CompletionChannel extends VerbsObject<'channel'> {
  static {
    brand(this)
  }

  /** By a queue's id; weakly, since the watch is a root of the garbage collector's. */
  readonly #listeners: Map<number, WeakRef<Listener>>
  readonly #watch: NativeWatch

  private constructor(
    native: NativeChannel,
    parent: VerbsObject,
    watch: NativeWatch,
    listeners: Map<number, WeakRef<Listener>>,
  ) {
    super(native, [parent])
    this.#watch = watch
    this.#listeners = listeners
    forgotten.register(this, watch, this)
  }

  /** @internal */
  static fromNative(native: NativeChannel, parent: VerbsObject): CompletionChannel {
    const listeners = new Map<number, WeakRef<Listener>>()
    const watch = call(() =>
      nativeVerbs().verbsWatchChannel(native, (number) => {
        // Below 0: the device has gone, which its asynchronous events tell.
        if (number >= 0) tell(listeners, number)
      }),
    )
    watch.hold(false)
    return new CompletionChannel(native, parent, watch, listeners)
  }

  protected get what(): string {
    return 'CompletionChannel'
  }

  /** Whether waiting for events keeps the process alive; at first it does not. */
  hold(hold: boolean): void {
    checkBoolean('hold', hold)
    void this.handle
    this.#watch.hold(hold)
  }

  /** Somebody else has taken the event of this queue. @internal */
  tell(id: number): void {
    tell(this.#listeners, id)
  }

  /** @internal */
  route(id: number, listener: Listener): void {
    this.#listeners.set(id, new WeakRef(listener))
  }

  /** @internal */
  unroute(id: number): void {
    this.#listeners.delete(id)
  }

  protected override onClose(): void {
    forgotten.unregister(this)
    this.#watch.stop()
  }
}

/** A memory window: a part of a region with a key of its own, which comes and goes quickly. */
import { brand } from '../../brand.js'
import type { NativeMw } from '../../native-verbs.js'
import { VerbsObject } from './verbs-object.js'

export class MemoryWindow extends VerbsObject<'mw'> {
  static {
    brand(this)
  }

  readonly type: 1 | 2
  #rkey: number

  private constructor(native: NativeMw, domain: VerbsObject, type: 1 | 2) {
    super(native, [domain])
    this.type = type
    this.#rkey = native.rkey
  }

  /** @internal */
  static fromNative(native: NativeMw, domain: VerbsObject, type: 1 | 2): MemoryWindow {
    return new MemoryWindow(native, domain, type)
  }

  protected get what(): string {
    return 'MemoryWindow'
  }

  /** The key that the last bind gave it; good once that has completed. */
  get rkey(): number {
    return this.#rkey
  }

  /** A key for the next bind of a window of type 2: the low byte is the caller's to choose. */
  nextRkey(): number {
    return ((this.#rkey & 0xffffff00) | ((this.#rkey + 1) & 0xff)) >>> 0
  }

  /** @internal */
  bound(rkey: number): void {
    this.#rkey = rkey
  }
}

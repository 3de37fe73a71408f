/** A list in the order of use; every operation takes constant time. */

export class LruNode<T> {
  readonly value: T
  /** @internal */
  older: LruNode<T> | null = null
  /** @internal */
  newer: LruNode<T> | null = null
  /** @internal */
  list: LruList<T> | null = null

  constructor(value: T) {
    this.value = value
  }
}

export class LruList<T> {
  #oldest: LruNode<T> | null = null
  #newest: LruNode<T> | null = null
  #length = 0

  get length(): number {
    return this.#length
  }

  /** Puts it behind all others, as the one most recently used. */
  touch(node: LruNode<T>): void {
    this.remove(node)
    node.list = this
    node.older = this.#newest
    if (this.#newest === null) this.#oldest = node
    else this.#newest.newer = node
    this.#newest = node
    this.#length++
  }

  /** Not listed: no-op. */
  remove(node: LruNode<T>): void {
    if (node.list !== this) return
    const { older, newer } = node
    if (older === null) this.#oldest = newer
    else older.newer = newer
    if (newer === null) this.#newest = older
    else newer.older = older
    node.list = node.older = node.newer = null
    this.#length--
  }

  /** Least recently used first. The list must not change meanwhile. */
  *[Symbol.iterator](): Generator<T> {
    for (let node = this.#oldest; node !== null; node = node.newer) yield node.value
  }
}

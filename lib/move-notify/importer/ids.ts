import { SLOT_BITS } from '../../abi.js'
import { P2pdmaError } from '../../errors.js'

const SLOTS = 2 ** SLOT_BITS
const TAGS = 2 ** (32 - SLOT_BITS)

/** Of an attachment id. */
export function slotOf(id: number): number {
  return id % SLOTS
}

/**
 * Attachment ids: a slot with a tag above it. A slot is used again under the
 * next tag, and not any more once its tags are spent: an id names one
 * attachment for ever, so work kept past a close cannot reach another buffer.
 */
export class AttachmentIds<T> {
  #items: (T | undefined)[] = []
  #tags: number[] = []
  #free: number[] = []

  allocate<U extends T>(make: (id: number) => U): U {
    const slot = this.#free.pop() ?? this.#items.length
    if (slot >= SLOTS) {
      throw new P2pdmaError(`an importer has at most ${SLOTS} attachments`, { code: 'ENOSPC' })
    }
    const tag = this.#tags[slot] ?? 0
    const item = make(tag * SLOTS + slot)
    this.#items[slot] = item
    this.#tags[slot] = tag
    return item
  }

  /** An id for work of the importer's own: it names nothing that others could find. */
  reserve(): number {
    let reserved = 0
    this.allocate((id) => {
      reserved = id
      return undefined as T
    })
    return reserved
  }

  /** What the id names, or undefined once it has been released. */
  get(id: number): T | undefined {
    const slot = slotOf(id)
    return this.#tags[slot] === Math.floor(id / SLOTS) ? this.#items[slot] : undefined
  }

  /** From now on the id names nothing; its slot is used again only if `reuse`. */
  release(id: number, reuse = true): void {
    const slot = slotOf(id)
    const tag = (this.#tags[slot] ?? 0) + 1
    this.#items[slot] = undefined
    this.#tags[slot] = tag
    if (reuse && tag < TAGS) this.#free.push(slot)
  }

  *[Symbol.iterator](): Generator<T> {
    for (const item of this.#items) if (item !== undefined) yield item
  }
}

import { slotOf } from './ids.js'

interface Named {
  readonly id: number
}

const NOBODY: ReadonlySet<never> = new Set()

/**
 * Of each attachment the channels that have to do with it: by work in flight, a key of their
 * peer's, or work that waits for it. They alone are asked when it moves, so that a move costs
 * what it moves. A channel is put in when that begins, and taken out when it is asked and has
 * nothing to do with it any more. By slot of the id, as engines tell of it: what is in for an
 * attachment that is closed is asked once more, for the next one in its slot.
 */
export class Users<Channel> {
  readonly #channels = new Map<number, Set<Channel>>()
  readonly #slots = new Map<Channel, Set<number>>()

  add(id: number, channel: Channel): void {
    const slot = slotOf(id)
    setOf(this.#channels, slot).add(channel)
    setOf(this.#slots, channel).add(slot)
  }

  of({ id }: Named): ReadonlySet<Channel> {
    return this.#channels.get(slotOf(id)) ?? NOBODY
  }

  remove({ id }: Named, channel: Channel): void {
    const slot = slotOf(id)
    dropFrom(this.#channels, slot, channel)
    dropFrom(this.#slots, channel, slot)
  }

  /** The channel is closed. */
  forget(channel: Channel): void {
    for (const slot of this.#slots.get(channel) ?? []) dropFrom(this.#channels, slot, channel)
    this.#slots.delete(channel)
  }
}

function setOf<K, V>(sets: Map<K, Set<V>>, key: K): Set<V> {
  let set = sets.get(key)
  if (set === undefined) {
    set = new Set()
    sets.set(key, set)
  }
  return set
}

function dropFrom<K, V>(sets: Map<K, Set<V>>, key: K, value: V): void {
  const set = sets.get(key)
  set?.delete(value)
  if (set?.size === 0) sets.delete(key)
}

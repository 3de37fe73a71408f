/** What a channel's work waits for, and how much of it: so that nobody has to look through it. */
export class WaitedFor {
  readonly #counts = new Map<object, number>()

  has(attachment: object): boolean {
    return this.#counts.has(attachment)
  }

  /** Returns whether it is the first that waits for this one. */
  add(attachment: object): boolean {
    const count = this.#counts.get(attachment) ?? 0
    this.#counts.set(attachment, count + 1)
    return count === 0
  }

  drop(attachment: object): void {
    const count = this.#counts.get(attachment) ?? 0
    if (count > 1) this.#counts.set(attachment, count - 1)
    else this.#counts.delete(attachment)
  }
}

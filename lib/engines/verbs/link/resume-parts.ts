/** A resume with more updates than a line takes: split where it leaves, joined where it arrives. */
import type { MessageOf, QueueMessage, Update } from './messages.js'
import { UPDATES_MAX } from './messages.js'

type Resume = MessageOf<'resume'>

/** What goes over the wire for a message: itself, or several in its stead. */
export function partsOf(message: QueueMessage): QueueMessage[] {
  if (message.type !== 'resume' || !Array.isArray(message.updates)) return [message]
  const { updates } = message
  if (updates.length <= UPDATES_MAX) return [message]
  const parts: Resume[] = []
  for (let from = 0; from < updates.length; from += UPDATES_MAX) {
    const part: Resume = { ...message, updates: updates.slice(from, from + UPDATES_MAX) }
    if (from + UPDATES_MAX < updates.length) part.more = true
    parts.push(part)
  }
  return parts
}

/** Joins the parts, whose order and number `Conversation` has checked. */
export class ResumeParts {
  #updates: Update[] = []

  /** The whole of it with its last part, null with those before. */
  take({ more, updates, ...rest }: Resume): Resume | null {
    if (more !== true && this.#updates.length === 0) return { ...rest, updates }
    this.#updates.push(...updates)
    if (more === true) return null
    const whole = { ...rest, updates: this.#updates }
    this.#updates = []
    return whole
  }
}

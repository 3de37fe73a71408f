/**
 * What may be said when: the state that both ends of a link can tell from the
 * messages alone. The same rules hold for either sender, so that a fault of
 * ours shows here and not at the peer. Nothing in here knows a queue pair or
 * an attachment; what depends on these is the engine's to check.
 */
import type { MessageOf, QueueMessage } from './messages.js'
import { P2pdmaError } from '../../../errors.js'
import { protocolError } from './messages.js'

/** Who has made the link, and who was called. */
export type Role = 'opener' | 'accepter'

/** Who sends a message. */
export type Sender = 'us' | 'peer'

/** Most queues that one end may have asked for and that are not over. */
export const QUEUES_MAX = 4096

/** Most buffers that one end may have granted, over all queues; and updates in one resume. */
export const GRANTS_MAX = 65536

/** Most questions that are remembered as not answered yet: a late answer to an older is refused. */
const UNANSWERED_MAX = 64

/** What one end has said about a queue. */
class Half {
  readonly grants = new Map<number, { size: number; generation: number }>()
  /** Taken back, and the other end has not said yet that it uses them no more. */
  readonly ending = new Set<number>()
  readonly pauses = new Questions()
  readonly resets = new Questions()
  /** Its last pause has not been resumed. */
  pausing = false
  posted = 0
  /** How often `posted` may fall yet. */
  restarts = 0
  ended = false
}

/** Numbered ones, answered in any order or never. */
class Questions {
  #last = -1
  readonly #open = new Set<number>()

  get last(): number {
    return this.#last
  }

  /** False when the number does not rise. */
  ask(n: number): boolean {
    if (n <= this.#last) return false
    this.#last = n
    this.#open.add(n)
    const [oldest] = this.#open
    if (this.#open.size > UNANSWERED_MAX && oldest !== undefined) this.#open.delete(oldest)
    return true
  }

  /** False when that one was not asked, or was answered already. */
  answer(n: number): boolean {
    return this.#open.delete(n)
  }
}

class Queue {
  readonly asker: Sender
  open = false
  readonly halves = { us: new Half(), peer: new Half() }

  constructor(asker: Sender) {
    this.asker = asker
  }
}

/** What one end has said in all. */
class Voice {
  /** 0 or 1: its queues' ids. */
  readonly parity: number
  lastQueue = -1
  queues = 0
  grants = 0
  /** The resume that its last message has left unfinished. */
  unfinished: { queue: number; updates: number } | null = null

  constructor(parity: number) {
    this.parity = parity
  }
}

export class Conversation {
  readonly #queues = new Map<number, Queue>()
  readonly #voices: Readonly<Record<Sender, Voice>>

  constructor(role: Role) {
    const ours = role === 'opener' ? 0 : 1
    this.#voices = { us: new Voice(ours), peer: new Voice(1 - ours) }
  }

  /**
   * Notes a message of the peer's. Throws ERR_PROTOCOL for one that may not
   * come now. Returns false for one that has crossed our end of its queue:
   * right, and of no use any more.
   */
  received(message: QueueMessage): boolean {
    const reason = this.#take('peer', message)
    if (reason !== null) throw protocolError(`a ${message.type} ${reason}`, `${message.type}.queue`)
    const queue = this.#queues.get(message.queue)
    return message.type === 'queue-error' || queue?.halves.us.ended !== true
  }

  /**
   * Notes a message of ours. Throws ERR_INVALID_STATE, and notes nothing, if
   * it may not go now. Returns false if our end of its queue is over: nothing
   * is to be sent, as after the link's close.
   */
  sent(message: QueueMessage): boolean {
    if (message.type !== 'queue' && this.#isOver(message.queue)) return false
    const reason = this.#take('us', message)
    if (reason === null) return true
    throw new P2pdmaError(`a ${message.type} ${reason}`, {
      code: 'ERR_INVALID_STATE',
      argument: `${message.type}.queue`,
    })
  }

  #isOver(id: number): boolean {
    const queue = this.#queues.get(id)
    if (queue !== undefined) return queue.halves.us.ended
    const { us, peer } = this.#voices
    return id <= (id % 2 === us.parity ? us : peer).lastQueue
  }

  /** Why not, or null. */
  #take(from: Sender, message: QueueMessage): string | null {
    const voice = this.#voices[from]
    if (voice.unfinished !== null && message.type !== 'resume') return 'in the middle of a resume'
    switch (message.type) {
      case 'queue':
        return this.#ask(from, message)
      case 'queue-ok':
        return this.#open(from, message)
      case 'queue-error':
        return this.#end(from, message)
      default:
        return this.#say(from, message)
    }
  }

  #ask(from: Sender, { queue }: MessageOf<'queue'>): string | null {
    const voice = this.#voices[from]
    if (queue % 2 !== voice.parity) return `with the other end's id ${queue}`
    if (queue <= voice.lastQueue) return `with the id ${queue}, which is not new`
    if (voice.queues >= QUEUES_MAX) return `beyond ${QUEUES_MAX} queues`
    voice.lastQueue = queue
    voice.queues++
    this.#queues.set(queue, new Queue(from))
    return null
  }

  #open(from: Sender, message: MessageOf<'queue-ok'>): string | null {
    const queue = this.#queues.get(message.queue)
    if (queue === undefined || queue.open || queue.asker === from) {
      return `for queue ${message.queue}, which was not asked for`
    }
    queue.open = true
    return null
  }

  #end(from: Sender, message: MessageOf<'queue-error'>): string | null {
    const queue = this.#queues.get(message.queue)
    const half = queue?.halves[from]
    if (queue === undefined || half === undefined || half.ended) {
      return `for queue ${message.queue}, which is not there`
    }
    if (!queue.open && queue.asker === from) return `for queue ${message.queue}, not yet opened`
    half.ended = true
    this.#voices[from].grants -= half.grants.size + half.ending.size
    half.grants.clear()
    // What the other end sends until it has heard of it may still come, answers
    // to what was asked before among it.
    if (queue.open && !queue.halves[other(from)].ended) return null
    this.#queues.delete(message.queue)
    this.#voices[queue.asker].queues--
    return null
  }

  /** What is said of an open queue. */
  #say(
    from: Sender,
    message: Exclude<QueueMessage, { type: 'queue' | 'queue-ok' | 'queue-error' }>,
  ): string | null {
    const queue = this.#queues.get(message.queue)
    const half = queue?.halves[from]
    if (queue?.open !== true || half === undefined || half.ended) {
      return `for queue ${message.queue}, which is not open`
    }
    const asked = queue.halves[other(from)]
    switch (message.type) {
      case 'grant':
        return this.#grant(from, half, message)
      case 'ungrant':
        if (!half.grants.delete(message.buffer)) {
          return `of buffer ${message.buffer}, which was not granted`
        }
        half.ending.add(message.buffer)
        return null
      case 'ungranted':
        if (!asked.ending.delete(message.buffer)) {
          return `of buffer ${message.buffer}, which was not taken back`
        }
        if (!asked.ended) this.#voices[other(from)].grants--
        return null
      case 'pause':
        return pause(half, message)
      case 'paused':
        return asked.pauses.answer(message.n) ? null : `for pause ${message.n}, not asked for`
      case 'resume':
        return this.#resume(from, half, message)
      case 'credit':
        return credit(half, message.posted)
      case 'reset':
        if (!half.resets.ask(message.n)) return `with the number ${message.n}, not a new one`
        // Each end counts its receives anew some time after it has sent or heard this: what
        // it says in between crosses the answer, so the answer is no mark of it.
        half.restarts++
        asked.restarts++
        return null
      case 'reset-ok':
        return asked.resets.answer(message.n) ? null : `for reset ${message.n}, not asked for`
    }
  }

  #grant(from: Sender, half: Half, message: MessageOf<'grant'>): string | null {
    const { buffer, size, iova, generation } = message
    if (half.grants.has(buffer)) return `of buffer ${buffer}, granted already`
    if (half.ending.has(buffer)) return `of buffer ${buffer}, which is being taken back`
    if (!Number.isSafeInteger(iova + size)) return `whose iova and size end above 2^53`
    if (this.#voices[from].grants >= GRANTS_MAX) return `beyond ${GRANTS_MAX} buffers`
    this.#voices[from].grants++
    half.grants.set(buffer, { size, generation })
    return null
  }

  #resume(from: Sender, half: Half, message: MessageOf<'resume'>): string | null {
    const { queue, n, updates, more } = message
    const voice = this.#voices[from]
    const begun = voice.unfinished
    if (begun !== null && begun.queue !== queue) return 'in the middle of another'
    if (!half.pausing || half.pauses.last !== n) return `of pause ${n}, which is not in force`
    if (more === true && updates.length === 0) return 'that goes on without an update'
    const total = (begun?.updates ?? 0) + updates.length
    if (total > GRANTS_MAX) return `with more than ${GRANTS_MAX} updates`
    // Nothing is noted before all of it is found right.
    const rising = new Map<number, number>()
    for (const { buffer, iova, generation } of updates) {
      const grant = half.grants.get(buffer)
      if (grant === undefined) return `with buffer ${buffer}, which was not granted`
      if (generation <= (rising.get(buffer) ?? grant.generation)) {
        return `with generation ${generation} of buffer ${buffer}, not a newer one`
      }
      if (!Number.isSafeInteger(iova + grant.size)) return `whose iova and size end above 2^53`
      rising.set(buffer, generation)
    }
    for (const [buffer, generation] of rising) {
      const grant = half.grants.get(buffer)
      if (grant !== undefined) grant.generation = generation
    }
    voice.unfinished = more === true ? { queue, updates: total } : null
    if (more !== true) half.pausing = false
    return null
  }
}

function other(sender: Sender): Sender {
  return sender === 'us' ? 'peer' : 'us'
}

/** A pause that is still in force is replaced: its end was forced, and nobody resumed it. */
function pause(half: Half, { n, posted }: MessageOf<'pause'>): string | null {
  if (n <= half.pauses.last) return `with the number ${n}, not a new one`
  const reason = credit(half, posted)
  if (reason !== null) return reason
  half.pauses.ask(n)
  half.pausing = true
  return null
}

function credit(half: Half, posted: number): string | null {
  if (posted < half.posted) {
    if (half.restarts === 0) return `of ${posted} receives posted, fewer than before`
    half.restarts--
  }
  half.posted = posted
  return null
}

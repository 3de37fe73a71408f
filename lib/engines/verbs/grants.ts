/**
 * What we have let a peer use. Each way that an attachment is shared is a
 * registration of its own, so that what it lets a peer do, and until when, is
 * the NIC's to guard.
 */
import { P2pdmaError, checkInteger, checkOptions, typeError } from '../../errors.js'
import { withDeadline } from '../../move-notify/reservation/deadline.js'
import type { Attachment } from '../../move-notify/importer/attachment.js'
import type { Channel } from '../../move-notify/importer/channel.js'
import type { QueueMessage, Update } from './link/messages.js'
import type { Queue } from './queue.js'
import type { Regions } from './regions.js'

/** A peer that has not said by then that it uses a buffer no more has its key taken away, ms. */
const UNGRANT_MS = 1000

export interface GrantOptions {
  /** What the peer finds it by; [\w.:-], at most 64. Default: the attachment's id. */
  label?: string
  /** `Access` bits. Default: the attachment's. */
  access?: number
}

/** What a peer may use; disposed: no more. */
export interface Grant extends Disposable {
  /** Resolves when the peer has been told; rejects where it could not be registered for it. */
  readonly told: Promise<void>
}

/** What grants need of their peer. */
export interface GrantHost {
  readonly regions: Regions
  send(message: QueueMessage): boolean
  queueNamed(name: string | undefined): Queue | undefined
}

interface Granted {
  readonly queue: Queue
  readonly attachment: Attachment
  readonly label: string
  readonly access: number
  /** While it stands a move stops the channel. */
  readonly users: Disposable
  /** Of the registration that the peer was told of last; 0: of none yet. */
  generation: number
  /**
   * `standing`; `asked`: the peer is asked to use it no more, and may use it until it answers
   * or is late; `late`: its key has gone, its answer is still to come: until then the link
   * takes no other grant of the attachment on this queue.
   */
  state: 'standing' | 'asked' | 'late'
  /** Ends the wait for the answer. */
  onUngranted: (() => void) | null
  settle: { resolve: () => void; reject: (error: Error) => void }
}

export class Grants {
  readonly #host: GrantHost
  /** By queue, and the attachment's id. */
  readonly #all = new Map<number, Map<number, Granted>>()

  constructor(host: GrantHost) {
    this.#host = host
  }

  /** As `Peer.grant`; of `channel` and `attachment` it is known that they are its engine's. */
  add(channel: Channel, attachment: Attachment, options: GrantOptions): Grant {
    const { label = `buffer-${attachment.id}`, access = attachment.access } = checkOptions(options)
    if (typeof label !== 'string' || !/^[\w.:-]{1,64}$/.test(label)) {
      throw typeError('label', 'up to 64 of letters, digits, and _ . : -', label)
    }
    checkInteger('access', access, 1, 3)
    if ((access & ~attachment.access) !== 0) {
      throw new P2pdmaError('access is more than the attachment has', {
        code: 'ERR_INVALID_ARG_VALUE',
        argument: 'access',
      })
    }
    const queue = this.#host.queueNamed(channel.queue)
    if (queue === undefined) {
      throw new P2pdmaError('The channel is not on a queue pair to this peer', {
        code: 'ERR_INVALID_ARG_VALUE',
        argument: 'channel',
      })
    }
    checkNow(channel, attachment)
    this.#checkNew(queue, attachment)
    const users = channel.grant(attachment)
    let shared: Promise<void> | undefined
    try {
      shared = this.#host.regions.share(attachment.id, access)
    } catch (error) {
      users[Symbol.dispose]()
      throw error
    }
    let settle: Granted['settle'] = { resolve: () => {}, reject: () => {} }
    const told = new Promise<void>((resolve, reject) => (settle = { resolve, reject }))
    // Nobody has to wait for it.
    told.catch(() => {})
    const granted: Granted = {
      ...{ queue, attachment, label, access, settle, users },
      generation: 0,
      state: 'standing',
      onUngranted: null,
    }
    this.#of(queue.id).set(attachment.id, granted)
    if (shared === undefined) {
      try {
        this.#tell(granted)
      } catch (error) {
        this.#forget(granted, error as Error)
        throw error
      }
    } else {
      shared
        .then(() => this.#tell(granted))
        .catch((error: unknown) => this.#forget(granted, error as Error))
    }
    return { told, [Symbol.dispose]: () => this.#end(granted) }
  }

  #checkNew(queue: Queue, attachment: Attachment): void {
    const before = this.#all.get(queue.id)?.get(attachment.id)
    if (before === undefined) return
    if (before.state === 'standing') {
      throw new P2pdmaError('The peer has been granted this attachment on this queue', {
        code: 'ERR_INVALID_STATE',
        argument: 'attachment',
      })
    }
    throw new P2pdmaError('The peer is still giving the attachment back', {
      code: 'EAGAIN',
      argument: 'attachment',
      hint:
        before.state === 'asked'
          ? `its key goes after ${UNGRANT_MS} ms; try again when the peer has answered`
          : 'its key has gone, but it has not answered yet: it is busy, or it hangs',
    })
  }

  #of(queue: number): Map<number, Granted> {
    let all = this.#all.get(queue)
    if (all === undefined) this.#all.set(queue, (all = new Map<number, Granted>()))
    return all
  }

  #isIn(granted: Granted): boolean {
    return this.#all.get(granted.queue.id)?.get(granted.attachment.id) === granted
  }

  /** The first time; unless it is being moved just now, and then at the restart. */
  #tell(granted: Granted): void {
    const { queue, attachment, label, access } = granted
    const key = this.#host.regions.sharedKey(attachment.id, access)
    if (!this.#isIn(granted) || granted.state !== 'standing' || key === null) return
    const { iova, rkey, generation, size } = key
    granted.generation = generation
    this.#host.send({
      ...{ type: 'grant', queue: queue.id, buffer: attachment.id, label, size },
      ...{ access: access as 1 | 2 | 3, iova, rkey, generation },
    })
    granted.settle.resolve()
  }

  /** At a restart, which goes on without a grant that cannot be told. */
  #tellNow(granted: Granted): void {
    try {
      this.#tell(granted)
    } catch (error) {
      this.#forget(granted, error as Error)
    }
  }

  /** Whether the peer may use anything on this queue. */
  has(queue: Queue): boolean {
    for (const { state } of this.#all.get(queue.id)?.values() ?? []) {
      if (state !== 'late') return true
    }
    return false
  }

  /** The keys that have changed since the peer was told; at a restart of the queue. */
  updates(queue: Queue): Update[] {
    const updates: Update[] = []
    for (const [buffer, granted] of this.#all.get(queue.id) ?? []) {
      if (granted.state !== 'standing') continue
      const { regions } = this.#host
      const key = regions.sharedKey(buffer, granted.access)
      if (granted.attachment.isGone || !regions.isMapped(buffer)) this.#end(granted)
      else if (granted.generation === 0) this.#tellNow(granted)
      else if (key !== null && key.generation !== granted.generation) {
        const { iova, rkey, generation } = key
        granted.generation = generation
        updates.push({ buffer, iova, rkey, generation })
      }
    }
    return updates
  }

  /** Asks the peer to use it no more; its key goes when it has answered, or has had time enough. */
  #end(granted: Granted): void {
    if (!this.#isIn(granted) || granted.state !== 'standing') return
    const { queue, attachment } = granted
    const isTold =
      granted.generation !== 0 &&
      this.#host.send({ type: 'ungrant', queue: queue.id, buffer: attachment.id })
    if (!isTold) return this.#forget(granted, takenBack())
    granted.state = 'asked'
    const answered = new Promise<void>((resolve) => (granted.onUngranted = resolve))
    withDeadline(answered, UNGRANT_MS, takenBack).catch(() => this.#onLate(granted))
  }

  /** The peer's answer; it may be late. */
  onUngranted(queue: number, buffer: number): void {
    const granted = this.#all.get(queue)?.get(buffer)
    if (granted !== undefined && granted.state !== 'standing') this.#forget(granted, takenBack())
  }

  #onLate(granted: Granted): void {
    if (granted.state !== 'asked' || !this.#isIn(granted)) return
    granted.state = 'late'
    this.#revoke(granted, takenBack())
  }

  #forget(granted: Granted, reason: Error): void {
    if (!this.#isIn(granted)) return
    this.#all.get(granted.queue.id)?.delete(granted.attachment.id)
    granted.onUngranted?.()
    if (granted.state !== 'late') this.#revoke(granted, reason)
  }

  /** Its key goes, and a move stops nobody for it; once. */
  #revoke({ attachment, access, users, settle }: Granted, reason: Error): void {
    users[Symbol.dispose]()
    settle.reject(reason)
    this.#host.regions.unshare(attachment.id, access)
  }

  /** The queue pair is no more: nobody can use any of it. */
  drop(queue: Queue): void {
    for (const granted of [...(this.#all.get(queue.id)?.values() ?? [])]) {
      this.#forget(granted, takenBack())
    }
    this.#all.delete(queue.id)
  }
}

function takenBack(): P2pdmaError {
  return new P2pdmaError('The grant has ended before the peer was told of it', {
    code: 'ERR_REVOKED',
  })
}

/** The peer would begin to use it while nobody has told it to keep still. */
function checkNow(channel: Channel, attachment: Attachment): void {
  if (attachment.state !== 'mapped') {
    throw (
      attachment.error ??
      new P2pdmaError('The attachment is being moved', {
        code: 'EAGAIN',
        argument: 'attachment',
        hint: 'await the move first',
      })
    )
  }
  if (!channel.isRunning) {
    throw new P2pdmaError('The channel is stopped for a move', {
      code: 'EAGAIN',
      argument: 'channel',
      hint: 'await the move first',
    })
  }
}

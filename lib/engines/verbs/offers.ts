/** What a peer lets us use. */
import { brand } from '../../brand.js'
import {
  P2pdmaError,
  checkMilliseconds,
  checkOptions,
  checkSignal,
  closedError,
  typeError,
} from '../../errors.js'
import { throwIfAborted, withDeadline, withSignal } from '../../move-notify/reservation/deadline.js'
import type { Importer } from '../../move-notify/importer/importer.js'
import type { RemoteAttachment } from '../../move-notify/importer/remote-attachment.js'
import type { MessageOf, QueueMessage, Update } from './link/messages.js'
import type { Queue } from './queue.js'
import type { Regions, RemoteKey } from './regions.js'

/** Granted to us by the peer. */
export class Offer {
  static {
    brand(this, (value) => #attach in value)
  }

  readonly label: string
  /** Bytes. */
  readonly size: number
  /** `Access` bits. */
  readonly access: number
  /** The name of the queue pair on which it may be used. */
  readonly queue: string
  readonly #attach: (importer: Importer) => RemoteAttachment

  /** @internal */
  constructor(
    label: string,
    size: number,
    access: number,
    queue: string,
    attach: (importer: Importer) => RemoteAttachment,
  ) {
    this.label = label
    this.size = size
    this.access = access
    this.queue = queue
    this.#attach = attach
  }

  /** Something that operations can name, on channels over `queue`. */
  attach(importer: Importer): RemoteAttachment {
    return this.#attach(importer)
  }
}

/** How long to wait for an offer. */
export interface OfferedOptions {
  /** ms; Infinity: for as long as the peer is there. Default 30,000. */
  timeoutMs?: number
  /** Rejects with ABORT_ERR. */
  signal?: AbortSignal | undefined
}

const OFFERED_MS = 30_000

/** What offers need of their peer. */
export interface OfferHost {
  readonly regions: Regions
  /** ERR_INVALID_ARG_VALUE for another engine's. */
  checkOurs(argument: string, importer: Importer): void
  send(message: QueueMessage): boolean
  onOffer(offer: Offer): void
}

interface Received {
  offer: Offer
  key: RemoteKey
  attached: Set<RemoteAttachment>
}

interface Waiter {
  label: string
  resolve: (offer: Offer) => void
  reject: (error: Error) => void
}

export class Offers {
  readonly #host: OfferHost
  readonly #received = new Map<string, Received>()
  #waiters: Waiter[] = []

  constructor(host: OfferHost) {
    this.#host = host
  }

  /** As `Peer.offered`, while the peer is there. */
  async named(label: string, options: OfferedOptions): Promise<Offer> {
    const { signal, timeoutMs = OFFERED_MS } = checkOptions(options)
    if (typeof label !== 'string') throw typeError('label', 'a string', label)
    checkSignal(signal)
    checkMilliseconds('timeoutMs', timeoutMs)
    throwIfAborted(signal)
    for (const { offer } of this.#received.values()) if (offer.label === label) return offer
    const waiter: Waiter = { label, resolve: () => {}, reject: () => {} }
    const offered = new Promise<Offer>((resolve, reject) => {
      Object.assign(waiter, { resolve, reject })
      this.#waiters.push(waiter)
    })
    try {
      const late = () => lateError(label, timeoutMs)
      return await withSignal(withDeadline(offered, timeoutMs, late), signal)
    } finally {
      this.#waiters = this.#waiters.filter((each) => each !== waiter)
      // Given up, it waits no more: its time limit would.
      waiter.reject(closedError('The wait'))
    }
  }

  onGrant(queue: Queue, message: MessageOf<'grant'>): void {
    const { label, size, access, iova, rkey } = message
    const name = nameOf(message)
    const attached = new Set<RemoteAttachment>()
    const received: Received = {
      attached,
      key: { iova, rkey },
      offer: new Offer(label, size, access, queue.name, (importer) => {
        this.#host.checkOurs('importer', importer)
        if (queue.error !== null) throw queue.error
        if (this.#received.get(name) !== received) throw takenBack()
        const { regions } = this.#host
        const remote = importer.attachRemote({
          size,
          access,
          onClose: () => {
            attached.delete(remote)
            regions.dropRemote(remote.id)
          },
        })
        regions.setRemote(remote.id, queue.counts.number, size, access, received.key)
        attached.add(remote)
        return remote
      }),
    }
    this.#received.set(name, received)
    const waiting = this.#waiters.filter((each) => each.label === label)
    this.#waiters = this.#waiters.filter((each) => each.label !== label)
    for (const { resolve } of waiting) resolve(received.offer)
    this.#host.onOffer(received.offer)
  }

  /** Answered when no request that names it is under way any more. */
  async onUngrant(queue: Queue, message: MessageOf<'ungrant'>): Promise<void> {
    const name = nameOf(message)
    const received = this.#received.get(name)
    this.#received.delete(name)
    const attached = [...(received?.attached ?? [])]
    for (const remote of attached) this.#revoke(remote, takenBack())
    await queue.backend?.drainOf(attached.map(({ id }) => id))
    this.#host.send({ type: 'ungranted', queue: queue.id, buffer: message.buffer })
  }

  onUpdates(queue: number, updates: readonly Update[]): void {
    for (const { buffer, iova, rkey } of updates) {
      const received = this.#received.get(nameOf({ queue, buffer }))
      if (received === undefined) continue
      received.key = { iova, rkey }
      for (const { id } of received.attached) this.#host.regions.updateRemote(id, received.key)
    }
  }

  /** The queue pair is no more. */
  drop(queue: Queue, error: P2pdmaError): void {
    for (const [name, received] of this.#received) {
      if (received.offer.queue !== queue.name) continue
      this.#received.delete(name)
      for (const remote of [...received.attached]) this.#revoke(remote, error)
    }
  }

  /** The peer is gone: what is waited for does not come. */
  end(error: Error): void {
    const waiters = this.#waiters
    this.#waiters = []
    for (const { reject } of waiters) reject(error)
  }

  #revoke(remote: RemoteAttachment, error: P2pdmaError): void {
    this.#host.regions.dropRemote(remote.id)
    remote.end('revoked', error)
  }
}

function nameOf({ queue, buffer }: { queue: number; buffer: number }): string {
  return `${queue}/${buffer}`
}

function takenBack(): P2pdmaError {
  return new P2pdmaError('The peer has taken the buffer back', {
    code: 'ERR_REVOKED',
    hint: 'ask it for another',
  })
}

function lateError(label: string, ms: number): P2pdmaError {
  return new P2pdmaError(`The peer has granted nothing named ${label} within ${ms} ms`, {
    code: 'ETIMEDOUT',
    hint: 'is that the label that it grants it by?',
  })
}

/**
 * The control link to a peer: messages over a stream, checked before anybody
 * sees them. What is refused ends the link; nothing of it is delivered.
 */
import type { Duplex } from 'node:stream'
import type { Hello, Message, QueueMessage } from './messages.js'
import type { Introduction, LinkOptions } from './link-options.js'
import type { Role } from './checks.js'
import { withDeadline, withSignal } from '../../../move-notify/reservation/deadline.js'
import { trace } from '../../../move-notify/trace.js'
import { abortError, checkOptions, P2pdmaError, typeError } from '../../../errors.js'
import { Conversation } from './checks.js'
import { checkOpening } from './link-options.js'
import { lost, silent } from './link-errors.js'
import { Lines } from './lines.js'
import { claimedType, decode, encode, protocolError } from './messages.js'
import { partsOf, ResumeParts } from './resume-parts.js'

/** Most bytes that a peer may leave unread, of what was sent before. */
const UNSENT_MAX = 1 << 20

/** How long a closed link waits for the peer to read its last words, ms. */
const LINGER_MS = 1000

export type MessageHandler = (message: QueueMessage) => void

/** Told why: null after a `close`, at either end. */
export type CloseHandler = (error: Error | null) => void

export class Link {
  readonly name: string
  readonly #stream: Duplex
  readonly #nonce: string
  readonly #conversation: Conversation
  readonly #lines = new Lines()
  readonly #resumes = new ResumeParts()
  /** Resolves when the stream is closed. */
  readonly #gone: Promise<void>
  #opening: { resolve: () => void; reject: (error: Error) => void } | null = null
  #peer: Hello | null = null
  #sentSeq = 0
  #receivedSeq = 0
  #ended = false
  #closed = false
  #error: Error | null = null
  #told = false
  #onMessage: MessageHandler | null = null
  #onClose: CloseHandler | null = null

  /**
   * Exchanges hellos. The stream is the link's from here on, and destroyed
   * should this fail: with ETIMEDOUT, ERR_PROTOCOL, ERR_PEER_LOST (the
   * stream's error is its cause) or ABORT_ERR.
   */
  static async open(stream: Duplex, hello: Introduction, options: LinkOptions): Promise<Link> {
    if (typeof (stream as Partial<Duplex> | null)?.destroy !== 'function') {
      throw typeError('stream', 'a Duplex', stream)
    }
    try {
      const { first, role, name, timeoutMs, signal } = checkOpening(hello, options)
      const line = encode(first, 1)
      if (signal?.aborted === true) throw abortError(signal)
      const link = new Link(stream, name, role, first.nonce)
      return await link.#greet(line, timeoutMs, signal)
    } catch (error) {
      // An error that the stream reports now has nobody to go to.
      stream.on('error', () => {})
      if (!stream.writableEnded) stream.destroy()
      throw error
    }
  }

  private constructor(stream: Duplex, name: string, role: Role, nonce: string) {
    this.name = name
    this.#stream = stream
    this.#nonce = nonce
    this.#conversation = new Conversation(role)
    this.#gone = new Promise((resolve) => {
      if (stream.closed) resolve()
      else stream.once('close', resolve)
    })
  }

  /** The peer's hello. */
  get peer(): Hello {
    // Nobody has a link before its peer's hello.
    if (this.#peer === null) throw new P2pdmaError('No hello yet', { code: 'ERR_INVALID_STATE' })
    return this.#peer
  }

  get closed(): boolean {
    return this.#closed
  }

  /**
   * Takes the peer's messages, in order, each in a turn of its own or of the
   * stream's; until it is set they wait, and so does the peer. One that throws
   * closes the link with its error.
   */
  set onMessage(handler: MessageHandler | null) {
    this.#onMessage = handler
    if (handler !== null) queueMicrotask(() => this.#listen())
  }

  /** Called once, never within a call of ours; also if the link was closed before it is set. */
  set onClose(handler: CloseHandler | null) {
    this.#onClose = handler
    if (this.#closed) queueMicrotask(() => this.#tell())
  }

  /**
   * False if the link, or our end of the message's queue, is closed: it was
   * not sent. Throws ERR_INVALID_ARG_VALUE or ERR_INVALID_STATE for a message
   * that the peer would refuse.
   */
  send(message: QueueMessage): boolean {
    if (this.#closed) return false
    const parts = partsOf(checkOptions(message, 'message'))
    const lines = parts.map((part, index) => encode(part, this.#sentSeq + 1 + index))
    if (!this.#conversation.sent(message)) return false
    if (this.#stream.writableLength > UNSENT_MAX) {
      this.#finish(lost(this.name, `it has left ${this.#stream.writableLength} bytes unread`))
      return false
    }
    this.#sentSeq += lines.length
    this.#stream.write(lines.join(''))
    return true
  }

  /**
   * Says goodbye and resolves when the stream is closed, which a peer that
   * does not read puts off by a second. With a text the peer takes it for an
   * error, ERR_PEER_LOST; our own `onClose` is told null.
   */
  async close(message?: string): Promise<void> {
    if (message !== undefined && typeof message !== 'string') {
      throw typeError('message', 'a string', message)
    }
    this.#finish(null, message === undefined ? {} : { message })
    await this.#gone
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #greet(hello: string, timeoutMs: number, signal: AbortSignal | undefined): Promise<Link> {
    const late = () => silent(this.name, timeoutMs)
    try {
      return await withSignal(withDeadline(this.#exchange(hello), timeoutMs, late), signal)
    } catch (error) {
      this.#finish(error as Error)
      throw error
    }
  }

  #exchange(hello: string): Promise<Link> {
    const stream = this.#stream
    return new Promise<Link>((resolve, reject) => {
      const settle = () => (this.#opening = null)
      this.#opening = {
        resolve: () => (settle(), resolve(this)),
        reject: (error) => (settle(), reject(error)),
      }
      stream.on('error', (error) => this.#finish(lost(this.name, 'its stream broke', error)))
      stream.on('close', () => this.#finish(lost(this.name, 'its stream broke', stream.errored)))
      if (stream.destroyed || stream.readableEnded || !stream.writable) {
        this.#finish(lost(this.name, 'its stream broke', stream.errored))
        return
      }
      undelayed(stream)
      this.#sentSeq = 1
      stream.write(hello)
      stream.on('end', () => this.#onEnd())
      stream.on('data', (chunk: Buffer | string) => this.#onData(chunk))
    })
  }

  #onData(chunk: Buffer | string): void {
    if (this.#closed) return
    this.#lines.push(typeof chunk === 'string' ? Buffer.from(chunk) : chunk)
    this.#drain()
  }

  #onEnd(): void {
    this.#ended = true
    this.#drain()
  }

  /** The handler has come: what waits goes to it first. */
  #listen(): void {
    this.#drain()
    if (!this.#closed && this.#onMessage !== null) this.#stream.resume()
  }

  #drain(): void {
    while (!this.#closed) {
      const handler = this.#onMessage
      if (this.#peer !== null && handler === null) {
        this.#stream.pause()
        return
      }
      let line: Uint8Array | null = null
      let message: QueueMessage | null = null
      try {
        line = this.#lines.next()
        if (line === null) break
        message = this.#take(line)
      } catch (error) {
        this.#refuse(error as Error, line)
      }
      if (message !== null) this.#deliver(handler, message)
    }
    if (!this.#ended || this.#closed) return
    if (this.#lines.begun > 0) this.#refuse(protocolError('a line without its end'), null)
    else this.#finish(lost(this.name, 'it went away without a word'))
  }

  /** What is for the engine; throws ERR_PROTOCOL. */
  #take(line: Uint8Array): QueueMessage | null {
    const message: Message = decode(line, this.#receivedSeq + 1)
    this.#receivedSeq++
    if (this.#peer === null) {
      if (message.type !== 'hello')
        throw protocolError(`a ${message.type} before its hello`, 'type')
      if (message.nonce === this.#nonce) {
        throw protocolError('our own hello', 'hello.nonce', 'something echoes what it is sent')
      }
      this.#peer = message
      this.#opening?.resolve()
      return null
    }
    if (message.type === 'hello') throw protocolError('a second hello', 'type')
    if (message.type === 'bye') {
      const { message: why } = message
      this.#finish(why === undefined ? null : lost(this.name, `it has closed the link: ${why}`), {})
      return null
    }
    const wanted = this.#conversation.received(message)
    const whole = message.type === 'resume' ? this.#resumes.take(message) : message
    return wanted ? whole : null
  }

  #deliver(handler: MessageHandler | null, message: QueueMessage): void {
    try {
      handler?.(message)
    } catch (error) {
      const reason = error instanceof Error ? error : new Error(String(error), { cause: error })
      this.#finish(reason, { message: 'a fault of this end, not of yours' })
    }
  }

  #refuse(error: Error, line: Uint8Array | null): void {
    if (trace.peer.hasSubscribers) {
      const type = line === null ? null : claimedType(line)
      const at = performance.now()
      trace.peer.publish({ peer: this.name, reason: error.message, type, at })
    }
    this.#finish(error, { message: `refused: ${error.message}` })
  }

  /** The one end of every link. `bye`: the stream still serves to say it. */
  #finish(error: Error | null, bye?: { message?: string }): void {
    if (this.#closed) return
    this.#closed = true
    this.#error = error
    if (bye === undefined || !this.#stream.writable) this.#stream.destroy()
    else this.#hangUp(encode({ type: 'bye', ...bye }, this.#sentSeq + 1))
    if (this.#opening !== null) {
      this.#opening.reject(error ?? lost(this.name, 'it went away without a word'))
    } else {
      queueMicrotask(() => this.#tell())
    }
  }

  #hangUp(bye: string): void {
    const stream = this.#stream
    const late = () => lost(this.name, 'it does not read our last words')
    withDeadline(this.#gone, LINGER_MS, late).catch(() => stream.destroy())
    stream.end(bye)
    // What still comes is read and thrown away: a socket closed with bytes unread
    // resets the connection, and the peer may lose our last words.
    stream.resume()
  }

  #tell(): void {
    if (this.#told || this.#onClose === null) return
    this.#told = true
    this.#onClose(this.#error)
  }
}

/** Messages are small, and somebody waits for each. */
function undelayed(stream: Duplex & { setNoDelay?: (on: boolean) => unknown }): void {
  if (typeof stream.setNoDelay === 'function') stream.setNoDelay(true)
}

/** How peers come together over TCP: one listens, the other connects. */
import { connect, createServer, type Socket } from 'node:net'
import {
  P2pdmaError,
  checkInteger,
  checkMilliseconds,
  checkOptions,
  checkSignal,
  closedError,
  typeError,
} from '../../errors.js'
import { explain } from '../../failures/index.js'
import { throwIfAborted, withDeadline, withSignal } from '../../move-notify/reservation/deadline.js'

export interface ConnectOptions {
  host: string
  port: number
  /** For the connection and the hello together, ms. Default 5000. */
  timeoutMs?: number
  /** Ends the attempt with ABORT_ERR; a peer that has connected is no longer the signal's. */
  signal?: AbortSignal | undefined
}

export interface ListenOptions {
  /** Default: one that is free. */
  port?: number
  /** Default: every address. */
  host?: string
  /**
   * Connections that may be on their way to a hello at once. Of more, the oldest one is
   * dropped, those that have said nothing first. Default 64.
   */
  maxHandshakes?: number
  /** For a hello, ms. Default 5000. */
  handshakeTimeoutMs?: number
}

/** Waits for peers to connect. */
export interface VerbsListener {
  readonly port: number
  /** Drops those who are on their way; those who have connected stay. */
  close(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/** How a connection becomes a peer. */
export interface Greeting {
  timeoutMs: number
  signal?: AbortSignal | undefined
}

const DEFAULT_MS = 5000

export function checkConnect(options: ConnectOptions) {
  const { host, port, timeoutMs = DEFAULT_MS, signal } = checkOptions(options)
  if (typeof host !== 'string') throw typeError('host', 'a string', host)
  checkInteger('port', port, 1, 65_535)
  checkMilliseconds('timeoutMs', timeoutMs)
  checkSignal(signal)
  return { host, port, timeoutMs, signal }
}

/** Connects, and greets whoever is there in what is left of the time. */
export async function meet<Peer>(
  { host, port, timeoutMs, signal }: ReturnType<typeof checkConnect>,
  open: (socket: Socket, greeting: Greeting) => Promise<Peer>,
): Promise<Peer> {
  throwIfAborted(signal)
  const start = performance.now()
  const socket = connect({ host, port, noDelay: true })
  const connected = new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve)
    socket.on('error', reject)
    // Given up, it is destroyed; its time limit goes with it.
    socket.once('close', () => reject(closedError('The socket')))
  })
  try {
    const late = () => lateError(host, port, timeoutMs)
    await withSignal(withDeadline(connected, timeoutMs, late), signal)
  } catch (error) {
    socket.destroy()
    throw error instanceof P2pdmaError ? error : connectError(host, port, error)
  }
  const left = Math.max(1, timeoutMs - (performance.now() - start))
  return open(socket, { timeoutMs: left, signal })
}

function lateError(host: string, port: number, ms: number): P2pdmaError {
  return new P2pdmaError(`No connection to ${host}, port ${port}, within ${ms} ms`, {
    code: 'ETIMEDOUT',
    syscall: 'connect',
    hint: 'is the host up, and does a firewall drop what is sent to that TCP port?',
  })
}

function connectError(host: string, port: number, error: unknown): P2pdmaError {
  const hint = zoneHint(host, error) ?? 'start it there: p2pdma serve'
  return socketError(`No peer at ${host}, port ${port}`, hint, error)
}

/** For what the kernel says to a link-local address without its interface, or with another's. */
function zoneHint(host: string | undefined, error: unknown): string | undefined {
  const [, address, zone] = /^(fe[89ab][\da-f]:[\da-f:.]*)(?:%(.*))?$/i.exec(host ?? '') ?? []
  if (address === undefined || (error as NodeJS.ErrnoException).code !== 'EINVAL') return undefined
  return zone === undefined
    ? `a link-local address is one of an interface's link: ${address}%eth0`
    : `there is no interface ${zone} here: see \`ip link\``
}

function socketError(what: string, hint: string | undefined, error: unknown): P2pdmaError {
  const cause = error as NodeJS.ErrnoException
  const { code = 'ERR_PEER_LOST', errno, syscall } = cause
  const known = explain({ code, syscall }).hint ?? hint
  return new P2pdmaError(`${what}: ${cause.message}`, { code, errno, syscall, hint: known, cause })
}

/** Connections on their way to a hello. */
class Handshakes {
  readonly #most: number
  readonly #all = new Map<Socket, AbortController>()

  constructor(most: number) {
    this.#most = most
  }

  /** One more; its signal ends it. */
  add(socket: Socket): AbortSignal {
    if (this.#all.size >= this.#most) this.#dropOne()
    const controller = new AbortController()
    this.#all.set(socket, controller)
    return controller.signal
  }

  #dropOne(): void {
    const sockets = [...this.#all.keys()]
    const chosen = sockets.find(({ bytesRead }) => bytesRead === 0) ?? sockets[0]
    if (chosen === undefined) return
    this.#all.get(chosen)?.abort()
    this.#all.delete(chosen)
  }

  end(socket: Socket): void {
    this.#all.delete(socket)
  }

  dropAll(): void {
    for (const controller of this.#all.values()) controller.abort()
    this.#all.clear()
  }
}

/**
 * Has peers connect. `open` greets each; those that say nothing that can be understood, or
 * nothing in time, are not told of.
 */
export async function listenForPeers<Peer>(
  { host, port, maxHandshakes, handshakeTimeoutMs }: ReturnType<typeof checkListen>,
  open: (socket: Socket, greeting: Greeting) => Promise<Peer>,
  onPeer: (peer: Peer) => void,
  onClose: (listener: VerbsListener) => void,
): Promise<VerbsListener> {
  const handshakes = new Handshakes(maxHandshakes)
  const server = createServer((socket) => {
    socket.setNoDelay(true)
    const signal = handshakes.add(socket)
    const opened = open(socket, { timeoutMs: handshakeTimeoutMs, signal })
    const ended = () => handshakes.end(socket)
    opened.then(ended, ended)
    opened.then(onPeer, () => {})
  })
  await new Promise<void>((resolve, reject) => {
    // Also of an accept that fails later (EMFILE): the one who connects sees it.
    server.on('error', (error) =>
      reject(socketError('Nobody can connect', zoneHint(host, error), error)),
    )
    server.listen({ port, ...(host !== undefined && { host }) }, resolve)
  })
  const address = server.address()
  const close = () => {
    // Those who have connected stay connected, so its callback may never come.
    server.close()
    handshakes.dropAll()
    onClose(listener)
    return Promise.resolve()
  }
  const listener: VerbsListener = {
    port: typeof address === 'object' && address !== null ? address.port : port,
    close,
    [Symbol.asyncDispose]: close,
  }
  return listener
}

export function checkListen(options: ListenOptions) {
  const { host, port = 0, maxHandshakes = 64 } = checkOptions(options)
  const { handshakeTimeoutMs = DEFAULT_MS } = options
  checkInteger('port', port, 0, 65_535)
  if (host !== undefined && typeof host !== 'string') throw typeError('host', 'a string', host)
  checkInteger('maxHandshakes', maxHandshakes, 1)
  checkMilliseconds('handshakeTimeoutMs', handshakeTimeoutMs)
  return { host, port, maxHandshakes, handshakeTimeoutMs }
}

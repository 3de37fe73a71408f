/** Connecting by IP address: librdmacm, with events on the caller's event loop. */
import { isIP } from 'node:net'
import { brand } from '../../brand.js'
import { P2pdmaError, checkInteger, checkOptions, checkSignal, typeError } from '../../errors.js'
import {
  nativeRdmaCm,
  nativeVerbs,
  type NativeCmChannel,
  type NativeCmEvent,
  type NativeCmId,
} from '../../native-verbs.js'
import { callAsync } from '../call.js'
import { CmEvent, CmIdentifier } from './cm-id.js'
import { CmRoutes } from './cm-routes.js'
import { Connection } from './connection.js'
import { checkSpare } from './spare.js'
import { VerbsObject } from './verbs-object.js'

export interface ResolveOptions {
  /** Our own address. Default: by the routes of this network namespace. */
  source?: string | undefined
  /** For each of the two steps. Default 2000. */
  timeoutMs?: number | undefined
  signal?: AbortSignal | undefined
}

export interface CmListenOptions {
  /** Default: all. */
  address?: string | undefined
  /** Default 0: any; see `Listener.port`. */
  port?: number | undefined
  /** Requests that wait. Default 16. */
  backlog?: number | undefined
}

export class ConnectionManager extends VerbsObject<'cm-channel'> {
  static {
    brand(this)
  }

  readonly #routes: CmRoutes

  private constructor(native: NativeCmChannel) {
    super(native, [])
    this.#routes = new CmRoutes(native)
  }

  static async open(): Promise<ConnectionManager> {
    nativeRdmaCm()
    checkSpare()
    const native = await callAsync(() => nativeRdmaCm().verbsCmCreate(), { doing: 'cm' })
    return new ConnectionManager(native)
  }

  protected get what(): string {
    return 'ConnectionManager'
  }

  /** Finds the device and the route to a numeric address; then `connect()` it. */
  async resolve(address: string, port: number, options: ResolveOptions = {}): Promise<Connection> {
    checkAddress('address', address)
    checkInteger('port', port, 1, 0xffff)
    const { source, timeoutMs = 2000, signal } = checkOptions(options)
    if (source !== undefined) checkAddress('source', source)
    checkInteger('timeoutMs', timeoutMs, 1, 0x7fffffff)
    checkSignal(signal)
    const connection = await this.make(
      [],
      () => nativeVerbs().verbsCmCreateId(this.handle),
      (native) => Connection.fromNative(native, this, this.#routes),
      { doing: 'cm' },
    )
    try {
      await connection.resolve(source ?? null, address, port, timeoutMs, signal)
      return connection
    } catch (error) {
      await connection.close()
      throw error
    }
  }

  /**
   * Calls back with each request, which is to be accepted, rejected or closed.
   * Listening keeps the process alive until the listener is closed.
   */
  async listen(
    onRequest: (connection: Connection) => void,
    options: CmListenOptions = {},
  ): Promise<Listener> {
    if (typeof onRequest !== 'function') throw typeError('onRequest', 'a function', onRequest)
    const { address = '0.0.0.0', port = 0, backlog = 16 } = checkOptions(options)
    checkAddress('address', address)
    checkInteger('port', port, 0, 0xffff)
    checkInteger('backlog', backlog, 1, 0x7fffffff)
    const listener = await this.make(
      [],
      () => nativeVerbs().verbsCmCreateId(this.handle),
      (native) => Listener.fromNative(native, this, this.#routes, onRequest),
      { doing: 'cm' },
    )
    try {
      await listener.start(address, port, backlog)
      return listener
    } catch (error) {
      await listener.close()
      throw error
    }
  }

  protected override onClose(): void {
    this.#routes.stop()
  }
}

export class Listener extends CmIdentifier {
  static {
    brand(this)
  }

  readonly #manager: VerbsObject
  readonly #routes: CmRoutes
  readonly #onRequest: (connection: Connection) => void
  #listening = false

  private constructor(
    native: NativeCmId,
    manager: VerbsObject,
    routes: CmRoutes,
    onRequest: (connection: Connection) => void,
  ) {
    super(native, manager, routes)
    this.#manager = manager
    this.#routes = routes
    this.#onRequest = onRequest
  }

  /** @internal */
  static fromNative(
    native: NativeCmId,
    manager: VerbsObject,
    routes: CmRoutes,
    onRequest: (connection: Connection) => void,
  ): Listener {
    return new Listener(native, manager, routes, onRequest)
  }

  protected get what(): string {
    return 'Listener'
  }

  get port(): number {
    return this.info().localPort
  }

  /** @internal */
  async start(address: string, port: number, backlog: number): Promise<void> {
    await this.run(() => nativeVerbs().verbsCmBind(this.handle, address, port), { doing: 'cm' })
    await this.run(() => nativeVerbs().verbsCmListen(this.handle, backlog), { doing: 'cm' })
    this.#listening = true
    this.#routes.hold(1)
  }

  /** @internal */
  protected override onOther(event: NativeCmEvent): void {
    if (event.event !== CmEvent.CONNECT_REQUEST || event.request === null) return
    const { request, privateData } = event
    this.#onRequest(Connection.fromNative(request, this.#manager, this.#routes, privateData))
  }

  protected override onClose(): void {
    super.onClose()
    if (this.#listening) this.#routes.hold(-1)
    this.#listening = false
  }
}

function checkAddress(argument: string, address: unknown): void {
  if (typeof address !== 'string') throw typeError(argument, 'a string', address)
  if (isIP(address) !== 0) return
  throw new P2pdmaError(`${argument} must be a numeric IP address`, {
    code: 'ERR_INVALID_ARG_VALUE',
    argument,
    hint: 'look a name up first: dns.lookup()',
  })
}

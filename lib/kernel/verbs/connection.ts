/** A connection by address, of a queue pair of the caller's. */
import { brand } from '../../brand.js'
import { P2pdmaError, checkInteger, checkOptions, checkSignal, typeError } from '../../errors.js'
import { nativeVerbs, type NativeCmEvent, type NativeCmId } from '../../native-verbs.js'
import { call } from '../call.js'
import { CmEvent, CmIdentifier } from './cm-id.js'
import type { CmRoutes } from './cm-routes.js'
import { QpState } from './constants.js'
import { mtuBytes } from './port.js'
import { checkQueuePair, type QueuePair } from './queue-pair.js'
import { qpAttributes, type QpAttributes } from './qp-attributes.js'
import type { VerbsObject } from './verbs-object.js'

export interface CmConnectOptions {
  /** For the peer to read before it answers: at most 56 bytes in a request, 196 in an answer. */
  privateData?: Uint8Array | undefined
  /** Reads and atomics under way at once: of the peer's, and of ours. Default 16. */
  responderResources?: number | undefined
  initiatorDepth?: number | undefined
  /** Default 7; not in an answer. */
  retryCount?: number | undefined
  /** Default 7: for ever. */
  rnrRetryCount?: number | undefined
  /** What the peer may do through the queue pair, of `MemoryAccess`. Default: by what librdmacm sets. */
  access?: number | undefined
  /** Default 12: 0.64 ms. */
  minRnrTimer?: number | undefined
  signal?: AbortSignal | undefined
}

const NO_DATA = new Uint8Array(0)

export class Connection extends CmIdentifier {
  static {
    brand(this)
  }

  /** What the request, or the answer to ours, brought. */
  privateData: Uint8Array
  #pair: QueuePair | null = null
  /** Whether the peer has been told, or answered. */
  #isDisconnected = false
  #end: () => void = () => undefined
  /** Resolves when the peer, or the device, has ended it, or it was closed. */
  readonly ended: Promise<void>

  private constructor(
    native: NativeCmId,
    manager: VerbsObject,
    routes: CmRoutes,
    privateData: Uint8Array,
  ) {
    super(native, manager, routes)
    this.privateData = privateData
    this.ended = new Promise((resolve) => {
      this.#end = resolve
    })
  }

  /** @internal */
  static fromNative(
    native: NativeCmId,
    manager: VerbsObject,
    routes: CmRoutes,
    privateData: Uint8Array = NO_DATA,
  ): Connection {
    return new Connection(native, manager, routes, privateData)
  }

  protected get what(): string {
    return 'Connection'
  }

  /** The name of the device that its queue pair has to be of. */
  get deviceName(): string {
    const { device } = this.info()
    if (device !== null) return device
    throw new P2pdmaError('No device is resolved', { code: 'ERR_INVALID_STATE' })
  }

  get portNum(): number {
    return this.info().port
  }

  get localAddress(): { address: string; port: number } {
    const { localAddress, localPort } = this.info()
    return { address: localAddress, port: localPort }
  }

  get peerAddress(): { address: string; port: number } {
    const { peerAddress, peerPort } = this.info()
    return { address: peerAddress, port: peerPort }
  }

  /** @internal */
  async resolve(
    source: string | null,
    address: string,
    port: number,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<void> {
    const native = nativeVerbs()
    await this.ask(
      CmEvent.ADDR_RESOLVED,
      () => native.verbsCmResolve(this.handle, source, address, port, timeoutMs),
      signal,
    )
    await this.ask(
      CmEvent.ROUTE_RESOLVED,
      () => native.verbsCmResolveRoute(this.handle, timeoutMs),
      signal,
    )
  }

  /**
   * RESET to INIT, by what librdmacm says, as rdma_create_qp(3) leaves a queue pair:
   * receives posted from now on are there before the peer can send. `connect()` and
   * `accept()` take it, or one that the caller has moved to INIT, as it is.
   */
  async prepare(pair: QueuePair, options: { access?: number | undefined } = {}): Promise<void> {
    this.#checkPair(pair)
    const { access } = checkOptions(options)
    if (access !== undefined) checkInteger('access', access, 0, 0xffffffff)
    await this.#to(pair, QpState.INIT, { access })
  }

  /** Asks the peer; resolves when both queue pairs can send. ECONNREFUSED where it does not want to. */
  async connect(pair: QueuePair, options: CmConnectOptions = {}): Promise<void> {
    const request = this.#check(pair, options)
    await this.#toInit(pair, options)
    const answer = await this.ask(
      CmEvent.CONNECT_RESPONSE,
      () => nativeVerbs().verbsCmConnect(this.handle, ...request),
      options.signal,
    )
    this.privateData = answer.privateData
    this.#pair = pair
    try {
      await this.#to(pair, QpState.RTR, options)
      await this.#to(pair, QpState.RTS, options)
      // The answer to an answer: no event follows it here (drivers/infiniband/core/cma.c, cma_rep_recv).
      await this.run(() => nativeVerbs().verbsCmEstablish(this.handle))
    } catch (error) {
      // The peer waits for it.
      await this.run(() => nativeVerbs().verbsCmReject(this.handle, NO_DATA)).catch(() => undefined)
      throw error
    }
  }

  /** Answers a request; resolves when the peer has begun. */
  async accept(pair: QueuePair, options: CmConnectOptions = {}): Promise<void> {
    const request = this.#check(pair, options)
    await this.#toInit(pair, options)
    await this.#to(pair, QpState.RTR, options)
    await this.#to(pair, QpState.RTS, options)
    this.#pair = pair
    await this.ask(
      CmEvent.ESTABLISHED,
      () => nativeVerbs().verbsCmAccept(this.handle, ...request),
      options.signal,
    )
  }

  /** Answers a request with no, and closes. At most 148 bytes say why. */
  async reject(privateData: Uint8Array = NO_DATA): Promise<void> {
    checkData(privateData, 148)
    await this.run(() => nativeVerbs().verbsCmReject(this.handle, privateData))
    await this.close()
  }

  /** Ends it: both queue pairs go to ERR. The peer's `ended` resolves. */
  async disconnect(): Promise<void> {
    await this.run(() => nativeVerbs().verbsCmDisconnect(this.handle))
    this.#isDisconnected = true
    await this.#finish()
  }

  /** One in INIT may have receives, which a way through RESET would lose. */
  async #toInit(pair: QueuePair, options: CmConnectOptions): Promise<void> {
    const { qpState, portNum } = pair.query()
    if (qpState !== QpState.INIT) return this.#to(pair, QpState.INIT, options)
    if (portNum !== this.portNum) {
      throw new P2pdmaError(
        `The connection is by port ${this.portNum}, the queue pair of port ${portNum}`,
        { code: 'ERR_INVALID_ARG_VALUE', argument: 'pair', hint: 'let prepare() move it to INIT' },
      )
    }
    if (options.access !== undefined) {
      await pair.modify({ qpState: QpState.INIT, qpAccessFlags: options.access })
    }
  }

  async #to(pair: QueuePair, state: number, options: CmConnectOptions): Promise<void> {
    const native = call(() => nativeVerbs().verbsCmInitQpAttr(this.handle, state))
    const attributes: QpAttributes = qpAttributes(native)
    if (options.access !== undefined && state !== QpState.RTS) {
      attributes.qpAccessFlags = options.access
    }
    if (state === QpState.RTR) {
      if (options.minRnrTimer !== undefined) attributes.minRnrTimer = options.minRnrTimer
      // The path's is what the other end can do too; ours may be less.
      const most = pair.domain.device.port(this.portNum).activeMtu
      attributes.pathMtu = Math.min(attributes.pathMtu ?? mtuBytes(3), most)
    }
    await pair.modify(attributes)
  }

  #checkPair(pair: QueuePair): void {
    checkQueuePair('pair', pair)
    if (pair.domain.device.name === this.deviceName) return
    throw new P2pdmaError(
      `The connection is by ${this.deviceName}, the queue pair of ${pair.domain.device.name}`,
      { code: 'ERR_INVALID_ARG_VALUE', argument: 'pair' },
    )
  }

  #check(pair: QueuePair, options: CmConnectOptions) {
    this.#checkPair(pair)
    const { privateData = NO_DATA, signal, ...rest } = checkOptions(options)
    checkData(privateData, 196)
    checkSignal(signal)
    const small = (name: string, value: number | undefined, fallback: number, max: number) =>
      checkInteger(name, value ?? fallback, 0, max)
    return [
      pair.qpNumber,
      pair.srq !== null,
      privateData,
      small('responderResources', rest.responderResources, 16, 255),
      small('initiatorDepth', rest.initiatorDepth, 16, 255),
      small('retryCount', rest.retryCount, 7, 7),
      small('rnrRetryCount', rest.rnrRetryCount, 7, 7),
    ] as const
  }

  /** @internal */
  protected override onOther(event: NativeCmEvent): void {
    if (event.event === CmEvent.DISCONNECTED) void this.#answer()
    else if (event.event === CmEvent.DEVICE_REMOVAL) void this.#finish()
  }

  /** A peer that disconnects waits for the answer: rdma_disconnect(3) is that, too. */
  async #answer(): Promise<void> {
    const isAnswer = !this.#isDisconnected
    this.#isDisconnected = true
    if (isAnswer) {
      // It refuses where the connection manager has given up meanwhile, or where it is closing.
      await this.run(() => nativeVerbs().verbsCmDisconnect(this.handle)).catch(() => undefined)
    }
    await this.#finish()
  }

  async #finish(): Promise<void> {
    const pair = this.#pair
    this.#pair = null
    try {
      // librdmacm does this for queue pairs of its own: what is posted is flushed.
      if (pair?.closed === false) await pair.toError()
    } catch {
      // It is closing, or its device has gone.
    }
    this.#end()
  }

  protected override onClose(): void {
    super.onClose()
    this.#end()
  }
}

function checkData(data: unknown, max: number): void {
  if (!(data instanceof Uint8Array)) throw typeError('privateData', 'a Uint8Array', data)
  checkInteger('privateData', data.byteLength, 0, max)
}

/** One identifier of librdmacm's: what its events say, awaited one after the other. */
import { getSystemErrorName } from 'node:util'
import { P2pdmaError, abortError, closedError } from '../../errors.js'
import { explain } from '../../failures/index.js'
import {
  nativeVerbs,
  type NativeCmEvent,
  type NativeCmId,
  type NativeCmInfo,
} from '../../native-verbs.js'
import { call } from '../call.js'
import type { CmRoutes } from './cm-routes.js'
import { VerbsObject } from './verbs-object.js'

/** rdma_cm_event_type. */
export const CmEvent = {
  ADDR_RESOLVED: 0,
  ADDR_ERROR: 1,
  ROUTE_RESOLVED: 2,
  ROUTE_ERROR: 3,
  CONNECT_REQUEST: 4,
  CONNECT_RESPONSE: 5,
  CONNECT_ERROR: 6,
  UNREACHABLE: 7,
  REJECTED: 8,
  ESTABLISHED: 9,
  DISCONNECTED: 10,
  DEVICE_REMOVAL: 11,
} as const

const failures: ReadonlyMap<number, string> = new Map([
  [CmEvent.ADDR_ERROR, 'rdma_resolve_addr'],
  [CmEvent.ROUTE_ERROR, 'rdma_resolve_route'],
  [CmEvent.CONNECT_ERROR, 'rdma_connect'],
  [CmEvent.UNREACHABLE, 'rdma_connect'],
  [CmEvent.REJECTED, 'rdma_connect'],
  [CmEvent.DISCONNECTED, 'rdma_connect'],
  [CmEvent.DEVICE_REMOVAL, 'rdma_get_cm_event'],
])

interface Waiting {
  event: number
  settle: (outcome: NativeCmEvent | Error) => void
}

export abstract class CmIdentifier extends VerbsObject<'cm-id'> {
  readonly #routes: CmRoutes
  readonly #number: number
  #waiting: Waiting | null = null
  /** What came before anybody waited for it. */
  readonly #early: NativeCmEvent[] = []

  /** @internal */
  protected constructor(native: NativeCmId, manager: VerbsObject, routes: CmRoutes) {
    super(native, [manager])
    this.#routes = routes
    this.#number = native.number
    routes.add(native.number, (event) => {
      if (event instanceof Error) this.#waiting?.settle(event)
      else this.#onEvent(event)
    })
  }

  /** What nobody waits for: a request, the end of a connection. @internal */
  protected abstract onOther(event: NativeCmEvent): void

  /** @internal */
  protected info(): NativeCmInfo {
    return call(() => nativeVerbs().verbsCmInfo(this.handle))
  }

  /** Makes a call and waits for the event that answers it. @internal */
  protected async ask(
    event: number,
    fn: () => Promise<void>,
    signal?: AbortSignal,
  ): Promise<NativeCmEvent> {
    if (this.#waiting !== null) {
      throw new P2pdmaError('Something else is being waited for', { code: 'EALREADY' })
    }
    const answer = new Promise<NativeCmEvent>((resolve, reject) => {
      const onAbort = () => {
        if (signal !== undefined) settle(abortError(signal))
      }
      const settle = (outcome: NativeCmEvent | Error) => {
        this.#waiting = null
        signal?.removeEventListener('abort', onAbort)
        if (outcome instanceof Error) reject(outcome)
        else resolve(outcome)
      }
      this.#waiting = { event, settle }
      signal?.addEventListener('abort', onAbort)
      if (signal?.aborted === true) onAbort()
    })
    // It may fail before the call has returned, or instead of it.
    answer.catch(() => undefined)
    this.#routes.hold(1)
    try {
      for (const early of this.#early.splice(0)) this.#onEvent(early)
      await this.run(fn, { doing: 'cm' })
      return await answer
    } finally {
      this.#waiting = null
      this.#routes.hold(-1)
    }
  }

  #onEvent(event: NativeCmEvent): void {
    const waiting = this.#waiting
    if (waiting?.event === event.event) waiting.settle(event)
    else if (waiting !== null && failures.has(event.event)) {
      waiting.settle(eventError(event))
      if (event.event === CmEvent.DISCONNECTED) this.onOther(event)
    } else if (event.event === CmEvent.ESTABLISHED) this.#early.push(event)
    else this.onOther(event)
  }

  protected override onClose(): void {
    this.#routes.remove(this.#number)
    this.#waiting?.settle(closedError(this.what))
  }
}

function eventError(event: NativeCmEvent): P2pdmaError {
  const syscall = failures.get(event.event)
  if (event.event === CmEvent.REJECTED) {
    // A status of 8 (IB_CM_REJ_INVALID_SERVICE_ID) is nobody's answer; 28 is the peer's own.
    const nobody = event.status === 8
    return new P2pdmaError(nobody ? 'Nobody listens there' : 'The peer rejected the connection', {
      code: 'ECONNREFUSED',
      errno: -111,
      syscall,
    })
  }
  if (event.event === CmEvent.DISCONNECTED) {
    return new P2pdmaError('The peer closed the connection', { code: 'ECONNRESET', syscall })
  }
  const { status } = event
  const code = status < 0 ? getSystemErrorName(status) : 'EHOSTUNREACH'
  return new P2pdmaError(`${code}: the connection manager could not connect`, {
    code,
    errno: status < 0 ? status : undefined,
    syscall,
    hint: explain({ code, syscall, doing: 'cm' }).hint,
  })
}

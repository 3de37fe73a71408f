/** A queue pair's attributes by the names of libibverbs' fields (ibv_modify_qp(3)). */
import { checkOptions, P2pdmaError, rangeError, typeError } from '../../errors.js'
import type { NativeQpAttributes } from '../../native-verbs.js'
import { type AddressOptions, addressOptions, nativeAddress } from './address-handle.js'
import { mtuBytes, mtuNumber } from './port.js'

/** What is there is modified; the rest stays as it is. */
export interface QpAttributes {
  /** Of `QpState`. */
  qpState?: number | undefined
  curQpState?: number | undefined
  /** With SQD: an event SQ_DRAINED when nothing is in progress any more. */
  enSqdAsyncNotify?: number | undefined
  /** What peers may do through it, of `MemoryAccess`. */
  qpAccessFlags?: number | undefined
  pkeyIndex?: number | undefined
  portNum?: number | undefined
  /** Datagrams: the key that those have to know who send to it. */
  qkey?: number | undefined
  /** Bytes: 256, 512, 1024, 2048 or 4096. */
  pathMtu?: number | undefined
  /** 4.096 us times 2 to the power of this, for the peer's answer; 0: for ever. */
  timeout?: number | undefined
  /** How often a packet is sent again that was not answered, 0 to 7. */
  retryCnt?: number | undefined
  /** How often a receiver that is not ready is asked again, 0 to 6; 7: for ever. */
  rnrRetry?: number | undefined
  /** Packet sequence numbers, 24 bits: what comes first from the peer, and from here. */
  rqPsn?: number | undefined
  sqPsn?: number | undefined
  /** Reads and atomics under way: of ours, and of the peer's. */
  maxRdAtomic?: number | undefined
  maxDestRdAtomic?: number | undefined
  /** How long the peer is asked to wait when no receive is posted: a code of 0 to 31; 12 is 0.64 ms. */
  minRnrTimer?: number | undefined
  destQpNum?: number | undefined
  /** The path to the peer. */
  ahAttr?: AddressOptions | undefined
}

const numbers = [
  'qpState',
  'curQpState',
  'enSqdAsyncNotify',
  'qpAccessFlags',
  'pkeyIndex',
  'portNum',
  'qkey',
  'timeout',
  'retryCnt',
  'rnrRetry',
  'rqPsn',
  'sqPsn',
  'maxRdAtomic',
  'maxDestRdAtomic',
  'minRnrTimer',
  'destQpNum',
] as const

const known: ReadonlySet<string> = new Set([...numbers, 'pathMtu', 'ahAttr'])

/** What libibverbs takes; the native side checks the numbers' ranges. */
export function nativeAttributes(attributes: QpAttributes): NativeQpAttributes {
  const stranger = Object.keys(checkOptions(attributes, 'attributes')).find(
    (name) => !known.has(name),
  )
  if (stranger !== undefined) {
    throw new P2pdmaError(`A queue pair has no attribute '${stranger}'`, {
      code: 'ERR_INVALID_ARG_VALUE',
      argument: stranger,
    })
  }
  const native: NativeQpAttributes = {}
  for (const name of numbers) {
    const value = attributes[name]
    if (value === undefined) continue
    if (typeof value !== 'number') throw typeError(name, 'a number', value)
    native[name] = value
  }
  if (attributes.pathMtu !== undefined) {
    native.pathMtu = mtuNumber(attributes.pathMtu)
    if (native.pathMtu === 0) {
      throw rangeError('pathMtu', '256, 512, 1024, 2048 or 4096', attributes.pathMtu)
    }
  }
  if (attributes.ahAttr !== undefined) {
    native.ahAttr = nativeAddress(checkOptions(attributes.ahAttr, 'ahAttr'))
  }
  return native
}

/** The other way round. */
export function qpAttributes(native: NativeQpAttributes): QpAttributes {
  const { pathMtu, ahAttr, ...rest } = native
  return {
    ...rest,
    ...(pathMtu === undefined ? {} : { pathMtu: mtuBytes(pathMtu) }),
    ...(ahAttr === undefined ? {} : { ahAttr: addressOptions(ahAttr) }),
  }
}

/** Where a packet goes: a path's address, and a handle of one for datagrams. */
import { brand } from '../../brand.js'
import { checkInteger, checkOptions } from '../../errors.js'
import type { NativeAh, NativeAhAttributes } from '../../native-verbs.js'
import { formatGid, parseGid } from './gid.js'
import { VerbsObject } from './verbs-object.js'

export interface AddressOptions {
  /** The port here. Default 1. */
  portNum?: number | undefined
  /** The peer's GID; RoCE needs one. */
  dgid?: string | undefined
  /** The index of our own GID: `VerbsDevice.gid()`. */
  sgidIndex?: number | undefined
  /** Default 64. */
  hopLimit?: number | undefined
  trafficClass?: number | undefined
  flowLabel?: number | undefined
  /** InfiniBand: the peer's LID. */
  dlid?: number | undefined
  /** Service level. */
  sl?: number | undefined
}

/** Checks it; what libibverbs takes. */
export function nativeAddress(options: AddressOptions): NativeAhAttributes {
  const {
    portNum = 1,
    dgid,
    sgidIndex,
    hopLimit,
    trafficClass,
    flowLabel,
    dlid,
    sl,
  } = checkOptions(options)
  const address: NativeAhAttributes = { portNum: checkInteger('portNum', portNum, 1, 255) }
  if (dlid !== undefined) address.dlid = checkInteger('dlid', dlid, 0, 0xffff)
  if (sl !== undefined) address.sl = checkInteger('sl', sl, 0, 15)
  if (dgid === undefined) return address
  address.dgid = parseGid('dgid', dgid)
  address.sgidIndex = checkInteger('sgidIndex', sgidIndex ?? 0, 0, 255)
  address.hopLimit = checkInteger('hopLimit', hopLimit ?? 64, 0, 255)
  if (trafficClass !== undefined) {
    address.trafficClass = checkInteger('trafficClass', trafficClass, 0, 255)
  }
  if (flowLabel !== undefined) address.flowLabel = checkInteger('flowLabel', flowLabel, 0, 0xfffff)
  return address
}

/** The other way round. */
export function addressOptions(raw: NativeAhAttributes): AddressOptions {
  const { dgid, ...rest } = raw
  return dgid === undefined ? rest : { ...rest, dgid: formatGid(dgid) }
}

export class AddressHandle extends VerbsObject<'ah'> {
  static {
    brand(this)
  }

  /** For the column `addressHandle` of a `SendBatch`. */
  readonly id: number

  private constructor(native: NativeAh, domain: VerbsObject) {
    super(native, [domain])
    this.id = native.id
  }

  /** @internal */
  static fromNative(native: NativeAh, domain: VerbsObject): AddressHandle {
    return new AddressHandle(native, domain)
  }

  protected get what(): string {
    return 'AddressHandle'
  }
}

/** A device's ports and their GIDs. */
import { P2pdmaError, checkInteger, checkOptions, typeError } from '../../errors.js'
import type { NativeGid, NativePort } from '../../native-verbs.js'
import { formatGid } from './gid.js'

export type PortState = 'down' | 'init' | 'armed' | 'active' | 'unknown'
export type GidType = 'ib' | 'roce-v1' | 'roce-v2'

export interface PortInfo {
  state: PortState
  /** Bytes of a packet's payload: what the port can do, and what is in use. */
  maxMtu: number
  activeMtu: number
  linkLayer: 'infiniband' | 'ethernet' | 'unknown'
  /** InfiniBand's address; 0 on Ethernet. */
  lid: number
  maxMessageSize: number
  gidTableLength: number
}

export interface GidEntry {
  /** What a queue pair's `sgidIndex` names it by. */
  index: number
  portNum: number
  gid: string
  type: GidType
  /** Of the network interface; 0 where there is none. */
  interfaceIndex: number
}

export interface GidChoice {
  /** Default 1. */
  portNum?: number | undefined
  index?: number | undefined
  type?: GidType | undefined
}

const states: readonly PortState[] = ['unknown', 'down', 'init', 'armed', 'active', 'active']
const types: readonly GidType[] = ['ib', 'roce-v1', 'roce-v2']

/** An `ibv_mtu` in bytes. */
export function mtuBytes(mtu: number): number {
  return 128 << mtu
}

/** The other way round; 0 where there is none of that size. */
export function mtuNumber(bytes: number): number {
  return [256, 512, 1024, 2048, 4096].indexOf(bytes) + 1
}

export function portInfo(raw: NativePort): PortInfo {
  return {
    state: states[raw.state] ?? 'unknown',
    maxMtu: mtuBytes(raw.maxMtu),
    activeMtu: mtuBytes(raw.activeMtu),
    linkLayer: raw.linkLayer === 2 ? 'ethernet' : raw.linkLayer === 1 ? 'infiniband' : 'unknown',
    lid: raw.lid,
    maxMessageSize: raw.maxMessageSize,
    gidTableLength: raw.gidTableLength,
  }
}

export function gidEntry(raw: NativeGid): GidEntry {
  return {
    index: raw.index,
    portNum: raw.port,
    gid: formatGid(raw.gid),
    type: types[raw.type] ?? 'ib',
    interfaceIndex: raw.interface,
  }
}

const isIpv4 = ({ gid }: GidEntry) => gid.startsWith('0000:0000:0000:0000:0000:ffff:')

function rank(entry: GidEntry): number {
  return (entry.type === 'roce-v2' ? 2 : 0) + (isIpv4(entry) ? 1 : 0)
}

export function chooseGid(device: string, gids: readonly GidEntry[], choice: GidChoice): GidEntry {
  const { portNum = 1, index, type } = checkOptions(choice)
  checkInteger('portNum', portNum, 1, 255)
  if (index !== undefined) checkInteger('index', index, 0, 255)
  if (type !== undefined && !types.includes(type)) {
    throw typeError('type', `one of ${types.join(', ')}`, type)
  }
  const fitting = gids.filter(
    (each) =>
      each.portNum === portNum &&
      (index === undefined || each.index === index) &&
      (type === undefined || each.type === type),
  )
  const best = fitting.sort((a, b) => rank(b) - rank(a) || a.index - b.index)[0]
  if (best !== undefined) return best
  const wanted = index === undefined ? (type ?? 'GID') : `GID ${index}`
  const others = gids.filter((each) => each.portNum === portNum).map((each) => each.index)
  throw new P2pdmaError(`Port ${portNum} of ${device} has no ${wanted}`, {
    code: 'ERR_NO_GID',
    argument: index === undefined ? 'portNum' : 'index',
    hint:
      index === undefined || others.length === 0
        ? 'RoCE has one for each address of its network interface: give it one with `ip address add`'
        : `there are ${others.join(', ')}: see VerbsDevice.gids()`,
  })
}

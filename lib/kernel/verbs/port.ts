/** A device's ports and their GIDs. */
import { P2pdmaError, checkInteger, checkOptions, typeError } from '../../errors.js'
import type { NativeGid, NativePort } from '../../native-verbs.js'
import { formatGid, gidAddress } from './gid.js'

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
  /** Default: the first that is active. */
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

/**
 * The first of a device's ports that is active, or the one that is asked for. `ports`: all that
 * it has, from the first. ERR_OUT_OF_RANGE beyond them, ERR_PORT_DOWN where it is not active.
 */
export function choosePort(
  device: string,
  ports: readonly Pick<PortInfo, 'state'>[],
  portNum?: number,
): number {
  if (portNum !== undefined) checkPortNum(portNum)
  const chosen = portNum ?? ports.findIndex(({ state }) => state === 'active') + 1
  if (chosen > ports.length) {
    throw new P2pdmaError(`${device} has no port ${chosen}`, {
      code: 'ERR_OUT_OF_RANGE',
      argument: 'portNum',
      hint: ports.length === 1 ? 'its only one is 1' : `its ports are 1 to ${ports.length}`,
    })
  }
  if (ports[chosen - 1]?.state === 'active') return chosen
  const asked = chosen > 0 ? chosen : 1
  const states = ports.map(({ state }, i) => `${i + 1} is ${state}`).join(', ')
  throw new P2pdmaError(
    chosen === 0 && ports.length > 1
      ? `No port of ${device} is active: ${states}`
      : `Port ${asked} of ${device} is ${ports[asked - 1]?.state ?? 'down'}`,
    {
      code: 'ERR_PORT_DOWN',
      argument: 'portNum',
      hint: 'see `rdma link` and `ip link`: its network interface has to be up, and have a carrier',
    },
  )
}

export function checkPortNum(portNum: unknown): number {
  return checkInteger('portNum', portNum, 1, 255)
}

/** `mlx5_0`, or `mlx5_0/2` for its second port; ERR_INVALID_ARG_VALUE where `portNum` is another. */
export function splitPort(name: string, portNum?: number): { device: string; portNum?: number } {
  if (typeof name !== 'string') throw typeError('name', 'a string', name)
  if (portNum !== undefined) checkPortNum(portNum)
  const [, device = name, digits] = /^(.+)\/(\d{1,3})$/.exec(name) ?? []
  if (digits === undefined) return { device, ...(portNum !== undefined && { portNum }) }
  const named = checkPortNum(Number(digits))
  if (portNum === undefined || portNum === named) return { device, portNum: named }
  throw new P2pdmaError(`${name} is port ${named}, and portNum is ${portNum}`, {
    code: 'ERR_INVALID_ARG_VALUE',
    argument: 'portNum',
  })
}

/**
 * Which is taken first, as digits: RoCE v2 before v1, which no router passes whatever its
 * address; then by how far the address reaches; then IPv4 before IPv6.
 */
function rank({ type, gid }: GidEntry): number {
  const { scope, isIpv4 } = gidAddress(gid)
  const reach = { host: 0, link: 1, routable: 2 }[scope]
  return (type === 'roce-v2' ? 100 : 0) + reach * 10 + (isIpv4 ? 1 : 0)
}

/**
 * The entry of a port, the one that fits and comes first in this order: RoCE v2 before v1; an
 * address that is routable before a link-local one (fe80::/10, 169.254.0.0/16), and that before
 * one that does not leave its host (loopback, unspecified); IPv4 before IPv6; the lower index.
 */
export function chooseGid(device: string, gids: readonly GidEntry[], choice: GidChoice): GidEntry {
  const { portNum = 1, index, type } = checkOptions(choice)
  checkPortNum(portNum)
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

/** One port of an RDMA device, and the GID by which queue pairs are addressed there. */
import { checkInteger } from '../../errors.js'
import type { GidEntry, PortInfo, VerbsDevice } from '../../kernel/verbs/index.js'
import { checkPortNum } from '../../kernel/verbs/port.js'

export interface PortChoice {
  /** Default: the first that is active. */
  portNum?: number | undefined
  /** Which entry of the port's GID table. Default: as `VerbsDevice.gid` chooses. */
  gidIndex?: number | undefined
}

export function checkPortChoice(choice: PortChoice): PortChoice {
  const { portNum, gidIndex } = choice
  if (portNum !== undefined) checkPortNum(portNum)
  if (gidIndex !== undefined) checkInteger('gidIndex', gidIndex, 0, 255)
  return { portNum, gidIndex }
}

export class LocalPort {
  readonly device: VerbsDevice
  readonly gid: GidEntry
  /** As it was when it was chosen. */
  readonly info: PortInfo

  /** Throws ERR_OUT_OF_RANGE, ERR_PORT_DOWN or ERR_NO_GID where it cannot be used. */
  constructor(device: VerbsDevice, { portNum, gidIndex }: PortChoice) {
    const chosen = device.activePortNum(portNum)
    this.device = device
    this.info = device.port(chosen)
    this.gid = device.gid({ portNum: chosen, index: gidIndex })
  }

  /** From 1. */
  get portNum(): number {
    return this.gid.portNum
  }

  /** `mlx5_0`; of a device that has more than one port, `mlx5_0/2`. */
  get name(): string {
    const { device, portNum } = this
    return device.attributes().ports > 1 ? `${device.name}/${portNum}` : device.name
  }

  /** Bytes of a packet's payload. */
  get mtu(): number {
    return this.info.activeMtu
  }

  /** What a queue pair sends by: of its address attributes ours. */
  get path(): { sgidIndex: number; portNum: number } {
    return { sgidIndex: this.gid.index, portNum: this.portNum }
  }

  /** Why the port carries nothing; null where it is active. */
  trouble(): string | null {
    const { device, portNum } = this
    try {
      const { state } = device.port(portNum)
      if (state === 'active') return null
      return `port ${portNum} of ${device.name} is ${state}: see \`ip link\``
    } catch (error) {
      return `port ${portNum} of ${device.name} does not say how it is: ${(error as Error).message}`
    }
  }
}

/** The network interface under an RDMA device, and its link. */
import { accessSync, constants, readFileSync, writeFileSync } from 'node:fs'
import type { VerbsDevice } from '../../kernel/verbs/index.js'

/** include/uapi/linux/if.h */
const IFF_UP = 1

export class NetLink {
  readonly name: string
  readonly #flags: string

  private constructor(name: string, flags: string) {
    this.name = name
    this.#flags = flags
  }

  /** That of the device's first port; or why it cannot be taken down, with what would help. */
  static of(device: VerbsDevice): NetLink | string {
    const { index, interfaceIndex } = device.gid()
    const attributes = `/sys/class/infiniband/${device.name}/ports/1/gid_attrs`
    let name = ''
    try {
      name = readFileSync(`${attributes}/ndevs/${index}`, 'utf8').trim()
    } catch {
      return `${device.name} has no network interface: try it by the switch`
    }
    const flags = `/sys/class/net/${name}/flags`
    if (interfaceOf(name) !== interfaceIndex) {
      return `${name}, under ${device.name}, is in another network namespace: run it there`
    }
    try {
      accessSync(flags, constants.W_OK)
    } catch {
      return `${name}, under ${device.name}, may not be taken down: run as root`
    }
    return new NetLink(name, flags)
  }

  /** net/core/net-sysfs.c, flags_store(): as `ip link set` does it. */
  set(isUp: boolean): void {
    const flags = Number(readFileSync(this.#flags, 'utf8'))
    writeFileSync(this.#flags, String(isUp ? flags | IFF_UP : flags & ~IFF_UP))
  }
}

function interfaceOf(name: string): number {
  try {
    return Number(readFileSync(`/sys/class/net/${name}/ifindex`, 'utf8'))
  } catch {
    return -1
  }
}

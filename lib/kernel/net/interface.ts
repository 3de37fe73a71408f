/** A network interface of this network namespace, and its link. */
import { P2pdmaError } from '../../errors.js'
import { System } from '../system.js'

/** include/uapi/linux/if.h */
const IFF_UP = 1

/** As dev_valid_name() has it (net/core/dev.c), and no path of anything else. */
const NAME = /^[^\s/:]{1,15}$/

export function isInterfaceName(name: string): boolean {
  return NAME.test(name) && name !== '.' && name !== '..'
}

export class NetInterface {
  readonly name: string
  /** Another interface of the same name has another one. */
  readonly index: number
  readonly #system: System

  private constructor(name: string, index: number, system: System) {
    this.name = name
    this.index = index
    this.#system = system
  }

  /** Null where this namespace has none of that name. */
  static find(name: string, system = new System()): NetInterface | null {
    if (!isInterfaceName(name)) return null
    const index = Number(system.read(`/sys/class/net/${name}/ifindex`) ?? 0)
    return index > 0 ? new NetInterface(name, index, system) : null
  }

  get #flags(): number {
    return Number(this.#system.read(`/sys/class/net/${this.name}/flags`) ?? 0)
  }

  /** What the administrator has it be; whether a cable is in it is another question. */
  get isUp(): boolean {
    return (this.#flags & IFF_UP) !== 0
  }

  /** net/core/net-sysfs.c, flags_store(): as `ip link set` does it. ENODEV where it is another by now. */
  set(isUp: boolean): void {
    if (NetInterface.find(this.name, this.#system)?.index !== this.index) {
      throw new P2pdmaError(`${this.name} is not the interface that it was`, { code: 'ENODEV' })
    }
    const flags = this.#flags
    const wanted = isUp ? flags | IFF_UP : flags & ~IFF_UP
    this.#system.writeSync(`/sys/class/net/${this.name}/flags`, String(wanted))
  }
}

/** What tells this process's network namespace from others; empty where it is not known. */
export function netNamespace(system = new System()): string {
  return system.link('/proc/self/ns/net') ?? ''
}

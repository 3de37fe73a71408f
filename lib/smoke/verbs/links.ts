/** Which network interface may be taken down, if any. */
import { accessSync, constants, readFileSync } from 'node:fs'
import type { LocalPort } from '../../engines/verbs/local-port.js'
import { P2pdmaError } from '../../errors.js'
import { NetInterface } from '../../kernel/net/interface.js'
import { usersOfRdmaDevice, usesOfInterface } from '../../kernel/net/use.js'

/** The interface under a device's port. */
export interface NetLink {
  port: LocalPort
  interface: NetInterface
}

/**
 * The first of the devices' links that may be taken down: one that was named, or where
 * none was, one that carries nothing beside RDMA; or why there is none.
 * ERR_INVALID_ARG_VALUE for a name that is under none of the devices.
 */
export async function chooseLink(
  ports: readonly LocalPort[],
  named: readonly string[],
): Promise<NetLink | string> {
  const found = ports.map((port) => ({ port, interface: interfaceOf(port) }))
  checkNamed(found, named)
  const reasons: string[] = []
  for (const { port, interface: each } of found) {
    if (typeof each === 'string') {
      reasons.push(each)
      continue
    }
    if (named.length > 0 && !named.includes(each.name)) continue
    const reason = mayNotSet(each) ?? (named.length > 0 ? null : await whyKept(each, port))
    if (reason === null) return { port, interface: each }
    reasons.push(reason)
  }
  return [...new Set(reasons)].join('; ')
}

function checkNamed(
  found: readonly { interface: NetInterface | string }[],
  named: readonly string[],
): void {
  const names = found.flatMap((each) =>
    typeof each.interface === 'string' ? [] : [each.interface.name],
  )
  const wrong = named.find((name) => !names.includes(name))
  if (wrong === undefined) return
  const what =
    NetInterface.find(wrong) === null ? 'no network interface here' : 'under none of them'
  throw new P2pdmaError(`--link ${wrong}: that is ${what}`, {
    code: 'ERR_INVALID_ARG_VALUE',
    argument: 'link',
    hint:
      names.length > 0
        ? `under the RDMA devices of this run: ${[...new Set(names)].join(', ')}`
        : 'no network interface is under the RDMA devices of this run',
  })
}

/** Or why there is none here. */
function interfaceOf({ device, portNum, gid }: LocalPort): NetInterface | string {
  const { index, interfaceIndex } = gid
  let name: string
  try {
    const path = `/sys/class/infiniband/${device.name}/ports/${portNum}/gid_attrs/ndevs/${index}`
    name = readFileSync(path, 'utf8').trim()
  } catch {
    return `${device.name} has no network interface: try it by the switch`
  }
  const found = NetInterface.find(name)
  if (found?.index === interfaceIndex) return found
  return `${name}, under ${device.name}, is in another network namespace: run it there`
}

function mayNotSet({ name }: NetInterface): string | null {
  try {
    accessSync(`/sys/class/net/${name}/flags`, constants.W_OK)
    return null
  } catch {
    return `${name} may not be taken down: run as root`
  }
}

/** What it carries beside our RDMA. */
async function whyKept({ name }: NetInterface, { device }: LocalPort): Promise<string | null> {
  const uses = [...usesOfInterface(name), ...(await usersOfRdmaDevice(device.name))]
  if (uses.length === 0) return null
  return `${name} carries more than RDMA (${uses.join(', ')}): --link ${name} takes it down all the same`
}

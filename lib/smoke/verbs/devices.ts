/** Which RDMA devices the run is about. */
import { existsSync } from 'node:fs'
import { LocalPort, type PortChoice } from '../../engines/verbs/local-port.js'
import { P2pdmaError } from '../../errors.js'
import { VerbsDevice, verbsDevices } from '../../kernel/verbs/index.js'
import { splitPort } from '../../kernel/verbs/port.js'
import { rigCommand } from '../environment.js'

const NAME = /^[\w.-]+(\/\d{1,3})?$/

/**
 * Two devices, by the names of their ports: the first sends what the second receives. `names`:
 * none, one, or two with a comma between; those that are missing are looked for among
 * the devices with such a port that is active and has such an address. One alone stands for both.
 * Throws ENODEV, ERR_PORT_DOWN or ERR_NO_GID for what was named, ERR_NO_DEVICE
 * where nothing is found, ERR_INVALID_ARG_VALUE for what is no name.
 */
export async function castVerbsDevices(
  names: string,
  choice: PortChoice,
): Promise<[string, string]> {
  const named = names === '' ? [] : names.split(',')
  if (named.length > 2 || named.some((name) => !NAME.test(name))) {
    throw new P2pdmaError('--engine verbs takes the names of one or two RDMA devices', {
      code: 'ERR_INVALID_ARG_VALUE',
      argument: 'engine',
      hint: 'as in verbs:mlx5_0, verbs:mlx5_0/2 for its second port, or verbs:rxe0,rxe1',
    })
  }
  // To ask libibverbs would have the kernel load ib_core, by its netlink family (netlink.c).
  if (!existsSync('/sys/class/infiniband')) throw noDevice([])
  const found: string[] = []
  for (const name of named) found.push(await usablePort(name, choice))
  const missing: unknown[] = []
  const known = named.map((name) => splitPort(name).device)
  for (const { name } of named.length === 2 ? [] : verbsDevices()) {
    if (known.includes(name)) continue
    try {
      found.push(await usablePort(name, choice))
    } catch (error) {
      missing.push(error)
    }
  }
  const [first, second = first] = found
  if (first === undefined || second === undefined) throw noDevice(missing)
  return [first, second]
}

/** The port's name, which is active and has an address. */
async function usablePort(name: string, choice: PortChoice): Promise<string> {
  const { device: named, portNum } = splitPort(name, choice.portNum)
  await using device = await VerbsDevice.open(named)
  return new LocalPort(device, { ...choice, portNum }).name
}

/** Which port and which GID it is, for who reads the report. */
export function describePort({ device, portNum, gid }: LocalPort): string {
  return `${device.name}: port ${portNum}, GID ${gid.index}, ${gid.gid} (${gid.type})`
}

function noDevice(missing: readonly unknown[]): P2pdmaError {
  const first = missing.find((error) => error instanceof P2pdmaError)
  const rig = `or in a virtual machine: ${rigCommand()} p2pdma smoke --engine verbs`
  return new P2pdmaError(first?.message ?? 'There is no RDMA device', {
    code: first?.code ?? 'ERR_NO_DEVICE',
    hint: `${first?.hint ?? '`rdma link add rxe0 type rxe netdev eth0` makes one of soft-RoCE'}; ${rig}`,
    ...(first !== undefined && { cause: first }),
  })
}

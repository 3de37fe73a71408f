/** Which RDMA devices the run is about. */
import { existsSync } from 'node:fs'
import { P2pdmaError } from '../../errors.js'
import { VerbsDevice, verbsDevices } from '../../kernel/verbs/index.js'
import { rigCommand } from '../environment.js'

const NAME = /^[\w.-]+$/

/**
 * Two devices, by name: the first sends what the second receives. `names`: none,
 * one, or two with a comma between; those that are missing are looked for among
 * the devices with an active port and an address. One alone stands for both.
 * Throws ENODEV, ERR_PORT_DOWN or ERR_NO_GID for what was named, ERR_NO_DEVICE
 * where nothing is found, ERR_INVALID_ARG_VALUE for what is no name.
 */
export async function castVerbsDevices(names: string): Promise<[string, string]> {
  const named = names === '' ? [] : names.split(',')
  if (named.length > 2 || named.some((name) => !NAME.test(name))) {
    throw new P2pdmaError('--engine verbs takes the names of one or two RDMA devices', {
      code: 'ERR_INVALID_ARG_VALUE',
      argument: 'engine',
      hint: 'as in verbs:mlx5_0 or verbs:rxe0,rxe1',
    })
  }
  // To ask libibverbs would have the kernel load ib_core, by its netlink family (netlink.c).
  if (!existsSync('/sys/class/infiniband')) throw noDevice([])
  for (const name of named) await checkUsable(name)
  const found: string[] = []
  const missing: unknown[] = []
  for (const { name } of named.length === 2 ? [] : verbsDevices()) {
    if (named.includes(name)) continue
    try {
      await checkUsable(name)
      found.push(name)
    } catch (error) {
      missing.push(error)
    }
  }
  const [first, second = first] = [...named, ...found]
  if (first === undefined || second === undefined) throw noDevice(missing)
  return [first, second]
}

/** Whether its first port is active and has an address. */
async function checkUsable(name: string): Promise<void> {
  await using device = await VerbsDevice.open(name)
  device.activePort()
  device.gid()
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

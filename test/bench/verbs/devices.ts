/** Which devices there are to measure with: the first two that can be used. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { P2pdmaError } from '../../../lib/errors.js'
import { VerbsDevice, verbsDevices } from '../../../lib/kernel/verbs/index.js'

export interface Device {
  name: string
  gidIndex: number
  /** Bytes. */
  mtu: number
}

/** The programs in C, and perftest, measure by this one; active, it is the engine's first choice. */
const PORT_NUM = 1

/** Here the figures are taken; at the far end another process sits. */
export interface Devices {
  near: Device
  far: Device
}

export async function findDevices(): Promise<Devices> {
  const found: Device[] = []
  for (const name of names()) {
    await using device = await VerbsDevice.open(name)
    try {
      const { activeMtu } = device.activePort(PORT_NUM)
      const gidIndex = device.gid({ portNum: PORT_NUM }).index
      found.push({ name, gidIndex, mtu: activeMtu })
    } catch {
      // Its port is down, or has no address.
    }
  }
  const [near, far] = found
  if (near === undefined || far === undefined) throw noDevices()
  return { near, far }
}

function names(): string[] {
  try {
    return verbsDevices().map(({ name }) => name)
  } catch (cause) {
    throw noDevices(cause)
  }
}

function noDevices(cause?: unknown): P2pdmaError {
  const rig = 'run it in the rig: npm run rig -- npm run bench -- --suite verbs'
  return new P2pdmaError('The suite verbs needs two RDMA devices that reach each other', {
    code: 'ENODEV',
    hint: `make them of soft-RoCE (\`rdma link add\`), or ${rig}`,
    cause,
  })
}

/** The path of one of perftest's programs. */
export function perftestProgram(name: string): string {
  for (const folder of (process.env['PATH'] ?? '').split(':')) {
    const path = join(folder, name)
    if (folder !== '' && existsSync(path)) return path
  }
  throw new P2pdmaError(`${name} not found`, {
    code: 'ENOENT',
    hint: 'sudo apt-get install --no-install-recommends perftest',
  })
}

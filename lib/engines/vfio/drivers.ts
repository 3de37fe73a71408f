/** The devices that there are drivers for. */
import { P2pdmaError } from '../../errors.js'
import type { VfioDevice } from '../../kernel/vfio/index.js'
import type { Driver } from './driver.js'
import { e1000e } from './e1000e/index.js'

export const drivers: readonly Driver[] = [e1000e]

/** ERR_UNSUPPORTED where there is none. */
export function driverOf(device: VfioDevice): Driver {
  const { vendorId, deviceId } = device
  const driver = drivers.find(({ ids }) => ids.includes(pciId(vendorId, deviceId)))
  if (driver !== undefined) return driver
  const id = `${hex(vendorId)}:${hex(deviceId)}`
  throw new P2pdmaError(`There is no driver for ${device.address} (${id})`, {
    code: 'ERR_UNSUPPORTED',
    hint: `there is one for ${drivers.map(({ name }) => name).join(', ')}`,
  })
}

export function pciId(vendor: number, device: number): number {
  return vendor * 0x10000 + device
}

function hex(value: number): string {
  return value.toString(16).padStart(4, '0')
}

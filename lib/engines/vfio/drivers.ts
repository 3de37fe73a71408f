/** The devices that there are drivers for, of this package and of others. */
import { checkArray, checkInteger, checkOptions, P2pdmaError } from '../../errors.js'
import type { VfioDevice } from '../../kernel/vfio/index.js'
import { Registry } from '../../registry.js'
import type { Driver } from './driver.js'
import { e1000e } from './e1000e/index.js'

/** Vendor and device, 16 bits each. */
const MAX_ID = 2 ** 32 - 1

export const drivers = new Registry<Driver>('driver', { ids: 'object', open: 'function' })

/**
 * Makes a driver known to `openEngine('vfio:...')`, for devices of its ids.
 * ERR_INTERFACE_VERSION where it was written for another version of the interface;
 * ERR_NAME_TAKEN where its name is in use, or one of its ids has a driver.
 */
export function registerDriver(driver: Driver): void {
  const { ids } = checkOptions(driver, 'driver')
  const all = checkArray('driver.ids', ids).map((id) => checkInteger('driver.ids', id, 0, MAX_ID))
  const taken = all.find((id) => driverFor(id) !== undefined)
  if (taken !== undefined) {
    throw new P2pdmaError(`${driverFor(taken)?.name} drives ${hex(taken, 8)}`, {
      code: 'ERR_NAME_TAKEN',
      argument: 'driver.ids',
      hint: 'a device has one driver',
    })
  }
  drivers.add(driver)
}

registerDriver(e1000e)

function driverFor(id: number): Driver | undefined {
  return drivers.all.find(({ ids }) => ids.includes(id))
}

/** ERR_UNSUPPORTED where there is none. */
export function driverOf(device: VfioDevice): Driver {
  const { vendorId, deviceId } = device
  const driver = driverFor(pciId(vendorId, deviceId))
  if (driver !== undefined) return driver
  const id = `${hex(vendorId, 4)}:${hex(deviceId, 4)}`
  throw new P2pdmaError(`There is no driver for ${device.address} (${id})`, {
    code: 'ERR_UNSUPPORTED',
    hint: `there is one for ${drivers.all.map(({ name }) => name).join(', ')}`,
  })
}

export function pciId(vendor: number, device: number): number {
  return vendor * 0x10000 + device
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0')
}

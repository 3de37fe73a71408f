/**
 * Takes PCI devices from their drivers for VFIO, and gives them back. Both ask
 * first whether somebody would miss them: the kernel does not.
 */
import { P2pdmaError, checkArray } from '../../errors.js'
import type { DriverChange } from '../undo/changes.js'
import type { UndoJournal } from '../undo/journal.js'
import { parseBdf } from './address.js'
import { findDevice, groupOf, isBridge, type PciDevice } from './device.js'
import { holdersOf } from './holders.js'
import type { PciSystem } from './system.js'
import { usersOf, usesOf } from './use.js'

export interface BindResult {
  /** `0000:00:11.0` */
  address: string
  /** The driver before and now; null: none. */
  from: string | null
  to: string | null
}

const VFIO = 'vfio-pci'

/** Drivers that leave the DMA of a group to its owner (driver_managed_dma); mlx5-vfio-pci too. */
function isHarmless(driver: string | null): boolean {
  return driver === null || ['pcieport', 'pci-stub'].includes(driver) || driver.endsWith(VFIO)
}

/** See `bindToVfio`. */
export async function bindDevices(
  addresses: string | readonly string[],
  system: PciSystem,
  journal: UndoJournal,
): Promise<BindResult[]> {
  const devices = parse(addresses).map((address) => findDevice(address, system))
  for (const device of devices) await check(system, device, devices)
  if (devices.some(({ driver }) => driver !== VFIO)) await loadModules(system)
  const changed = devices.filter(({ driver }) => driver !== VFIO)
  return together(devices, changed, journal, (device) => bind(system, device))
}

/** See `unbindFromVfio`. */
export async function unbindDevices(
  addresses: string | readonly string[],
  system: PciSystem,
  journal: UndoJournal,
): Promise<BindResult[]> {
  const devices = parse(addresses).map((address) => findDevice(address, system))
  for (const device of devices) await checkUnused(system, device)
  const changed = devices.filter(isVfios)
  return together(devices, changed, journal, (device) => unbind(system, device))
}

/** All of them or none: what has been done goes back where one fails, or we are killed before the end. */
async function together(
  devices: readonly PciDevice[],
  changed: readonly PciDevice[],
  journal: UndoJournal,
  change: (device: PciDevice) => Promise<BindResult>,
): Promise<BindResult[]> {
  const results: BindResult[] = []
  const noted: DriverChange[] = []
  try {
    for (const device of devices) {
      if (changed.includes(device)) {
        const { address, driver, driverOverride: override } = device
        const before: DriverChange = { kind: 'driver', address, driver, override }
        journal.note(before)
        noted.push(before)
      }
      results.push(await change(device))
    }
  } catch (error) {
    for (const before of noted.reverse()) putBack(journal, before)
    throw error
  }
  for (const before of noted) journal.forget(before)
  return results
}

/** What cannot be put back now stays noted for the next one; the reason for it all is another. */
function putBack(journal: UndoJournal, before: DriverChange): void {
  try {
    journal.undo(before)
  } catch {
    // See above.
  }
}

function parse(addresses: string | readonly string[]): string[] {
  const one = typeof addresses === 'string'
  const list = one
    ? [addresses]
    : checkArray('addresses', addresses, 'an address or a list of them')
  return [...new Set(list.map((address) => parseBdf(address as string, 'addresses')))]
}

async function check(
  system: PciSystem,
  device: PciDevice,
  named: readonly PciDevice[],
): Promise<void> {
  const { address, driver, iommuGroup } = device
  if (isBridge(device)) {
    throw new P2pdmaError(`${address} is a bridge, which vfio-pci does not take`, {
      code: 'ERR_UNSUPPORTED',
      argument: 'addresses',
    })
  }
  if (iommuGroup === null) {
    throw new P2pdmaError(`${address} has no IOMMU group: no IOMMU stands behind it`, {
      code: 'ERR_NO_IOMMU',
      hint: 'switch the IOMMU on: in the firmware (VT-d, AMD-Vi), and intel_iommu=on on the kernel command line',
    })
  }
  if (driver !== VFIO) {
    const [first, ...more] = [...usesOf(system, address), ...(await usersOf(system, address))]
    if (first !== undefined) {
      const what = [first, ...more].map((use) => use.what).join(', ')
      throw new P2pdmaError(`${address} (${driver ?? 'no driver'}) is in use: ${what}`, {
        code: 'EBUSY',
        argument: 'addresses',
        hint: first.hint,
      })
    }
  }
  checkGroup(system, address, iommuGroup, named)
}

function checkGroup(
  system: PciSystem,
  address: string,
  group: string,
  named: readonly PciDevice[],
): void {
  const others = groupOf(group, system).filter(
    (each) => !isHarmless(each.driver) && !named.some((device) => device.address === each.address),
  )
  if (others.length === 0) return
  const isIdle = others.every(
    (each) => !isBridge(each) && usesOf(system, each.address).length === 0,
  )
  const names = others.map((each) => {
    const uses = usesOf(system, each.address).map((use) => use.what)
    return `${each.address} (${[each.driver, ...uses].join(', ')})`
  })
  const all = [address, ...others.map((each) => each.address)].join(' ')
  throw new P2pdmaError(
    `${address} shares IOMMU group ${group} with ${names.join(' and ')}: VFIO takes a group as a whole`,
    {
      code: 'ERR_GROUP_NOT_VIABLE',
      argument: 'addresses',
      hint: isIdle
        ? `bind them all together: \`p2pdma bind ${all}\``
        : 'move the card to a slot with an IOMMU group of its own',
    },
  )
}

/** vfio_iommu_type1 is for the container; a kernel with iommufd may do without. */
async function loadModules(system: PciSystem): Promise<void> {
  if (!system.exists(`/sys/bus/pci/drivers/${VFIO}`)) {
    await load(system, VFIO)
    if (!system.exists(`/sys/bus/pci/drivers/${VFIO}`)) throw moduleError(VFIO, undefined)
  }
  if (system.exists('/sys/module/vfio_iommu_type1') || system.exists('/dev/iommu')) return
  await load(system, 'vfio_iommu_type1')
}

async function load(system: PciSystem, name: string): Promise<void> {
  try {
    await system.loadModule(name)
  } catch (error) {
    throw moduleError(name, error)
  }
}

function moduleError(name: string, cause: unknown): P2pdmaError {
  const why = cause instanceof Error ? `: ${cause.message}` : ''
  return new P2pdmaError(`The module ${name} could not be loaded${why}`, {
    code: 'ERR_MODULE',
    hint: `\`modprobe ${name}\` as root; the kernel's configuration needs CONFIG_VFIO_PCI`,
    cause,
  })
}

async function bind(system: PciSystem, device: PciDevice): Promise<BindResult> {
  const { address, driver } = device
  if (driver === VFIO) return { address, from: driver, to: driver }
  const override = system.device(address, 'driver_override')
  // First, so that nobody else takes it in between.
  await system.write(override, VFIO)
  let cause: unknown
  try {
    if (driver !== null) await system.write(`/sys/bus/pci/drivers/${driver}/unbind`, address)
    await system.write('/sys/bus/pci/drivers_probe', address)
  } catch (error) {
    cause = error
  }
  const to = findDevice(address, system).driver
  if (to === VFIO) return { address, from: driver, to }
  throw failed(address, `could not be bound to ${VFIO}`, cause)
}

async function checkUnused(system: PciSystem, device: PciDevice): Promise<void> {
  if (device.driver !== VFIO) return
  const holders = await holdersOf(system, device)
  if (holders.length === 0) return
  const names = holders.map(({ pid, program }) => `process ${pid} (${program})`)
  throw new P2pdmaError(`${device.address} is in use by ${names.join(', ')}`, {
    code: 'EBUSY',
    argument: 'addresses',
    hint: 'end it first: the kernel waits until the device is closed',
  })
}

function isVfios({ driver, driverOverride }: PciDevice): boolean {
  return driver === VFIO || driverOverride === VFIO
}

async function unbind(system: PciSystem, device: PciDevice): Promise<BindResult> {
  const { address, driver } = device
  if (!isVfios(device)) return { address, from: driver, to: driver }
  await system.write(system.device(address, 'driver_override'), '\n')
  if (driver === VFIO) await system.write(`/sys/bus/pci/drivers/${VFIO}/unbind`, address)
  // EINVAL and the like: the driver that was asked did not want it.
  await system.write('/sys/bus/pci/drivers_probe', address).catch(() => {})
  const to = findDevice(address, system).driver
  if (to !== VFIO) return { address, from: driver, to }
  throw failed(address, `went back to ${VFIO}, which claims it by its ids`, undefined)
}

function failed(address: string, what: string, cause: unknown): P2pdmaError {
  const why = cause instanceof Error ? `: ${cause.message}` : ''
  const { code, errno, syscall, hint } = (cause ?? {}) as Partial<P2pdmaError>
  return new P2pdmaError(`${address} ${what}${why}`, {
    code: code === 'EACCES' || code === 'EPERM' ? code : 'ERR_BIND_FAILED',
    errno,
    syscall,
    hint: hint ?? '`dmesg` has the reason',
    cause,
  })
}

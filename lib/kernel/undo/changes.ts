/** What can be changed, and how it is put back: one entry for each kind. */
import { P2pdmaError } from '../../errors.js'
import { isInterfaceName, NetInterface, netNamespace } from '../net/interface.js'
import { isNetConfig, type NetConfig, restoreNetConfig } from '../net/config.js'
import { parseBdf } from '../pci/address.js'
import { findDevice } from '../pci/device.js'
import type { PciSystem } from '../pci/system.js'

/** An interface that was up is taken down. */
export interface LinkChange {
  kind: 'link'
  name: string
  index: number
  /** Interfaces have their names in a network namespace. */
  namespace: string
  /** What goes with it. */
  config: NetConfig
}

/** A PCI device goes to another driver. */
export interface DriverChange {
  kind: 'driver'
  address: string
  /** Before; null: none. */
  driver: string | null
  /** `driver_override` before; null: none. */
  override: string | null
}

export type Change = LinkChange | DriverChange

interface Kind<C extends Change> {
  is: (change: C) => boolean
  describe: (change: C) => string
  /** Throws ENODEV where there is nothing left to put back. */
  undo: (change: C, system: PciSystem) => void
}

const KINDS: { [K in Change['kind']]: Kind<Extract<Change, { kind: K }>> } = {
  link: {
    is: ({ name, index, namespace, config }) =>
      isInterfaceName(name) &&
      Number.isSafeInteger(index) &&
      typeof namespace === 'string' &&
      isNetConfig(config),
    describe: ({ name }) => `the link of ${name} was taken down`,
    undo: undoLink,
  },
  driver: {
    is: ({ address, driver, override }) =>
      isAddress(address) && [driver, override].every((name) => name === null || isDriver(name)),
    describe: ({ address, driver }) => `${address} was taken from ${driver ?? 'no driver'}`,
    undo: undoDriver,
  },
}

function isAddress(text: string): boolean {
  try {
    return parseBdf(text) === text
  } catch {
    return false
  }
}

function isDriver(name: unknown): boolean {
  return typeof name === 'string' && /^[\w.+-]{1,64}$/.test(name)
}

function kindOf<C extends Change>(change: C): Kind<C> {
  return KINDS[change.kind] as unknown as Kind<C>
}

/** Of a file that somebody else has written. */
export function isChange(value: unknown): value is Change {
  if (typeof value !== 'object' || value === null) return false
  const change = value as Change
  return Object.hasOwn(KINDS, change.kind) && kindOf(change).is(change)
}

export function describeChange(change: Change): string {
  return kindOf(change).describe(change)
}

/** Puts it back, at once. ENODEV where it is gone. */
export function undoChange(change: Change, system: PciSystem): void {
  kindOf(change).undo(change, system)
}

function undoLink({ name, index, namespace, config }: LinkChange, system: PciSystem): void {
  if (netNamespace(system) !== namespace) {
    throw new P2pdmaError(`${name} is in another network namespace`, {
      code: 'ERR_INVALID_STATE',
      hint: 'run p2pdma there once: it puts it back',
    })
  }
  const found = NetInterface.find(name, system)
  if (found?.index !== index) {
    throw new P2pdmaError(`${name} is gone`, { code: 'ENODEV' })
  }
  found.set(true)
  restoreNetConfig(config)
}

function undoDriver({ address, driver, override }: DriverChange, system: PciSystem): void {
  const now = findDevice(address, system).driver
  system.writeSync(system.device(address, 'driver_override'), `${override ?? ''}\n`)
  if (now === driver) return
  if (now !== null) system.writeSync(`/sys/bus/pci/drivers/${now}/unbind`, address)
  if (driver === null) return
  // Not by drivers_probe: that gives it to nobody where its own driver is not the first.
  system.writeSync(`/sys/bus/pci/drivers/${driver}/bind`, address)
}

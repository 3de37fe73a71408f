import type { P2pdmaError } from '../../errors.js'
import type { Engine } from './engine.js'
import { AttachmentIds } from './ids.js'
import { type DeviceLoss, trace } from '../trace.js'
import { Users } from './users.js'

/** Of all importers of one engine: it knows an attachment by its id alone, whoever names it. */
export interface Shared<A = unknown, I = LosesDevice, C = unknown> {
  readonly ids: AttachmentIds<A>
  readonly importers: Set<I>
  readonly users: Users<C>
}

/** What is asked of an importer whose device is no more. */
interface LosesDevice {
  fail(error: Error, isOutOfReach: boolean): void
}

const sharedBy = new WeakMap<Engine, Shared>()

export function sharedOf(engine: Engine): Shared {
  let shared = sharedBy.get(engine)
  if (shared === undefined) {
    shared = { ids: new AttachmentIds(), importers: new Set(), users: new Users() }
    sharedBy.set(engine, shared)
  }
  return shared
}

/**
 * `engine` passes everything on to `behind`: their importers are importers of one engine,
 * which knows no attachment of the one from one of the other, and loses both.
 */
export function standsFor(engine: Engine, behind: Engine): void {
  sharedBy.set(engine, sharedOf(behind))
}

/** Whether the one is the other, or stands for it. Before an importer was made of either: not. */
export function isSameDevice(one: unknown, other: Engine): boolean {
  const shared = sharedBy.get(one as Engine)
  return shared !== undefined && shared === sharedBy.get(other)
}

/**
 * For an engine whose device is no more (`deviceLostError`): each of its importers fails
 * with this one error, and with them all that is in flight and all that waits.
 * `isOutOfReach`: the device is known to touch no memory any more; otherwise what it had
 * mapped is quarantined.
 */
export function loseDevice(engine: Engine, error: P2pdmaError, isOutOfReach: boolean): void {
  if (trace.device.hasSubscribers) {
    const message: DeviceLoss = { engine: engine.name, error, isOutOfReach, at: performance.now() }
    trace.device.publish(message)
  }
  for (const importer of [...sharedOf(engine).importers]) importer.fail(error, isOutOfReach)
}

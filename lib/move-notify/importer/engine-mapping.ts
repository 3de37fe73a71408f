/** An importer's calls of its engine's map() and unmap(), timed where somebody listens. */
import { P2pdmaError } from '../../errors.js'
import type { Backing } from '../exporter/backing.js'
import { withDeadline } from '../reservation/deadline.js'
import { trace, type MappingChange } from '../trace.js'
import type { Engine } from './engine.js'
import type { ImporterLimits } from './limits.js'

type Done = void | Promise<void>

/** What is needed of the importer, and of the attachment. */
interface Owner {
  readonly engine: Engine
  readonly name: string
  readonly limits: ImporterLimits
  fail(error: Error): void
}

interface Mapped {
  readonly id: number
  readonly access: number
  readonly buffer: { readonly size: number; readonly backing: Backing }
}

export function engineMap({ engine, name }: Owner, { id, buffer, access }: Mapped): Done {
  if (!trace.mapping.hasSubscribers) return engine.map(id, buffer.backing, buffer.size, access)
  return timed(name, id, 'map', () => engine.map(id, buffer.backing, buffer.size, access))
}

/** Takes a mapping away; a device that cannot do so in time has failed. */
export function engineUnmap(owner: Owner, id: number): Promise<void> | undefined {
  let unmapped: Done
  try {
    unmapped = trace.mapping.hasSubscribers
      ? timed(owner.name, id, 'unmap', () => owner.engine.unmap(id))
      : owner.engine.unmap(id)
  } catch (error) {
    unmapped = Promise.reject(error)
  }
  if (unmapped === undefined) return undefined
  const { stopTimeoutMs } = owner.limits
  const late = () =>
    new P2pdmaError(`a mapping was not taken away within ${stopTimeoutMs} ms`, {
      code: 'ETIMEDOUT',
      hint: 'reset the device; its memory is quarantined',
    })
  return withDeadline(unmapped, stopTimeoutMs, late).catch((error: unknown) => {
    owner.fail(error as Error)
    throw error
  })
}

function timed(
  importer: string,
  attachment: number,
  change: MappingChange['change'],
  call: () => Done,
): Done {
  const start = performance.now()
  const publish = (error: Error | null) => {
    const at = performance.now()
    const message: MappingChange = { importer, attachment, change, at, ms: at - start, error }
    trace.mapping.publish(message)
  }
  let done: Done
  try {
    done = call()
  } catch (error) {
    publish(error as Error)
    throw error
  }
  if (done === undefined) publish(null)
  else done.then(() => publish(null), publish)
  return done
}

/** The importer's calls of its engine's map() and unmap(), timed where somebody listens. */
import type { Attachment } from './attachment.js'
import type { Importer } from './importer.js'
import { trace, type MappingChange } from '../trace.js'

type Done = void | Promise<void>

export function engineMap({ engine, name }: Importer, attachment: Attachment): Done {
  const { id, buffer, access } = attachment
  if (!trace.mapping.hasSubscribers) return engine.map(id, buffer.backing, buffer.size, access)
  return timed(name, id, 'map', () => engine.map(id, buffer.backing, buffer.size, access))
}

export function engineUnmap({ engine, name }: Importer, id: number): Done {
  if (!trace.mapping.hasSubscribers) return engine.unmap(id)
  return timed(name, id, 'unmap', () => engine.unmap(id))
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

import type { Engine } from './engine.js'
import { AttachmentIds } from './ids.js'
import type { Importer } from './importer.js'
import type { AnyAttachment } from './remote-attachment.js'

/** Of all importers of one engine: it knows an attachment by its id alone, whoever names it. */
export interface Shared {
  readonly ids: AttachmentIds<AnyAttachment>
  readonly importers: Set<Importer>
}

const sharedBy = new WeakMap<Engine, Shared>()

export function sharedOf(engine: Engine): Shared {
  let shared = sharedBy.get(engine)
  if (shared === undefined) {
    shared = { ids: new AttachmentIds(), importers: new Set() }
    sharedBy.set(engine, shared)
  }
  return shared
}

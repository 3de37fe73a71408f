/** The devices by the name that `--engine` spells. */
import { P2pdmaError } from '../errors.js'
import { openEngine, SoftwareEngine } from '../engines/index.js'
import { Op } from '../move-notify/importer/batch.js'
import type { SmokeOptions } from './options.js'
import type { Placement } from './pair.js'
import type { Plant } from './plant.js'
import { CopyPlant, SoftwarePlant } from './software-plant.js'
import { openPeerPlant } from './verbs/peer-plant.js'
import { openVerbsPlant } from './verbs/plant.js'
import { openVfioPlant } from './vfio/plant.js'

/** `verbs` and `mlx5_0` of `verbs:mlx5_0`; empty for engines of no devices. */
function split(engine: string): { family: string; names: string } {
  const [, family = '', names = ''] = /^(vfio|verbs)(?::(.*))?$/.exec(engine) ?? []
  return { family, names }
}

/** Throws ERR_INVALID_ARG_VALUE for options that do not go together. Looks at nothing else. */
export function checkEngineOptions(options: SmokeOptions): void {
  const { engine, inject } = options
  const { family } = split(engine)
  if (family !== 'vfio' && (options.witness || options.memory !== null)) {
    throw misplaced('--memory and --witness are', options.witness ? 'witness' : 'memory', 'vfio')
  }
  if (family !== 'verbs' && options.peer !== null) throw misplaced('--peer is', 'peer', 'verbs')
  if (family !== 'verbs' && options.portNum !== null) {
    throw misplaced('--port-num is', 'port-num', 'verbs')
  }
  if (family !== 'verbs' && options.gidIndex !== null) {
    throw misplaced('--gid-index is', 'gid-index', 'verbs')
  }
  if ((family !== 'verbs' || options.peer !== null) && options.links.length > 0) {
    throw misplaced('--link is', 'link', 'verbs, with both ends here,')
  }
  if (options.links.length > 0 && !options.disruptive.includes('link')) {
    throw new P2pdmaError('--link names what --disruptive=link may take down, which is not given', {
      code: 'ERR_INVALID_ARG_VALUE',
      argument: 'link',
    })
  }
  if (engine !== 'software' && inject !== null) {
    throw new P2pdmaError('Faults can be made on purpose in the engine software only', {
      code: 'ERR_INVALID_ARG_VALUE',
      argument: 'inject',
    })
  }
}

/**
 * Opens what the scenarios run on; `system` is where the options have the
 * buffers. Rejects with a typed error for what is not there.
 */
export async function openPlant(options: SmokeOptions, system: Placement): Promise<Plant> {
  const { engine } = options
  const { family, names } = split(engine)
  if (family === 'vfio') return openVfioPlant(names, options, system)
  if (family === 'verbs') {
    return options.peer === null
      ? openVerbsPlant(names, options, system)
      : openPeerPlant(names, options, system)
  }
  // Whatever else there is to say of a name.
  const opened = await openEngine(engine)
  if (opened instanceof SoftwareEngine) return new SoftwarePlant(opened)
  if (opened.capabilities.operations.some(({ op, withPeer }) => op === Op.COPY && !withPeer)) {
    return new CopyPlant(opened)
  }
  await opened.close()
  throw new P2pdmaError(`The smoke test cannot run on ${engine}`, { code: 'ERR_UNSUPPORTED' })
}

function misplaced(what: string, argument: string, engine: string): P2pdmaError {
  return new P2pdmaError(`${what} for the engine ${engine}`, {
    code: 'ERR_INVALID_ARG_VALUE',
    argument,
  })
}

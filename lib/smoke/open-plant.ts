/** The devices by the name that `--engine` spells. */
import { P2pdmaError } from '../errors.js'
import { type SoftwareEngine, openEngine } from '../engines/index.js'
import type { SmokeOptions } from './options.js'
import type { Placement } from './pair.js'
import type { Plant } from './plant.js'
import { SoftwarePlant } from './software-plant.js'
import { openVfioPlant } from './vfio/plant.js'

/**
 * Opens what the scenarios run on; `system` is where the options have the
 * buffers. Rejects with a typed error for what is not there.
 */
export async function openPlant(options: SmokeOptions, system: Placement): Promise<Plant> {
  const { engine, inject } = options
  const vfio = /^vfio(?::(.*))?$/.exec(engine)
  if (vfio === null) {
    if (options.witness || options.memory !== null) {
      throw new P2pdmaError('--memory and --witness are for the engine vfio', {
        code: 'ERR_INVALID_ARG_VALUE',
        argument: options.witness ? 'witness' : 'memory',
      })
    }
    // Whatever else there is to say of a name.
    const software = await openEngine(engine)
    if (engine === 'software') return new SoftwarePlant(software as SoftwareEngine)
    await software.close()
    throw new P2pdmaError(`The smoke test cannot run on ${engine}`, { code: 'ERR_UNSUPPORTED' })
  }
  if (inject !== null) {
    throw new P2pdmaError('Faults can be made on purpose in the engine software only', {
      code: 'ERR_INVALID_ARG_VALUE',
      argument: 'inject',
    })
  }
  return openVfioPlant(vfio[1] ?? '', options, system)
}

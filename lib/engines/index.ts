/** Engines by the name that `--engine` spells. */
import { P2pdmaError, typeError } from '../errors.js'
import { SoftwareEngine } from './software/engine.js'
import { VfioEngine } from './vfio/engine.js'

/** Families that design.md plans and this version lacks. */
const planned: readonly string[] = ['verbs', 'cuda']

/**
 * Opens an engine: `software`, the embedded one, or `vfio:0000:03:00.0`, a PCI
 * device that is bound to vfio-pci. ERR_UNSUPPORTED for a family
 * that this version lacks, ERR_INVALID_ARG_VALUE for any other name.
 */
export function openEngine(name: 'software'): Promise<SoftwareEngine>
export function openEngine(name: `vfio:${string}`): Promise<VfioEngine>
export function openEngine(name: string): Promise<SoftwareEngine | VfioEngine>
export async function openEngine(name: string): Promise<SoftwareEngine | VfioEngine> {
  await Promise.resolve()
  if (typeof name !== 'string') throw typeError('name', 'a string', name)
  if (name === 'software') return new SoftwareEngine()
  if (name.startsWith('vfio:')) return VfioEngine.open(name.slice('vfio:'.length))
  const family = name.split(':', 1)[0] ?? ''
  if (planned.includes(family)) {
    throw new P2pdmaError(`The engine ${family} is not in this version`, {
      code: 'ERR_UNSUPPORTED',
      argument: 'name',
      hint: 'use the engine software',
    })
  }
  throw new P2pdmaError(
    `No engine is named ${JSON.stringify(name)}; there are: software, vfio:ADDRESS`,
    {
      code: 'ERR_INVALID_ARG_VALUE',
      argument: 'name',
    },
  )
}

export { SoftwareEngine, VfioEngine }

/** Engines by the name that `--engine` spells. */
import { checkOptions, P2pdmaError, typeError } from '../errors.js'
import { SoftwareEngine } from './software/engine.js'
import { VerbsEngine, type VerbsEngineOptions } from './verbs/engine.js'
import { VfioEngine } from './vfio/engine.js'

/** Families that design.md plans and this version lacks. */
const planned: readonly string[] = ['cuda']

/**
 * Opens an engine: `software`, the embedded one; `vfio:0000:03:00.0`, a PCI
 * device that is bound to vfio-pci; or `verbs:mlx5_0`, an RDMA device by its first active port,
 * `verbs:mlx5_0/2` by its second port. `options`: of an RDMA device only. ERR_UNSUPPORTED for a
 * family that this version lacks, ERR_INVALID_ARG_VALUE for any other name.
 */
export function openEngine(name: 'software'): Promise<SoftwareEngine>
export function openEngine(name: `vfio:${string}`): Promise<VfioEngine>
export function openEngine(
  name: `verbs:${string}`,
  options?: VerbsEngineOptions,
): Promise<VerbsEngine>
export function openEngine(
  name: string,
  options?: VerbsEngineOptions,
): Promise<SoftwareEngine | VfioEngine | VerbsEngine>
export async function openEngine(
  name: string,
  options: VerbsEngineOptions = {},
): Promise<SoftwareEngine | VfioEngine | VerbsEngine> {
  await Promise.resolve()
  if (typeof name !== 'string') throw typeError('name', 'a string', name)
  checkOptions(options)
  if (name.startsWith('verbs:')) return VerbsEngine.open(name.slice('verbs:'.length), options)
  if (Object.keys(options).length > 0) {
    throw new P2pdmaError(`${Object.keys(options).join(', ')}: options are for verbs only`, {
      code: 'ERR_INVALID_ARG_VALUE',
      argument: 'options',
    })
  }
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
    `No engine is named ${JSON.stringify(name)}; there are: software, vfio:ADDRESS, verbs:DEVICE[/PORT]`,
    {
      code: 'ERR_INVALID_ARG_VALUE',
      argument: 'name',
    },
  )
}

export { SoftwareEngine, VerbsEngine, VfioEngine }

/** Engines by the name that `--engine` spells. */
import { checkOptions, P2pdmaError, typeError } from '../errors.js'
import { engines, type OpenedEngine, registerEngine } from './registry.js'
import { SoftwareEngine } from './software/engine.js'
import { VerbsEngine, type VerbsEngineOptions } from './verbs/engine.js'
import { VfioEngine } from './vfio/engine.js'

registerEngine({
  interfaceVersion: 1,
  name: 'software',
  spelling: 'software',
  open: (parameter) => Promise.resolve(parameter === null ? new SoftwareEngine() : null),
})

registerEngine({
  interfaceVersion: 1,
  name: 'vfio',
  spelling: 'vfio:ADDRESS',
  open: async (address) => (address === null ? null : VfioEngine.open(address)),
})

registerEngine({
  interfaceVersion: 1,
  name: 'verbs',
  spelling: 'verbs:DEVICE[/PORT]',
  takesOptions: true,
  open: async (device, options) => (device === null ? null : VerbsEngine.open(device, options)),
})

/** Families that design.md plans and this version lacks. */
const planned: readonly string[] = ['cuda']

/**
 * Opens an engine: `software`, the embedded one; `vfio:0000:03:00.0`, a PCI
 * device that is bound to vfio-pci; `verbs:mlx5_0`, an RDMA device by its first active port,
 * `verbs:mlx5_0/2` by its second port; or one that `registerEngine()` has made known.
 * `options`: of those that take some, of ours an RDMA device only. ERR_UNSUPPORTED for a
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
  options?: object,
): Promise<SoftwareEngine | VfioEngine | VerbsEngine | OpenedEngine>
export async function openEngine(
  name: string,
  options: object = {},
): Promise<SoftwareEngine | VfioEngine | VerbsEngine | OpenedEngine> {
  await Promise.resolve()
  if (typeof name !== 'string') throw typeError('name', 'a string', name)
  checkOptions(options)
  const found = engines.find(name)
  if (found?.one.takesOptions !== true && Object.keys(options).length > 0) {
    const takers = engines.all.filter(({ takesOptions }) => takesOptions === true)
    const names = takers.map((each) => each.name).join(', ')
    throw new P2pdmaError(`${Object.keys(options).join(', ')}: options are for ${names} only`, {
      code: 'ERR_INVALID_ARG_VALUE',
      argument: 'options',
    })
  }
  const opened = (await found?.one.open(found.parameter, options)) ?? null
  if (opened !== null) return opened
  const family = name.split(':', 1)[0] ?? ''
  if (planned.includes(family)) {
    throw new P2pdmaError(`The engine ${family} is not in this version`, {
      code: 'ERR_UNSUPPORTED',
      argument: 'name',
      hint: 'use the engine software',
    })
  }
  const spellings = engines.all.map(({ spelling }) => spelling).join(', ')
  throw new P2pdmaError(`No engine is named ${JSON.stringify(name)}; there are: ${spellings}`, {
    code: 'ERR_INVALID_ARG_VALUE',
    argument: 'name',
  })
}

export { SoftwareEngine, VerbsEngine, VfioEngine }

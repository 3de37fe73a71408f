/** Engines by the name that `--engine` spells. */
import { P2pdmaError, typeError } from '../errors.js'
import { SoftwareEngine } from './software/engine.js'

/** Families that design.md plans and this version lacks. */
const planned: readonly string[] = ['verbs', 'vfio', 'cuda']

/**
 * Opens an engine: `software`, the embedded one. ERR_UNSUPPORTED for a family
 * that this version lacks, ERR_INVALID_ARG_VALUE for any other name.
 */
export function openEngine(name: 'software'): Promise<SoftwareEngine>
export function openEngine(name: string): Promise<SoftwareEngine>
export async function openEngine(name: string): Promise<SoftwareEngine> {
  await Promise.resolve()
  if (typeof name !== 'string') throw typeError('name', 'a string', name)
  if (name === 'software') return new SoftwareEngine()
  const family = name.split(':', 1)[0] ?? ''
  if (planned.includes(family)) {
    throw new P2pdmaError(`The engine ${family} is not in this version`, {
      code: 'ERR_UNSUPPORTED',
      argument: 'name',
      hint: 'use the engine software',
    })
  }
  throw new P2pdmaError(`No engine is named ${JSON.stringify(name)}; there is: software`, {
    code: 'ERR_INVALID_ARG_VALUE',
    argument: 'name',
  })
}

export { SoftwareEngine }

/** Whether the exporters that a run was told to use can be used here. */
import { P2pdmaError } from '../errors.js'
import { exporterByName } from '../exporters/index.js'
import type { Exporter } from '../move-notify/exporter/backing.js'
import { rigCommand } from './environment.js'
import { describe } from './tally.js'

export interface CheckedExporter {
  /** As `--from` and `--to` spell it. */
  readonly name: string
  /** Null where there is no such memory to be named. */
  readonly exporter: Exporter | null
  /** Whether its memory is dma-bufs, as far as was tried. */
  readonly isDmaBuf: boolean
  /** Whether the CPU has it mapped, as far as was tried. */
  readonly isMapped: boolean
  /** Why it cannot be used; null where it can. */
  readonly error: P2pdmaError | null
}

/** ERR_INVALID_ARG_VALUE for what is no exporter's name. */
export function findExporter(name: string): CheckedExporter {
  try {
    return { name, exporter: exporterByName(name), isDmaBuf: false, isMapped: true, error: null }
  } catch (error) {
    if (!(error instanceof P2pdmaError) || error.code === 'ERR_INVALID_ARG_VALUE') throw error
    return { name, exporter: null, isDmaBuf: false, isMapped: true, error: unusable(name, error) }
  }
}

/** Opens it, which is the only way to know. */
export async function tryExporter(found: CheckedExporter): Promise<CheckedExporter> {
  const { name, exporter } = found
  if (exporter === null) return found
  try {
    const backing = await exporter.allocate(1)
    const { isDmaBuf, mapping } = backing
    await backing.free()
    return { ...found, isDmaBuf, isMapped: mapping !== null }
  } catch (cause) {
    return { ...found, error: unusable(name, cause) }
  }
}

function unusable(name: string, cause: unknown): P2pdmaError {
  return new P2pdmaError(`exporter ${name} cannot be used: ${describe(cause)}`, {
    code: (cause as P2pdmaError).code ?? 'ERR_UNSUPPORTED',
    hint: `or a kernel that has it, in a virtual machine: ${rigCommand()} p2pdma smoke ...`,
    cause,
  })
}

/** The first lines: what is real, what is embedded, and what would make more of it real. */
import { availableExporters } from '../exporters/index.js'
import { describeAxes } from './axes.js'
import { type Environment, rigCommand } from './environment.js'
import type { CheckedExporter } from './exporter-check.js'
import type { SmokeOptions } from './options.js'
import type { Plant } from './plant.js'

export function preface(
  options: SmokeOptions,
  environment: Environment,
  checked: readonly CheckedExporter[],
  plant: Pick<Plant, 'facts' | 'axes'> | null,
): string[] {
  const { kernel, arch, cpus, hypervisor, node, version } = environment
  const machine = hypervisor ? 'a virtual machine' : 'a machine'
  const lines = [
    `p2pdma smoke ${version}: Linux ${kernel} ${arch} on ${machine} with ${cpus} CPUs, node ${node}`,
    ...(plant?.facts ?? [`engine ${options.engine}: not opened`]),
    ...checked.map(describeExporter),
  ]
  for (const axes of plant?.axes ?? []) lines.push(describeAxes(axes))
  const used = new Set(checked.flatMap(({ name, exporter }) => [name, exporter?.placement]))
  const statuses = availableExporters()
  for (const { placement, available, hint } of statuses) {
    if (used.has(placement)) continue
    lines.push(
      available
        ? `not used: ${placement}, which is here: --from ${placement} or --to ${placement}`
        : `not here: ${placement}; ${hint ?? 'this kernel lacks it'}`,
    )
  }
  if (statuses.some(({ kind, available }) => kind === 'kernel' && !available)) {
    lines.push(
      `a kernel with the exporters, in a virtual machine: ${rigCommand()} p2pdma smoke --from udmabuf --to heap:system`,
    )
  }
  return lines
}

/** What will be done. */
export function describeRun(options: SmokeOptions, { aimMs }: Pick<Plant, 'aimMs'>): string[] {
  const { buffers, size, seed, inject } = options
  const lines = [
    `${describeGoal(options)}; ${buffers} pairs of buffers of ${size} bytes; seed ${seed}`,
    `a move waits up to ${aimMs} ms for work in flight on its buffer: how many met some says what was tested, not how often a random move would`,
  ]
  if (inject !== null) lines.push(`one operation will be broken on purpose: ${inject}`)
  return lines
}

/** Real is what could be opened. */
function describeExporter(checked: CheckedExporter): string {
  const { name, exporter, error, isDmaBuf, isMapped } = checked
  if (error !== null) return error.message
  const plain = isMapped ? 'embedded, plain shared memory' : 'embedded, memory'
  const what = exporter?.kind === 'embedded' ? plain : 'real, memory'
  return `exporter ${exporter?.placement ?? name}: ${
    isDmaBuf ? 'real, dma-bufs of this kernel' : `${what} and no dma-buf`
  }${isMapped ? '' : '; the CPU has not mapped it: stamps, looks and poison are copied there and back'}`
}

function describeGoal({ moves, seconds, bytes }: SmokeOptions): string {
  const parts: string[] = []
  if (moves !== null) parts.push(`${moves} moves`)
  if (bytes > 0) parts.push(`at least ${bytes} distinct bytes verified`)
  if (seconds !== null) parts.push(`${seconds} s at most`)
  return parts.join(', ')
}

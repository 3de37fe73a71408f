/** The first lines: what is real, what is embedded, and what would make more of it real. */
import { availableExporters } from '../exporters/index.js'
import type { Exporter } from '../move-notify/backing.js'
import { describeAxes } from './axes.js'
import { type Environment, rigCommand } from './environment.js'
import type { SmokeOptions } from './options.js'
import type { Plant } from './plant.js'

export function preface(
  options: SmokeOptions,
  environment: Environment,
  exporters: readonly Exporter[],
  plant: Pick<Plant, 'facts' | 'axes' | 'aimMs'>,
): string[] {
  const { kernel, arch, cpus, hypervisor, node, version } = environment
  const machine = hypervisor ? 'a virtual machine' : 'a machine'
  const lines = [
    `p2pdma smoke ${version}: Linux ${kernel} ${arch} on ${machine} with ${cpus} CPUs, node ${node}`,
    ...plant.facts,
  ]
  for (const { placement, kind } of exporters) {
    lines.push(
      kind === 'kernel'
        ? `exporter ${placement}: real, dma-bufs of this kernel`
        : `exporter ${placement}: embedded, plain shared memory and no dma-buf`,
    )
  }
  for (const axes of plant.axes ?? []) lines.push(describeAxes(axes))
  const used = new Set(exporters.map(({ placement }) => placement))
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
  lines.push(
    `${describeGoal(options)}; ${options.buffers} pairs of buffers of ${options.size} bytes; seed ${options.seed}`,
  )
  lines.push(
    `a move waits up to ${plant.aimMs} ms for work in flight on its buffer: how many met some says what was tested, not how often a random move would`,
  )
  if (options.inject !== null)
    lines.push(`one operation will be broken on purpose: ${options.inject}`)
  return lines
}

function describeGoal({ moves, seconds, bytes }: SmokeOptions): string {
  const parts: string[] = []
  if (moves !== null) parts.push(`${moves} moves`)
  if (bytes > 0) parts.push(`at least ${bytes} distinct bytes verified`)
  if (seconds !== null) parts.push(`${seconds} s at most`)
  return parts.join(', ')
}

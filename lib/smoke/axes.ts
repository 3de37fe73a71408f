/** How each device takes each exporter's memory: the two things that decide what a move is. */

export interface DeviceAxes {
  device: string
  /** As `--from` and `--to` spell it. */
  exporter: string
  /**
   * How the device registers it: by its dma-buf, as plain memory (the CPU's
   * mapping of it), or not at all.
   */
  registration: 'dma-buf' | 'memory' | 'none'
  /**
   * Who can move it while it is registered: we, by deregistering; the kernel by
   * itself, which the device follows; or nobody, since somebody has pinned it.
   */
  mover: 'us' | 'kernel' | 'nobody'
  /** Why it is not registered by its dma-buf; null where it is. */
  reason: string | null
  /** What `mover` was decided by. */
  decidedBy: string
}

/** One line for a reader. */
export function describeAxes(axes: DeviceAxes): string {
  const { device, exporter, registration, mover, reason, decidedBy } = axes
  const why = reason === null ? '' : ` (${reason})`
  return `${exporter} on ${device}: registration ${registration}${why}; mover ${mover}, decided by: ${decidedBy}`
}

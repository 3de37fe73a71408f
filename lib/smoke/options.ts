/** What `p2pdma smoke` can be told, and what holds where it is not. */

/** What `--inject` breaks on purpose. */
export const FAULTS = ['lost', 'doubled', 'torn', 'stray'] as const
export type FaultName = (typeof FAULTS)[number]

export interface SmokeOptions {
  /**
   * `software`, `vfio` or `vfio:SENDER,RECEIVER`, `verbs` or `verbs:DEVICE` or `verbs:DEVICE,DEVICE`,
   * as `openEngine()` spells them but for the second device.
   */
  engine: string
  /** Who runs `p2pdma serve`, as HOST or HOST:PORT; null: both ends are here. */
  peer: string | null
  /** The PCI device whose memory is used beside the system's; null: one is looked for. */
  memory: string | null
  /** Where the buffers are made; as `exporterByName()` spells it. */
  from: string
  /** Where they move to, in turn; `from` has its turn too. */
  to: string[]
  /** Bytes of each buffer. */
  size: number
  /** Pairs of a source and a target. */
  buffers: number
  /** Ends the run after so many moves; null: as many as `seconds` allow. */
  moves: number | null
  /** Ends the run after so many seconds; null: no such bound. */
  seconds: number | null
  /** Distinct stamped bytes to verify at least, unless the time is over before. */
  bytes: number
  /** Only the scenario in which the IOMMU is the witness. */
  witness: boolean
  /** Makes the order of blocks and moves repeatable. */
  seed: number
  /** A fault to make on purpose. */
  inject: FaultName | null
}

const DEFAULT_MOVES = 200
const DEFAULT_BYTES = 2 ** 30

/** What the numbers may be. A buffer's size is a multiple of 4096. */
export const LIMITS = {
  size: { min: 1 << 16, max: 2 ** 40, multipleOf: 4096 },
  buffers: { min: 1, max: 1024 },
  moves: { min: 1, max: 1_000_000_000 },
  seconds: { min: 1, max: 86_400 },
  seed: { min: 0, max: 2 ** 32 - 1 },
} as const

/**
 * Fills in the rest. Without `moves` and `seconds` the run is the default one:
 * 200 moves, and, in software, 1 GiB verified.
 */
export function withDefaults(given: Partial<SmokeOptions>): SmokeOptions {
  const unbounded = (given.moves ?? null) === null && (given.seconds ?? null) === null
  const engine = given.engine ?? 'software'
  const isReal = ['vfio', 'verbs'].includes(engine.split(':', 1)[0] ?? '')
  return {
    engine,
    peer: given.peer ?? null,
    memory: given.memory ?? null,
    from: given.from ?? 'memfd',
    to: given.to ?? ['memfd'],
    size: given.size ?? (isReal ? 1 << 19 : 4 << 20),
    buffers: given.buffers ?? 2,
    moves: unbounded ? DEFAULT_MOVES : (given.moves ?? null),
    seconds: given.seconds ?? null,
    bytes: given.bytes ?? (unbounded && !isReal ? DEFAULT_BYTES : 0),
    witness: given.witness ?? false,
    seed: given.seed ?? Math.floor(Math.random() * 2 ** 32),
    inject: given.inject ?? null,
  }
}

/** The placements that a buffer passes through, in turn. */
export function rotation(options: Pick<SmokeOptions, 'from' | 'to'>): string[] {
  const all = options.to.includes(options.from) ? options.to : [...options.to, options.from]
  return [...new Set(all)]
}

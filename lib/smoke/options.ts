/** What `p2pdma smoke` can be told, and what holds where it is not. */
import { P2pdmaError } from '../errors.js'
import { pageSize } from '../page-size.js'
import type { Effect } from './effects.js'

/** What `--inject` breaks on purpose. */
export const FAULTS = ['lost', 'doubled', 'torn', 'stray'] as const
export type FaultName = (typeof FAULTS)[number]

export interface SmokeOptions {
  /**
   * `software`, `vfio` or `vfio:SENDER,RECEIVER`, `verbs` or `verbs:DEVICE` or `verbs:DEVICE,DEVICE`
   * (a DEVICE may be `mlx5_0/2`, for a port), as `openEngine()` spells them but for the second device.
   */
  engine: string
  /** Who runs `p2pdma serve`, as HOST or HOST:PORT; null: both ends are here. */
  peer: string | null
  /** Which port of the RDMA devices; null: the first that is active, or the one in `engine`. */
  portNum: number | null
  /** Which entry of a port's GID table; null: as `VerbsDevice.gid()` chooses. */
  gidIndex: number | null
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
  /** What it may do to others; nothing unless told. */
  disruptive: readonly Effect[]
  /** Interfaces that may be taken down whatever they carry. */
  links: readonly string[]
  /** Bytes that the process may have, its buffers included; null: as many as there are. */
  maxMemory: number | null
  /** 10^9 bits per second that its devices may move; null: as many as they can. */
  maxGbps: number | null
  /** What all of it was derived from; null: the single options. */
  profile: ProfileName | null
}

/** Where `p2pdma serve` listens, and `--peer` connects, without a port. */
export const PORT = 18515

/** Bounds that go together. */
export const PROFILES = {
  /** For a host on which others work, before a job. */
  host: { seconds: 60, maxMemory: 256 << 20 },
} as const

export type ProfileName = keyof typeof PROFILES

const DEFAULT_MOVES = 200
const DEFAULT_BYTES = 2 ** 30

/** Of a buffer, where a page has so many bytes; blocks and load want room for themselves. */
export function sizeLimits(page: number) {
  return { min: Math.max(1 << 16, page), max: 2 ** 40, multipleOf: page }
}

/** What the numbers may be. */
export const LIMITS = {
  size: sizeLimits(pageSize),
  buffers: { min: 1, max: 1024 },
  moves: { min: 1, max: 1_000_000_000 },
  /** 0: no bound; so with those that follow. */
  seconds: { min: 0, max: 86_400 },
  maxMemory: { min: 0, max: 2 ** 50 },
  maxGbps: { min: 0, max: 100_000 },
  portNum: { min: 1, max: 255 },
  gidIndex: { min: 0, max: 255 },
  seed: { min: 0, max: 2 ** 32 - 1 },
} as const

/**
 * Fills in the rest. Without `moves` and `seconds` the run is the default one:
 * 200 moves, and, in software, 1 GiB verified. ERR_INVALID_ARG_VALUE for what a
 * profile rules out.
 */
export function withDefaults(given: Partial<SmokeOptions>): SmokeOptions {
  const profile = given.profile ?? null
  const { seconds, maxMemory } = profile === null ? withoutProfile(given) : within(profile, given)
  const unbounded = (given.moves ?? null) === null && (seconds === null || profile !== null)
  const engine = given.engine ?? 'software'
  const isReal = ['vfio', 'verbs'].includes(engine.split(':', 1)[0] ?? '')
  return {
    engine,
    peer: given.peer ?? null,
    portNum: given.portNum ?? null,
    gidIndex: given.gidIndex ?? null,
    memory: given.memory ?? null,
    from: given.from ?? 'memfd',
    to: given.to ?? ['memfd'],
    size: given.size ?? (isReal ? 1 << 19 : 4 << 20),
    buffers: given.buffers ?? 2,
    moves: unbounded ? DEFAULT_MOVES : (given.moves ?? null),
    seconds,
    bytes: given.bytes ?? (unbounded && profile === null && !isReal ? DEFAULT_BYTES : 0),
    witness: given.witness ?? false,
    seed: given.seed ?? Math.floor(Math.random() * 2 ** 32),
    inject: given.inject ?? null,
    // Whoever names the witness asks for what it does.
    disruptive: [
      ...(given.disruptive ?? []),
      ...(given.witness === true ? ['fault' as const] : []),
    ],
    links: given.links ?? [],
    maxMemory,
    maxGbps: bound(given.maxGbps),
    profile,
  }
}

/** As `openEngine()` has it. */
export function portChoice({ portNum, gidIndex }: Pick<SmokeOptions, 'portNum' | 'gidIndex'>) {
  return { portNum: portNum ?? undefined, gidIndex: gidIndex ?? undefined }
}

/** 0 says that there is none. */
function bound(value: number | null | undefined): number | null {
  return value === undefined || value === 0 ? null : value
}

function withoutProfile(given: Partial<SmokeOptions>): Pick<SmokeOptions, 'seconds' | 'maxMemory'> {
  return { seconds: bound(given.seconds), maxMemory: bound(given.maxMemory) }
}

/** Less than the profile has is fine; more, and what is disruptive, contradicts it. */
function within(
  profile: ProfileName,
  given: Partial<SmokeOptions>,
): Pick<SmokeOptions, 'seconds' | 'maxMemory'> {
  const bounds = PROFILES[profile]
  const { seconds = bounds.seconds, maxMemory = bounds.maxMemory } = given
  const wrong = {
    disruptive: (given.disruptive ?? []).length > 0,
    link: (given.links ?? []).length > 0,
    witness: given.witness === true,
    seconds: (bound(seconds) ?? Infinity) > bounds.seconds,
    'max-memory': (bound(maxMemory) ?? Infinity) > bounds.maxMemory,
  }
  const argument = Object.entries(wrong).find(([, isWrong]) => isWrong)?.[0]
  if (argument === undefined) return { seconds, maxMemory }
  const { seconds: s, maxMemory: bytes } = bounds
  throw new P2pdmaError(
    `--${argument} contradicts --profile ${profile}: ${s} s and ${bytes >> 20} MiB at most, nothing disruptive`,
    { code: 'ERR_INVALID_ARG_VALUE', argument },
  )
}

/** The placements that a buffer passes through, in turn. */
export function rotation(options: Pick<SmokeOptions, 'from' | 'to'>): string[] {
  const all = options.to.includes(options.from) ? options.to : [...options.to, options.from]
  return [...new Set(all)]
}

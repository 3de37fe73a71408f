/**
 * How a NIC registers a backing, and who can move it then: the two axes that
 * are found out and reported, for each exporter and device.
 */
import { P2pdmaError } from '../../errors.js'
import { DmaBuf } from '../../kernel/dma-buf.js'
import { Mapping } from '../../kernel/mapping.js'
import { Memfd } from '../../kernel/memfd.js'
import { Udmabuf } from '../../kernel/udmabuf.js'
import {
  MemoryAccess,
  type MemoryRegion,
  type ProtectionDomain,
  type VerbsDevice,
} from '../../kernel/verbs/index.js'
import type { Backing } from '../../move-notify/exporter/backing.js'
import { Access } from '../../move-notify/importer/engine.js'
import { native } from '../../native.js'
import { exporterMoves, type Fact, nicFollows, whoMoves } from './move-facts.js'
import type { Trial } from './move-trial.js'

/**
 * `dma-buf`: as a dma-buf. `memory`: by a CPU mapping of its pages. `none`: not
 * at all; `reason` says why.
 */
export type Registration = 'dma-buf' | 'memory' | 'none'

/**
 * Who can move it while it is registered. `us`: by deregistering, which is always
 * possible. `kernel`: its exporter does so by itself, and the NIC follows; the
 * library has nothing to do. `nobody`: somebody else has pinned it, and a move
 * answers EBUSY.
 */
export type Mover = 'us' | 'kernel' | 'nobody'

export interface Axes {
  registration: Registration
  mover: Mover
  /** Why not as a dma-buf; null where it is. */
  reason: string | null
  /** What `mover` was decided by: a fact of the kernel's sources, a pin, or an experiment. */
  decidedBy: string
}

interface Request {
  size: number
  iova: number
  access: number
}

/** What peers, and we, may do with a region. */
export function remoteAccess(access: number): number {
  const read = (access & Access.READ) !== 0 ? MemoryAccess.REMOTE_READ : 0
  const write =
    (access & Access.WRITE) !== 0
      ? MemoryAccess.LOCAL_WRITE | MemoryAccess.REMOTE_WRITE | MemoryAccess.REMOTE_ATOMIC
      : 0
  return read | write
}

export class Registrar {
  /** Why the device does not register dma-bufs, by the probe; null where it does. */
  readonly refusal: string | null
  readonly #device: string
  /** Whether the device follows a dma-buf that moves. */
  #follows: Fact

  private constructor(device: VerbsDevice, refusal: string | null) {
    this.refusal = refusal
    this.#device = device.name
    this.#follows = nicFollows(device)
  }

  /**
   * Registers one page of a udmabuf: neither the kernel's version nor its
   * configuration tells whether the device's driver and library can.
   */
  static async probe(domain: ProtectionDomain): Promise<Registrar> {
    try {
      using memfd = Memfd.create(native.pageSize, { name: 'p2pdma-probe' })
      await using dmaBuf = await Udmabuf.create(memfd, 0, native.pageSize)
      const region = await domain.registerDmabuf(dmaBuf)
      await region.close()
      return new Registrar(domain.device, null)
    } catch (error) {
      return new Registrar(domain.device, (error as Error).message)
    }
  }

  axes(backing: Backing): Axes {
    const reason = backing.isDmaBuf ? this.refusal : 'it is no dma-buf'
    if (reason === null) {
      const decided = whoMoves(exporterMoves(backing), this.#follows)
      return { registration: 'dma-buf', reason, ...decided }
    }
    const registration = pinnable(backing) === null ? 'none' : 'memory'
    return { registration, mover: 'us', reason, decidedBy: BY_REGISTRATION[registration] }
  }

  /** What an experiment with a backing has shown: of the backing, and of the device from now on. */
  learn(backing: Backing, trial: Trial): Axes {
    if (trial === 'pinned') {
      const decidedBy = 'an attempt to move it: EBUSY, before we had registered it'
      return { ...this.axes(backing), mover: 'nobody', decidedBy }
    }
    const { holds, why } = OUTCOMES[trial]
    this.#follows = { holds, why: `an attempt to move a registered page: ${this.#device} ${why}` }
    const mover = holds === true ? 'kernel' : 'us'
    return { ...this.axes(backing), mover, decidedBy: this.#follows.why }
  }

  /** Why the device does not register a backing in any way; null where it does. */
  refusalOf(backing: Backing): string | null {
    const isDmaBuf = backing.isDmaBuf && this.refusal === null
    if (isDmaBuf || pinnable(backing) !== null) return null
    return `dma-bufs: ${this.refusal ?? 'yes'}; memory: it has no pages that can be pinned`
  }

  register(domain: ProtectionDomain, backing: Backing, request: Request): Promise<MemoryRegion> {
    const options = optionsOf(backing, request)
    if (backing.isDmaBuf && this.refusal === null) {
      const dmaBuf = DmaBuf.ofDuplicate(backing.fd)
      // The region outlives its descriptor.
      return domain.registerDmabuf(dmaBuf, options).finally(() => dmaBuf.close())
    }
    return domain.register(this.#mapping(backing), options)
  }

  registerNow(domain: ProtectionDomain, backing: Backing, request: Request): MemoryRegion {
    const options = optionsOf(backing, request)
    if (backing.isDmaBuf && this.refusal === null) {
      using dmaBuf = DmaBuf.ofDuplicate(backing.fd)
      return domain.registerDmabufNow(dmaBuf, options)
    }
    return domain.registerNow(this.#mapping(backing), options)
  }

  #mapping(backing: Backing): Mapping {
    const mapping = pinnable(backing)
    if (mapping !== null) return mapping
    throw new P2pdmaError(`The NIC cannot be given a backing in ${backing.placement}`, {
      code: 'ERR_UNSUPPORTED',
      argument: 'backing',
      hint: this.refusalOf(backing) ?? undefined,
    })
  }
}

const BY_REGISTRATION = {
  memory: 'what is registered by its pages is pinned, by us alone: umem.c, ib_umem_get',
  none: 'it is not registered',
} as const

const OUTCOMES: Readonly<Record<Exclude<Trial, 'pinned'>, Fact>> = {
  held: { holds: false, why: 'pins what it registers, EBUSY' },
  followed: { holds: true, why: 'read it where it was then' },
  lost: { holds: false, why: 'lost it' },
  unseen: { holds: null, why: 'let it go, and cannot connect to itself to look for it' },
}

/** A mapping whose pages can be pinned: a udmabuf's memfd, not its own mapping; no BAR. */
function pinnable(backing: Backing): Mapping | null {
  const mapping = backing.dmaMapping === undefined ? backing.mapping : backing.dmaMapping
  return mapping instanceof Mapping && !mapping.isDevice ? mapping : null
}

function optionsOf({ offset }: Backing, { size, iova, access }: Request) {
  return { offset, length: size, iova, access }
}

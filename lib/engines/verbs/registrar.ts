/**
 * How a NIC registers a backing, and who can move it then: the two axes that
 * are found out and reported, for each exporter and device.
 */
import { P2pdmaError } from '../../errors.js'
import { DmaBuf } from '../../kernel/dma-buf.js'
import { Mapping } from '../../kernel/mapping.js'
import { Memfd } from '../../kernel/memfd.js'
import { Udmabuf } from '../../kernel/udmabuf.js'
import { MemoryAccess, type MemoryRegion, type ProtectionDomain } from '../../kernel/verbs/index.js'
import type { Backing } from '../../move-notify/backing.js'
import { Access } from '../../move-notify/engine.js'
import { native } from '../../native.js'

/**
 * `dma-buf`: as a dma-buf. `memory`: by a CPU mapping of its pages. `none`: not
 * at all; `reason` says why.
 */
export type Registration = 'dma-buf' | 'memory' | 'none'

/**
 * `us`: by deregistering. `kernel`: it moves under the registration, and the NIC
 * follows. `nobody`: somebody has pinned it.
 */
export type Mover = 'us' | 'kernel' | 'nobody'

export interface Axes {
  registration: Registration
  mover: Mover
  /** Why not as a dma-buf; null where it is. */
  reason: string | null
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

  private constructor(refusal: string | null) {
    this.refusal = refusal
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
      return new Registrar(null)
    } catch (error) {
      return new Registrar((error as Error).message)
    }
  }

  axes(backing: Backing): Axes {
    const reason = backing.isDmaBuf ? this.refusal : 'it is no dma-buf'
    if (reason === null) return { registration: 'dma-buf', mover: 'us', reason }
    const registration = pinnable(backing) === null ? 'none' : 'memory'
    return { registration, mover: 'us', reason }
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
      hint: `dma-bufs: ${this.refusal ?? 'yes'}; memory: it has no pages that can be pinned`,
    })
  }
}

/** A mapping whose pages can be pinned: a udmabuf's memfd, not its own mapping; no BAR. */
function pinnable(backing: Backing): Mapping | null {
  const mapping = backing.dmaMapping === undefined ? backing.mapping : backing.dmaMapping
  return mapping instanceof Mapping && !mapping.isDevice ? mapping : null
}

function optionsOf({ offset }: Backing, { size, iova, access }: Request) {
  return { offset, length: size, iova, access }
}

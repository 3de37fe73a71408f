/**
 * What operations may name, by attachment id: regions of ours, and the peers'
 * buffers that we hold keys to. Each registration has addresses that no other
 * had before: keys are used again by the device, addresses never.
 */
import { MappingState } from '../../abi.js'
import { P2pdmaError, checkInteger, typeError } from '../../errors.js'
import { roundUp } from '../../kernel/memfd.js'
import { MemoryAccess, type MemoryRegion, type ProtectionDomain } from '../../kernel/verbs/index.js'
import type { Backing } from '../../move-notify/exporter/backing.js'
import { Access } from '../../move-notify/importer/engine.js'
import { native } from '../../native.js'
import { RegionTable } from './region-table.js'
import { type Registrar, remoteAccess } from './registrar.js'

/** Registered and deregistered on the event loop up to here, bytes: a hop to a thread costs more. */
const SHORT = 64 << 10

/** What the device itself may do with an attachment: reading needs no leave. */
function localAccess(access: number): number {
  return (access & Access.WRITE) === 0 ? 0 : MemoryAccess.LOCAL_WRITE
}

/** Far from addresses that the CPU has, and below 2^53. */
const FIRST_IOVA = 2 ** 48
const LAST_IOVA = 2 ** 52

/** One registration for peers: what it lets them do is the NIC's to guard. */
interface Share {
  readonly access: number
  /** How many grants it is for. */
  users: number
  /** Null while the attachment is not mapped, or this is being registered. */
  mr: MemoryRegion | null
  /** Under way. */
  pending: Promise<void> | null
}

/** An attachment of ours. */
interface Region {
  /** Bytes. */
  size: number
  /** Counts the times that it was mapped. */
  generation: number
  /** Null while it is not mapped, and so are those below. */
  mr: MemoryRegion | null
  backing: Backing | null
  /** By access. */
  readonly shares: Map<number, Share>
  /** Of shares that have ended: they could not be deregistered, so that peers may reach them. */
  readonly stuck: Set<MemoryRegion>
}

/** What a peer is told of an attachment of ours. */
export interface SharedKey extends RemoteKey {
  /** Bytes. */
  size: number
  generation: number
}

export class Regions {
  readonly #domain: ProtectionDomain
  readonly #registrar: Registrar
  readonly #regions = new Map<number, Region>()
  /** What rows are resolved in. */
  readonly table = new RegionTable()
  #nextIova = FIRST_IOVA
  /** Whether deregistering may have to wait for the device: since something was forced. */
  isUnquiet = false

  constructor(domain: ProtectionDomain, registrar: Registrar) {
    this.#domain = domain
    this.#registrar = registrar
  }

  /** Peers reach none of it: what is shared with them is registered for them. */
  map(id: number, backing: Backing, size: number, access: number): void | Promise<void> {
    checkInteger('id', id, 0, 2 ** 32 - 1)
    checkInteger('access', access, 1, Access.READ | Access.WRITE)
    if (typeof backing !== 'object' || backing === null) {
      throw typeError('backing', 'a Backing', backing)
    }
    checkInteger('size', size, 1, backing.size)
    const before = this.#regions.get(id)
    if (before !== undefined && before.mr !== null) {
      throw new P2pdmaError(`attachment ${id} is mapped`, { code: 'ERR_INVALID_STATE' })
    }
    const shares = before?.shares ?? new Map<number, Share>()
    const wanted = [...shares.values()].filter(({ users }) => users > 0)
    const rights = [localAccess(access), ...wanted.map((share) => remoteAccess(share.access))]
    const done = (mrs: MemoryRegion[]) => {
      const [mr, ...shared] = mrs
      if (mr === undefined) return
      wanted.forEach((share, i) => (share.mr = shared[i] ?? null))
      const generation = (before?.generation ?? 0) + 1
      const stuck = before?.stuck ?? new Set<MemoryRegion>()
      this.#regions.set(id, { size, generation, mr, backing, shares, stuck })
      const { iova, lkey: key } = mr
      this.table.put(id, { access, size, iova, key, queue: 0 }, MappingState.SEALED)
    }
    if (size <= SHORT) return done(this.#registerAllNow(backing, size, rights))
    return this.#registerAll(backing, size, rights).then(done)
  }

  /** All or none. */
  #registerAllNow(backing: Backing, size: number, rights: number[]): MemoryRegion[] {
    const made: MemoryRegion[] = []
    try {
      for (const access of rights) {
        const request = this.#request(backing, size, access)
        made.push(this.#registrar.registerNow(this.#domain, backing, request))
      }
      return made
    } catch (error) {
      // What was wrong first is told.
      deregisterAllNow(made)
      throw error
    }
  }

  async #registerAll(backing: Backing, size: number, rights: number[]): Promise<MemoryRegion[]> {
    const results = await Promise.allSettled(
      rights.map((access) => this.#register(backing, size, access)),
    )
    const made = results.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []))
    const failed = results.find((each) => each.status === 'rejected')
    if (failed === undefined) return made
    await Promise.allSettled(made.map((mr) => mr.close()))
    throw failed.reason
  }

  async #register(backing: Backing, size: number, access: number): Promise<MemoryRegion> {
    const request = this.#request(backing, size, access)
    return this.#registrar.register(this.#domain, backing, request)
  }

  #request(backing: Backing, size: number, access: number) {
    return { size, iova: this.#newIova(size) + (backing.offset % native.pageSize), access }
  }

  #newIova(size: number): number {
    const { pageSize } = native
    const iova = this.#nextIova
    // One page stays between any two.
    this.#nextIova += roundUp(size, pageSize) + 2 * pageSize
    if (this.#nextIova > LAST_IOVA) {
      throw new P2pdmaError('Every address that regions can have has been used', {
        code: 'ENOSPC',
        hint: 'open the engine again',
      })
    }
    return iova
  }

  seal(id: number): void {
    this.table.seal(id)
  }

  unseal(id: number): void {
    this.table.unseal(id)
  }

  unmap(id: number): void | Promise<void> {
    const region = this.#regions.get(id)
    if (region === undefined || region.mr === null) return
    this.table.setState(id, MappingState.NONE)
    const mrs = [region.mr]
    region.mr = null
    region.backing = null
    const pending: Promise<void>[] = []
    for (const share of region.shares.values()) {
      if (share.mr !== null) mrs.push(share.mr)
      if (share.pending !== null) pending.push(share.pending.catch(() => {}))
      share.mr = null
    }
    // One that is being registered sees that it is too late, and goes.
    if (region.size > SHORT || this.isUnquiet || pending.length > 0) {
      const closed = [...pending, ...mrs.map((mr) => mr.close())]
      return Promise.all(closed).then(() => this.#unstick(region))
    }
    const failure = deregisterAllNow(mrs)
    if (failure !== null) throw failure.error
    if (region.stuck.size > 0) return this.#unstick(region)
  }

  async #unstick({ stuck }: Region): Promise<void> {
    for (const mr of stuck) {
      await mr.close()
      stuck.delete(mr)
    }
  }

  release(id: number): void {
    if (this.#regions.get(id)?.mr === null) this.#regions.delete(id)
  }

  // --- for peers ---

  /** Registers a mapped attachment once more, for peers; undefined: it is done already. */
  share(id: number, access: number): Promise<void> | undefined {
    const region = this.#regions.get(id)
    if (region === undefined || region.backing === null) {
      throw new P2pdmaError(`attachment ${id} is not mapped`, { code: 'ERR_INVALID_STATE' })
    }
    const { backing, size, shares } = region
    const share = shares.get(access) ?? { access, users: 0, mr: null, pending: null }
    if (share.mr === null && size <= SHORT) {
      share.mr = this.#registerAllNow(backing, size, [remoteAccess(access)])[0] ?? null
    } else if (share.mr === null && share.users === 0) {
      this.#keep(share, this.#shareLater(id, region, share))
    }
    shares.set(access, share)
    share.users++
    return share.mr === null && share.pending !== null ? share.pending : undefined
  }

  async #shareLater(id: number, region: Region, share: Share): Promise<void> {
    // The one before is going still, perhaps.
    await share.pending
    const { backing, size } = region
    // Another, that was under way when it was asked for, has done it.
    if (backing === null || share.mr !== null) return
    const mr = await this.#register(backing, size, remoteAccess(share.access))
    const isNow = this.#regions.get(id) === region && region.backing === backing
    if (isNow && share.users > 0) share.mr = mr
    else await mr.close()
  }

  /** What is under way for a share: an unmap waits for it. */
  #keep(share: Share, pending: Promise<void>): void {
    const kept = pending.finally(() => {
      if (share.pending === kept) share.pending = null
    })
    // Whoever waits for it is told.
    kept.catch(() => {})
    share.pending = kept
  }

  /** Once for each `share()`; with the last one its key is dead. */
  unshare(id: number, access: number): void {
    const region = this.#regions.get(id)
    const share = region?.shares.get(access)
    if (region === undefined || share === undefined) return
    if (--share.users > 0 || share.mr === null) return
    const { mr } = share
    share.mr = null
    // The attachment's unmap tries again, and fails by it.
    const stick = () => void region.stuck.add(mr)
    if (mr.length > SHORT || this.isUnquiet) this.#keep(share, mr.close().catch(stick))
    else if (deregisterAllNow([mr]) !== null) stick()
  }

  /** Null while there is none. */
  sharedKey(id: number, access: number): SharedKey | null {
    const region = this.#regions.get(id)
    const mr = region?.shares.get(access)?.mr ?? null
    if (region === undefined || mr === null) return null
    return { iova: mr.iova, rkey: mr.rkey, size: region.size, generation: region.generation }
  }

  /** Whether the attachment is mapped. */
  isMapped(id: number): boolean {
    return (this.#regions.get(id)?.mr ?? null) !== null
  }

  /** A peer's buffer, with the key that it gave us; `queue`: the number of the queue pair. */
  setRemote(id: number, queue: number, size: number, access: number, key: RemoteKey): void {
    this.table.put(id, { access, size, iova: key.iova, key: key.rkey, queue }, MappingState.OPEN)
  }

  updateRemote(id: number, { iova, rkey }: RemoteKey): void {
    if (this.table.isRemote(id)) this.table.setKey(id, iova, rkey)
  }

  /** Undefined for an id that is no peer's. */
  remoteKey(id: number): RemoteKey | undefined {
    return this.table.isRemote(id) ? this.table.keyOf(id) : undefined
  }

  dropRemote(id: number): void {
    if (this.table.isRemote(id)) this.table.setState(id, MappingState.NONE)
  }
}

/** All of them, also where one cannot be: the first reason, or null. */
function deregisterAllNow(mrs: readonly MemoryRegion[]): { error: unknown } | null {
  let failure: { error: unknown } | null = null
  for (const mr of mrs) {
    try {
      mr.deregisterNow()
    } catch (error) {
      failure ??= { error }
    }
  }
  return failure
}

export interface RemoteKey {
  iova: number
  rkey: number
}

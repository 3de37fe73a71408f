/**
 * What operations may name, by attachment id: regions of ours, and the peers'
 * buffers that we hold keys to. Each registration has addresses that no other
 * had before: keys are used again by the device, addresses never.
 */
import { P2pdmaError, checkInteger, typeError } from '../../errors.js'
import { roundUp } from '../../kernel/memfd.js'
import type { MemoryRegion, ProtectionDomain } from '../../kernel/verbs/index.js'
import type { Backing } from '../../move-notify/backing.js'
import { Access } from '../../move-notify/engine.js'
import { native } from '../../native.js'
import { Reach, RegionTable } from './region-table.js'
import { type Registrar, remoteAccess } from './registrar.js'

/** Registered and deregistered on the event loop up to here, bytes: a hop to a thread costs more. */
const SHORT = 64 << 10

/** Far from addresses that the CPU has, and below 2^53. */
const FIRST_IOVA = 2 ** 48
const LAST_IOVA = 2 ** 52

/** A region of ours: what it is for peers. */
export interface Region {
  /** Bytes. */
  size: number
  iova: number
  rkey: number
  /** Counts the registrations. */
  generation: number
  /** Null while it is not mapped. */
  mr: MemoryRegion | null
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

  /** Undefined for an id that is none of ours. */
  get(id: number): Region | undefined {
    return this.#regions.get(id)
  }

  map(id: number, backing: Backing, size: number, access: number): void | Promise<void> {
    checkInteger('id', id, 0, 2 ** 32 - 1)
    checkInteger('access', access, 1, Access.READ | Access.WRITE)
    if (typeof backing !== 'object' || backing === null) {
      throw typeError('backing', 'a Backing', backing)
    }
    checkInteger('size', size, 1, backing.size)
    const before = this.#regions.get(id)
    if (before?.mr !== null && before !== undefined) {
      throw new P2pdmaError(`attachment ${id} is mapped`, { code: 'ERR_INVALID_STATE' })
    }
    const iova = this.#newIova(size) + (backing.offset % native.pageSize)
    const done = (mr: MemoryRegion) => {
      const generation = (before?.generation ?? 0) + 1
      this.#regions.set(id, { size, iova, rkey: mr.rkey, generation, mr })
      this.table.put(id, { access, size, iova, key: mr.lkey, queue: 0 }, Reach.SEALED)
    }
    const request = { size, iova, access: remoteAccess(access) }
    if (size <= SHORT) return done(this.#registrar.registerNow(this.#domain, backing, request))
    return this.#registrar.register(this.#domain, backing, request).then(done)
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
    if (this.table.reachOf(id) === Reach.OPEN) this.table.setReach(id, Reach.SEALED)
  }

  unseal(id: number): void {
    if (this.table.reachOf(id) === Reach.SEALED) this.table.setReach(id, Reach.OPEN)
  }

  unmap(id: number): void | Promise<void> {
    const region = this.#regions.get(id)
    if (region?.mr === undefined || region.mr === null) return
    const { mr } = region
    this.table.setReach(id, Reach.NONE)
    region.mr = null
    if (mr.length <= SHORT && !this.isUnquiet) mr.deregisterNow()
    else return mr.close()
  }

  release(id: number): void {
    if (this.#regions.get(id)?.mr === null) this.#regions.delete(id)
  }

  /** A peer's buffer, with the key that it gave us; `queue`: the number of the queue pair. */
  setRemote(id: number, queue: number, size: number, access: number, key: RemoteKey): void {
    this.table.put(id, { access, size, iova: key.iova, key: key.rkey, queue }, Reach.OPEN)
  }

  updateRemote(id: number, { iova, rkey }: RemoteKey): void {
    if (this.table.isRemote(id)) this.table.setKey(id, iova, rkey)
  }

  /** Undefined for an id that is no peer's. */
  remoteKey(id: number): RemoteKey | undefined {
    return this.table.isRemote(id) ? this.table.keyOf(id) : undefined
  }

  dropRemote(id: number): void {
    if (this.table.isRemote(id)) this.table.setReach(id, Reach.NONE)
  }
}

export interface RemoteKey {
  iova: number
  rkey: number
}

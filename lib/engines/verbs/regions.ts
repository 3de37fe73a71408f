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
import { type Registrar, remoteAccess } from './registrar.js'

/** Registered and deregistered on the event loop up to here, bytes: a hop to a thread costs more. */
const SHORT = 64 << 10

/** Far from addresses that the CPU has, and below 2^53. */
const FIRST_IOVA = 2 ** 48
const LAST_IOVA = 2 ** 52

/** Where work may go: nowhere, for work accepted before, or for new work too. */
export const Reach = { NONE: 0, SEALED: 1, OPEN: 2 } as const

/** What an id stands for. */
export interface Region {
  readonly id: number
  /** Where a peer's buffer may be used; null: it is one of ours. */
  readonly queue: object | null
  reach: number
  /** `Access` bits. */
  access: number
  /** Bytes. */
  size: number
  iova: number
  /** lkey of ours, rkey of a peer's. */
  key: number
  /** Of ours: what peers are given. */
  rkey: number
  /** Counts the registrations. */
  generation: number
  mr: MemoryRegion | null
}

export class Regions {
  readonly #domain: ProtectionDomain
  readonly #registrar: Registrar
  readonly #regions = new Map<number, Region>()
  #nextIova = FIRST_IOVA
  /** Whether deregistering may have to wait for the device: since something was forced. */
  isUnquiet = false

  constructor(domain: ProtectionDomain, registrar: Registrar) {
    this.#domain = domain
    this.#registrar = registrar
  }

  /** Undefined for an id that stands for nothing. */
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
      const region: Region = before ?? {
        id,
        queue: null,
        reach: Reach.NONE,
        access,
        size,
        iova,
        key: 0,
        rkey: 0,
        generation: 0,
        mr: null,
      }
      Object.assign(region, { access, size, iova, key: mr.lkey, rkey: mr.rkey, mr })
      region.generation++
      region.reach = Reach.SEALED
      this.#regions.set(id, region)
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
    const region = this.#regions.get(id)
    if (region?.reach === Reach.OPEN) region.reach = Reach.SEALED
  }

  unseal(id: number): void {
    const region = this.#regions.get(id)
    if (region?.reach === Reach.SEALED) region.reach = Reach.OPEN
  }

  unmap(id: number): void | Promise<void> {
    const region = this.#regions.get(id)
    if (region?.mr === undefined || region.mr === null) return
    const { mr } = region
    region.reach = Reach.NONE
    region.mr = null
    if (mr.length <= SHORT && !this.isUnquiet) mr.deregisterNow()
    else return mr.close()
  }

  release(id: number): void {
    if (this.#regions.get(id)?.mr === null) this.#regions.delete(id)
  }

  /** A peer's buffer, with the key that it gave us. */
  setRemote(id: number, queue: object, size: number, access: number, key: RemoteKey): void {
    const region = { id, queue, reach: Reach.OPEN, access, size, rkey: 0, mr: null }
    const { iova, rkey, generation } = key
    this.#regions.set(id, { ...region, iova, key: rkey, generation })
  }

  updateRemote(id: number, { iova, rkey, generation }: RemoteKey): void {
    const region = this.#regions.get(id)
    if (region !== undefined && region.queue !== null)
      Object.assign(region, { iova, key: rkey, generation })
  }

  dropRemote(id: number): void {
    if (this.#regions.get(id)?.queue !== null) this.#regions.delete(id)
  }
}

export interface RemoteKey {
  iova: number
  rkey: number
  generation: number
}

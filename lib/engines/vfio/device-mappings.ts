/**
 * The attachments' mappings in the device's IOMMU space. Each keeps its IOVA
 * from one mapping to the next, until it is released.
 */
import { MappingState } from '../../abi.js'
import { P2pdmaError, checkInteger, typeError } from '../../errors.js'
import { Mapping } from '../../kernel/mapping.js'
import { roundUp } from '../../kernel/memfd.js'
import type { IommuSpace } from '../../kernel/vfio/index.js'
import type { Backing } from '../../move-notify/exporter/backing.js'
import { Slice } from '../../move-notify/reservation/slice.js'
import { MappingTable } from './mapping-table.js'

const MAX_ID = 2 ** 32 - 1

/** Mapped and unmapped on the event loop up to here, bytes: a hop to a thread costs more. */
const SHORT = 256 << 10

/** The methods of `Engine` that have to do with memory. */
export class DeviceMappings {
  readonly table = new MappingTable()
  readonly #space: IommuSpace
  /** By slot: a mapping that is being made or taken away off the event loop. */
  readonly #changing = new Map<number, Promise<void>>()
  #isEnded = false

  constructor(space: IommuSpace) {
    this.#space = space
  }

  map(id: number, backing: Backing, size: number, access: number): void | Promise<void> {
    checkInteger('id', id, 0, MAX_ID)
    checkInteger('access', access, 1, 3)
    const { mapping, offset } = dmaMemory(backing)
    checkInteger('size', size, 1, backing.size)
    const table = this.table
    const space = this.#space
    const length = roundUp(size, space.pageSize)
    const slot = table.claim(id)
    if (table.reserved[slot] !== 0 && table.states[slot] !== MappingState.NONE) {
      throw new P2pdmaError(`attachment ${id} is mapped`, { code: 'ERR_INVALID_STATE' })
    }
    if (table.reserved[slot] !== length) {
      if (table.reserved[slot] !== 0) this.#forget(slot)
      table.iovas[slot] = space.iovas.allocate(length)
      table.reserved[slot] = length
      table.unmapped++
    }
    const iova = table.iovas[slot] ?? 0
    table.sizes[slot] = size
    table.access[slot] = access
    if (length <= SHORT) {
      space.mapNow(iova, mapping, offset, length, access)
      this.#isMapped(slot)
      return
    }
    table.states[slot] = MappingState.CHANGING
    return this.#change(slot, space.map(iova, mapping, offset, length, access), () => {
      this.#isMapped(slot)
    })
  }

  #isMapped(slot: number): void {
    this.table.states[slot] = MappingState.SEALED
    this.table.unmapped--
  }

  /** Where an attachment lies for the device; null for one that it does not know. */
  iovaOf(id: number): number | null {
    const slot = this.#find(id)
    return slot < 0 ? null : (this.table.iovas[slot] ?? null)
  }

  seal(id: number): void {
    this.table.seal(checkInteger('id', id, 0, MAX_ID))
  }

  unseal(id: number): void {
    this.table.unseal(checkInteger('id', id, 0, MAX_ID))
  }

  unmap(id: number): void | Promise<void> {
    const table = this.table
    const space = this.#space
    const slot = this.#find(id)
    // A space that is closed has taken every mapping away.
    if (slot < 0 || this.#isEnded || space.closed) return
    const before = this.#changing.get(slot)
    if (before !== undefined) return before.catch(() => {}).then(() => this.unmap(id))
    if (table.states[slot] === MappingState.NONE) return
    const iova = table.iovas[slot] ?? 0
    const length = table.reserved[slot] ?? 0
    table.states[slot] = MappingState.CHANGING
    table.unmapped++
    if (length <= SHORT) {
      space.unmapNow(iova, length)
      table.states[slot] = MappingState.NONE
      return
    }
    const unmapped = space.unmap(iova, length).catch((error: unknown) => {
      if (!space.closed) throw error
    })
    return this.#change(slot, unmapped, () => {
      table.states[slot] = MappingState.NONE
    })
  }

  async #change(slot: number, work: Promise<void>, done: () => void): Promise<void> {
    const change = work.then(done, (error: unknown) => {
      this.table.states[slot] = MappingState.NONE
      throw error
    })
    this.#changing.set(slot, change)
    try {
      await change
    } finally {
      this.#changing.delete(slot)
    }
  }

  release(id: number): void {
    const slot = this.#find(id)
    if (slot >= 0 && this.table.states[slot] === MappingState.NONE) this.#forget(slot)
  }

  #forget(slot: number): void {
    const table = this.table
    if (!this.#isEnded) this.#space.iovas.free(table.iovas[slot] ?? 0)
    table.reserved[slot] = 0
    table.unmapped--
    table.removals++
  }

  /**
   * For a device that is lost: takes every mapping away and gives its IOVA back; at
   * once, where they are few and small. Rejects with the first failure, having tried all.
   */
  async takeAll(): Promise<void> {
    const table = this.table
    const slice = new Slice()
    const unmapping: Promise<void>[] = []
    const failures: unknown[] = []
    for (let slot = 0; slot < table.ids.length; slot++) {
      if (table.reserved[slot] === 0) continue
      try {
        const unmapped = this.unmap(table.ids[slot] ?? 0)
        if (unmapped !== undefined) unmapping.push(unmapped)
      } catch (error) {
        failures.push(error)
      }
      const turn = slice.next()
      if (turn !== undefined) await turn
    }
    for (const each of await Promise.allSettled(unmapping)) {
      if (each.status === 'rejected') failures.push(each.reason)
    }
    for (let slot = 0; slot < table.ids.length; slot++) {
      const isFree = table.reserved[slot] !== 0 && table.states[slot] === MappingState.NONE
      if (isFree) this.#forget(slot)
    }
    if (failures.length > 0) throw failures[0]
  }

  /** The space is about to be closed: resolves when nothing is in progress. */
  async end(): Promise<void> {
    await Promise.allSettled(this.#changing.values())
    this.#isEnded = true
  }

  #find(id: number): number {
    return this.table.find(checkInteger('id', id, 0, MAX_ID))
  }
}

function mappingOf({ dmaMapping, mapping }: Backing): Mapping | null {
  return dmaMapping === undefined ? mapping : dmaMapping
}

/** Why an IOMMU cannot be given a backing; null where it can. */
export function dmaRefusalOf(backing: Backing): string | null {
  if (mappingOf(backing) !== null) return null
  return 'an IOMMU takes memory with pages (memfd, udmabuf) and the BARs of devices (vfio-bar)'
}

function dmaMemory(backing: Backing): { mapping: Mapping; offset: number } {
  if (typeof backing !== 'object' || backing === null) {
    throw typeError('backing', 'a Backing', backing)
  }
  const { offset } = backing
  const mapping = mappingOf(backing)
  checkInteger('backing.size', backing.size, 0)
  checkInteger('backing.offset', offset, 0)
  const refusal = dmaRefusalOf(backing)
  if (refusal !== null) {
    throw new P2pdmaError(`The IOMMU cannot be given a backing in ${backing.placement}`, {
      code: 'ERR_UNSUPPORTED',
      argument: 'backing',
      hint: refusal,
    })
  }
  if (!(mapping instanceof Mapping)) throw typeError('backing.mapping', 'a Mapping', mapping)
  return { mapping, offset }
}

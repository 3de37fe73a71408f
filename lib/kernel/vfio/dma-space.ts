/** What both kinds of IOMMU space have in common: the checks, and whose device memory is in them. */
import { brand } from '../../brand.js'
import { P2pdmaError, checkInteger, closedError, rangeError, typeError } from '../../errors.js'
import type { Doing } from '../../failures/index.js'
import { call, callAsync } from '../call.js'
import { Mapping } from '../mapping.js'
import { deviceMemoryOf, type DeviceMemory, type DeviceMemoryUse } from './device-memory.js'
import type { IommuSpace } from './iommu-space.js'
import type { IovaAllocator } from './iova-allocator.js'

/** A mapping to be made; all of it is checked. */
export interface DmaRequest {
  iova: number
  mapping: Mapping
  /** The region that `mapping` is of, if it is one. */
  device: DeviceMemory | undefined
  offset: number
  size: number
  /** Of `DmaAccess`. */
  access: number
}

interface Use extends DeviceMemoryUse {
  size: number
  device: DeviceMemory
  revoked: boolean
}

/** Device memory that is being taken away off the loop, for its device's close. */
interface Revocation {
  iova: number
  size: number
  done: Promise<void>
}

export abstract class DmaSpace implements IommuSpace {
  static {
    brand(this, (value) => #uses in value)
  }

  abstract readonly kind: 'type1' | 'iommufd'
  /** The number of the IOMMU group that it is for. */
  abstract readonly group: string
  abstract readonly pageSize: number
  abstract readonly iovas: IovaAllocator
  protected abstract readonly mapping: Doing
  /** Device memory that is mapped, by IOVA. */
  readonly #uses = new Map<number, Use>()
  readonly #revocations = new Set<Revocation>()
  #users = 1

  protected abstract startMap(request: DmaRequest): Promise<void>
  protected abstract mapOnLoop(request: DmaRequest): void
  protected abstract startUnmap(iova: number, size: number): Promise<void>
  protected abstract unmapOnLoop(iova: number, size: number): void
  /** The last user has gone. */
  protected abstract release(): void

  async map(
    iova: number,
    mapping: Mapping,
    offset: number,
    size: number,
    access: number,
  ): Promise<void> {
    const request = this.#check(iova, mapping, offset, size, access)
    const revoked = this.#revoked(iova, size)
    if (revoked !== undefined) await revoked
    await callAsync(() => this.startMap(request), { doing: this.mapping, bytes: size })
    this.checkOpen()
    if (mapping.closed) {
      // Other memory may have taken its place while the kernel looked its pages up.
      await callAsync(() => this.startUnmap(iova, size))
      throw closedError('Mapping')
    }
    this.#note(request)
  }

  mapNow(iova: number, mapping: Mapping, offset: number, size: number, access: number): void {
    const request = this.#check(iova, mapping, offset, size, access)
    this.#checkRevoked(iova, size)
    call(
      () => {
        this.mapOnLoop(request)
      },
      { doing: this.mapping, bytes: size },
    )
    this.#note(request)
  }

  async unmap(iova: number, size: number): Promise<void> {
    this.#checkRange(iova, size)
    const isRevoked = this.#forget(iova, size)
    const revoked = this.#revoked(iova, size)
    if (revoked !== undefined) await revoked
    if (isRevoked) return
    await callAsync(() => this.startUnmap(iova, size))
  }

  unmapNow(iova: number, size: number): void {
    this.#checkRange(iova, size)
    const isBeingRevoked = this.#overlapping(iova, size).length > 0
    if (this.#forget(iova, size) && !isBeingRevoked) return
    try {
      call(() => {
        this.unmapOnLoop(iova, size)
      })
    } catch (error) {
      // The other one was first.
      if (!isBeingRevoked || (error as P2pdmaError).code !== 'ENOENT') throw error
    }
  }

  #overlapping(iova: number, size: number): Revocation[] {
    if (this.#revocations.size === 0) return []
    return [...this.#revocations].filter(
      (each) => each.iova < iova + size && iova < each.iova + each.size,
    )
  }

  /** What is being taken away there is mapped until then; what came after it would go with it. */
  #revoked(iova: number, size: number): Promise<void> | undefined {
    const before = this.#overlapping(iova, size)
    if (before.length === 0) return undefined
    return Promise.all(before.map(({ done }) => done)).then(() => {
      this.checkOpen()
    })
  }

  #checkRevoked(iova: number, size: number): void {
    if (this.#overlapping(iova, size).length === 0) return
    throw new P2pdmaError('What was mapped there is being taken away', {
      code: 'EBUSY',
      argument: 'iova',
      hint: 'its device is closing: await that, or try again',
    })
  }

  get closed(): boolean {
    return this.#users === 0
  }

  /** One user more, of the same IOMMU group. */
  share(): this {
    this.#users++
    return this
  }

  close(): void {
    if (this.#users === 0 || --this.#users > 0) return
    for (const use of this.#uses.values()) use.device.uses.delete(use)
    this.#uses.clear()
    this.release()
  }

  protected checkOpen(): void {
    if (this.closed) throw closedError('The IOMMU space')
  }

  #note({ iova, size, device }: DmaRequest): void {
    // What was revoked there is past: the next unmap is of this one.
    this.#forget(iova, size)
    if (device === undefined) return
    const revoke = async (): Promise<void> => {
      use.revoked = true
      device.uses.delete(use)
      // It fails where it has been unmapped in the same moment.
      const done = this.startUnmap(iova, size).catch(() => undefined)
      const revocation = { iova, size, done }
      this.#revocations.add(revocation)
      await done
      this.#revocations.delete(revocation)
    }
    const use: Use = { size, device, revoked: false, revoke }
    device.uses.add(use)
    this.#uses.set(iova, use)
  }

  /** Whether just that was revoked: then there is nothing left to unmap. */
  #forget(iova: number, size: number): boolean {
    if (this.#uses.size === 0) return false
    const same = this.#uses.get(iova)
    const revoked = same?.size === size && same.revoked
    for (const [at, use] of this.#uses) {
      if (at >= iova + size || at + use.size <= iova) continue
      this.#uses.delete(at)
      use.device.uses.delete(use)
    }
    return revoked
  }

  #check(iova: number, mapping: Mapping, offset: number, size: number, access: number): DmaRequest {
    if (!(mapping instanceof Mapping)) throw typeError('mapping', 'a Mapping', mapping)
    checkInteger('access', access, 1, 3)
    this.#checkRange(iova, size)
    if (mapping.closed) throw closedError('Mapping')
    checkInteger('offset', offset, 0, mapping.length)
    this.#checkPages('offset', offset)
    checkInteger('size', size, 1, mapping.length - offset)
    return { iova, mapping, device: deviceMemoryOf(mapping), offset, size, access }
  }

  #checkRange(iova: number, size: number): void {
    this.checkOpen()
    checkInteger('iova', iova)
    checkInteger('size', size, 1)
    this.#checkPages('iova', iova)
    this.#checkPages('size', size)
    this.iovas.check(iova, size)
  }

  #checkPages(argument: string, value: number): void {
    if (value % this.pageSize === 0) return
    throw rangeError(argument, `a multiple of the IOMMU's page size, ${this.pageSize}`, value)
  }
}

/** What we can use of the kernel's list of ranges: pages above 2^53 are of no use to us. */
export function usableRanges(
  list: readonly bigint[],
  pageSize: number,
): { start: number; end: number }[] {
  const last = BigInt(Number.MAX_SAFE_INTEGER - pageSize + 1)
  const known = []
  for (let i = 0; i + 1 < list.length; i += 2) {
    const start = list[i] ?? 0n
    const end = list[i + 1] ?? 0n
    if (start < last) known.push({ start: Number(start), end: Number(end < last ? end : last) })
  }
  return known
}

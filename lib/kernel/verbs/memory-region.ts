/** Memory that a device may touch, with its keys. */
import { brand } from '../../brand.js'
import {
  P2pdmaError,
  checkBoolean,
  checkInteger,
  checkOptions,
  closedError,
  rangeError,
  typeError,
} from '../../errors.js'
import { native } from '../../native.js'
import { nativeVerbs, type NativeMr } from '../../native-verbs.js'
import { call, type CallOptions } from '../call.js'
import { DmaBuf } from '../dma-buf.js'
import { roundUp } from '../memfd.js'
import { Mapping } from '../mapping.js'
import { MemoryAccess } from './constants.js'
import type { ProtectionDomain } from './protection-domain.js'
import { VerbsObject } from './verbs-object.js'

export interface RegionOptions {
  /** Bytes from the mapping's start. Default 0. */
  offset?: number | undefined
  /** Bytes. Default: to the mapping's end. */
  length?: number | undefined
  /**
   * What the device, and the peer, address the first byte by. Default: the CPU's
   * own address. The same modulo the page size as that.
   */
  iova?: number | undefined
  /** Of `MemoryAccess`. Default LOCAL_WRITE. */
  access?: number | undefined
  /** Pages come by faults of the device's, and may move. Default false. */
  onDemand?: boolean | undefined
}

export interface DmabufRegionOptions {
  /** Bytes from the dma-buf's start. Default 0. */
  offset?: number | undefined
  /** Bytes. Default: to the dma-buf's end. */
  length?: number | undefined
  /** What the first byte is addressed by; the same modulo the page size as the offset. Default: the offset. */
  iova?: number | undefined
  /** Of `MemoryAccess`; only LOCAL_WRITE, the REMOTE_ ones and RELAXED_ORDERING. Default LOCAL_WRITE. */
  access?: number | undefined
}

/** How to bring pages of an on-demand region in. */
export const Advice = { PREFETCH: 0, PREFETCH_WRITE: 1, PREFETCH_NO_FAULT: 2 } as const

/** drivers/infiniband/core/uverbs_std_types_mr.c, UVERBS_METHOD_REG_DMABUF_MR. */
const DMABUF_ACCESS =
  MemoryAccess.LOCAL_WRITE |
  MemoryAccess.REMOTE_READ |
  MemoryAccess.REMOTE_WRITE |
  MemoryAccess.REMOTE_ATOMIC |
  MemoryAccess.RELAXED_ORDERING

const ALL_ACCESS = Object.values(MemoryAccess).reduce<number>((all, each) => all | each, 0)

/** What a way to register begins, and makes an object of. @internal */
interface RegionRequest {
  start: () => Promise<NativeMr>
  wrap: (native: NativeMr) => MemoryRegion
  about: CallOptions
}

export class MemoryRegion extends VerbsObject<'mr'> {
  static {
    brand(this)
  }

  readonly lkey: number
  readonly rkey: number
  /** What the device addresses the first byte by. */
  readonly iova: number
  /** Bytes. */
  readonly length: number
  readonly access: number
  /** Whether it was registered as a dma-buf or by its CPU mapping. */
  readonly kind: 'dma-buf' | 'memory'

  private constructor(
    handle: NativeMr,
    domain: ProtectionDomain,
    length: number,
    access: number,
    kind: 'dma-buf' | 'memory',
  ) {
    super(handle, [domain])
    this.lkey = handle.lkey
    this.rkey = handle.rkey
    this.iova = handle.iova
    this.length = length
    this.access = access
    this.kind = kind
  }

  /** @internal */
  static fromNative(
    handle: NativeMr,
    domain: ProtectionDomain,
    length: number,
    access: number,
    kind: 'dma-buf' | 'memory',
  ): MemoryRegion {
    return new MemoryRegion(handle, domain, length, access, kind)
  }

  protected get what(): string {
    return 'MemoryRegion'
  }

  protected override readonly closing = { doing: 'verbs.deregister' } as const

  /**
   * Has pages of an on-demand region brought in before the device asks; of any
   * other it is refused with ERR_UNSUPPORTED. Both in bytes from the region's start.
   */
  async advise(advice: number, offset = 0, wanted?: number): Promise<void> {
    checkInteger('advice', advice, 0, 2)
    const most = this.length - checkInteger('offset', offset, 0, this.length)
    const length = checkInteger(
      'length',
      wanted === undefined ? most : wanted,
      0,
      Math.min(most, 0xffffffff),
    )
    // Not left to the kernel: drivers/infiniband/sw/rxe/rxe_odp.c takes any region for an
    // on-demand one, and what it would look at is not there.
    if ((this.access & MemoryAccess.ON_DEMAND) === 0) {
      throw new P2pdmaError('The region is not on demand: all of its pages are there', {
        code: 'ERR_UNSUPPORTED',
        hint: 'register it with `onDemand: true`, where the device can',
      })
    }
    await this.run(
      () =>
        libraryThenKernel((kernel) =>
          nativeVerbs().verbsAdvise(this.handle, this.iova + offset, length, advice, 1, kernel),
        ),
      { doing: 'verbs.advise' },
    )
  }

  /** Deregisters on the event loop: for a small region with nothing under way. Idempotent. */
  deregisterNow(): void {
    this.closeHere()
  }
}

interface CheckedRegion {
  offset: number
  length: number
  iova: number
  access: number
}

function checkAccess(access: number): void {
  checkInteger('access', access, 0, ALL_ACCESS)
  const remote = MemoryAccess.REMOTE_WRITE | MemoryAccess.REMOTE_ATOMIC
  // drivers/infiniband/core: ib_check_mr_access.
  if ((access & remote) !== 0 && (access & MemoryAccess.LOCAL_WRITE) === 0) {
    throw new P2pdmaError('Access that lets peers write needs LOCAL_WRITE', {
      code: 'ERR_INVALID_ARG_VALUE',
      argument: 'access',
      hint: 'add MemoryAccess.LOCAL_WRITE',
    })
  }
}

function checkMapping(
  domain: ProtectionDomain,
  mapping: Mapping,
  options: RegionOptions,
): CheckedRegion {
  if (!(mapping instanceof Mapping)) throw typeError('mapping', 'a Mapping', mapping)
  const { iova, ...rest } = checkOptions(options)
  if (mapping.closed) throw closedError('Mapping')
  const offset = checkInteger('offset', rest.offset ?? 0, 0, mapping.length - 1)
  const length = checkInteger('length', rest.length ?? mapping.length - offset, 1)
  if (length > mapping.length - offset) {
    throw rangeError('length', `at most ${mapping.length - offset}, to the mapping's end`, length)
  }
  const access = rest.access ?? MemoryAccess.LOCAL_WRITE
  checkAccess(access)
  // Either way to say it.
  const onDemand =
    checkBoolean('onDemand', rest.onDemand ?? false) || (access & MemoryAccess.ON_DEMAND) !== 0
  if (onDemand && !domain.device.attributes().odp.supported) {
    throw new P2pdmaError(`${domain.device.name} has no on-demand paging`, {
      code: 'ERR_UNSUPPORTED',
      argument: 'onDemand',
    })
  }
  if (iova === undefined) return { offset, length, iova: -1, access: withDemand(access, onDemand) }
  checkIova(iova, length)
  checkPageOffset(iova, offset)
  // drivers/infiniband/sw/rxe/rxe_odp.c goes by `iova - start` there: it would read other memory.
  if (onDemand && domain.device.isSoftware) {
    throw new P2pdmaError('On-demand regions of soft-RoCE have the addresses that the CPU has', {
      code: 'ERR_UNSUPPORTED',
      argument: 'iova',
      hint: 'leave iova out',
    })
  }
  return { offset, length, iova, access: withDemand(access, onDemand) }
}

const withDemand = (access: number, onDemand: boolean) =>
  onDemand ? access | MemoryAccess.ON_DEMAND : access

function checkIova(iova: unknown, length: number): number {
  return checkInteger('iova', iova, 0, Number.MAX_SAFE_INTEGER - length)
}

/** The device's page tables have whole pages; drivers/infiniband/core/umem.c, ib_umem_find_best_pgsz. */
function checkPageOffset(iova: number, offset: number): void {
  const { pageSize } = native
  if (iova % pageSize === offset % pageSize) return
  throw new P2pdmaError(
    `iova and offset must be equal modulo the page size, ${pageSize}: ${iova % pageSize} is not ${offset % pageSize}`,
    {
      code: 'ERR_OUT_OF_RANGE',
      argument: 'iova',
      hint: `an iova of ${iova - (iova % pageSize) + (offset % pageSize)} would do`,
    },
  )
}

/** What is pinned: whole pages. */
function pinning({ hugePage }: Mapping, offset: number, length: number): CallOptions {
  const { pageSize } = native
  const bytes = roundUp((offset % pageSize) + length, pageSize)
  return { doing: 'verbs.register', bytes, hugePage }
}

/** @internal */
export function registerMapping(
  domain: ProtectionDomain,
  mapping: Mapping,
  options: RegionOptions,
): RegionRequest {
  const { offset, length, iova, access } = checkMapping(domain, mapping, options)
  return {
    start: async () => {
      const made = await nativeVerbs().verbsRegister(
        domain.handle,
        mapping.handle,
        offset,
        length,
        iova,
        access,
      )
      if (!mapping.closed) return made
      // Other memory may have taken its place while the kernel looked its pages up.
      await nativeVerbs().verbsClose(made)
      throw closedError('Mapping')
    },
    wrap: (made) => MemoryRegion.fromNative(made, domain, length, access, 'memory'),
    about: pinning(mapping, offset, length),
  }
}

/** @internal */
export function registerMappingNow(
  domain: ProtectionDomain,
  mapping: Mapping,
  options: RegionOptions,
): MemoryRegion {
  const { offset, length, iova, access } = checkMapping(domain, mapping, options)
  const made = call(
    () =>
      nativeVerbs().verbsRegisterNow(domain.handle, mapping.handle, offset, length, iova, access),
    pinning(mapping, offset, length),
  )
  return MemoryRegion.fromNative(made, domain, length, access, 'memory')
}

function checkDmabuf(dmaBuf: DmaBuf, options: DmabufRegionOptions): CheckedRegion {
  if (!(dmaBuf instanceof DmaBuf)) throw typeError('dmaBuf', 'a DmaBuf', dmaBuf)
  const {
    offset = 0,
    iova = offset,
    access = MemoryAccess.LOCAL_WRITE,
    ...rest
  } = checkOptions(options)
  const { size } = dmaBuf
  checkInteger('offset', offset, 0, size - 1)
  const length = checkInteger('length', rest.length ?? size - offset, 1)
  if (length > size - offset) {
    throw rangeError('length', `at most ${size - offset}, to the dma-buf's end`, length)
  }
  checkAccess(access)
  if ((access & ~DMABUF_ACCESS) !== 0) {
    throw new P2pdmaError(`A dma-buf region has no such access: ${access & ~DMABUF_ACCESS}`, {
      code: 'ERR_INVALID_ARG_VALUE',
      argument: 'access',
      hint: 'only LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC and RELAXED_ORDERING',
    })
  }
  checkIova(iova, length)
  checkPageOffset(iova, offset)
  return { offset, length, iova, access }
}

/** What a registration of a dma-buf asks for; the handles are those of the moment of the call. */
function dmabufRequest(domain: ProtectionDomain, dmaBuf: DmaBuf, options: DmabufRegionOptions) {
  const { offset, length, iova, access } = checkDmabuf(dmaBuf, options)
  return {
    args: () => [domain.handle, dmaBuf.handle, offset, length, iova, access] as const,
    wrap: (made: NativeMr) => MemoryRegion.fromNative(made, domain, length, access, 'dma-buf'),
  }
}

/** @internal */
export function registerDmabuf(
  domain: ProtectionDomain,
  dmaBuf: DmaBuf,
  options: DmabufRegionOptions,
): RegionRequest {
  const { args, wrap } = dmabufRequest(domain, dmaBuf, options)
  const ask = (kernel: boolean) => nativeVerbs().verbsRegisterDmabuf(...args(), kernel)
  return { start: () => libraryThenKernel(ask), wrap, about: { doing: 'verbs.dmabuf' } }
}

/** @internal */
export function registerDmabufNow(
  domain: ProtectionDomain,
  dmaBuf: DmaBuf,
  options: DmabufRegionOptions,
): MemoryRegion {
  const { args, wrap } = dmabufRequest(domain, dmaBuf, options)
  const ask = (kernel: boolean) => nativeVerbs().verbsRegisterDmabufNow(...args(), kernel)
  return wrap(call(() => libraryThenKernelNow(ask), { doing: 'verbs.dmabuf' }))
}

const lacksTheCall = (error: unknown) =>
  ['EOPNOTSUPP', 'ERR_VERBS_TOO_OLD'].includes(String((error as NodeJS.ErrnoException).code))

/** A provider's library (librxe), or an old libibverbs, may lack a call that the kernel driver has. */
async function libraryThenKernel<T>(ask: (kernel: boolean) => Promise<T>): Promise<T> {
  try {
    return await ask(false)
  } catch (error) {
    if (!lacksTheCall(error)) throw error
    return ask(true)
  }
}

function libraryThenKernelNow<T>(ask: (kernel: boolean) => T): T {
  try {
    return ask(false)
  } catch (error) {
    if (!lacksTheCall(error)) throw error
    return ask(true)
  }
}

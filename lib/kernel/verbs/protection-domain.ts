/** A protection domain: what is of one works together, and with nothing else. */
import { brand } from '../../brand.js'
import { checkInteger, checkOptions, typeError } from '../../errors.js'
import { nativeVerbs, type NativePd } from '../../native-verbs.js'
import type { DmaBuf } from '../dma-buf.js'
import type { Mapping } from '../mapping.js'
import { AddressHandle, type AddressOptions, nativeAddress } from './address-handle.js'
import type { MemoryRegion } from './memory-region.js'
import {
  type DmabufRegionOptions,
  type RegionOptions,
  registerDmabuf,
  registerDmabufNow,
  registerMapping,
  registerMappingNow,
} from './memory-region.js'
import { MemoryWindow } from './memory-window.js'
import { QueuePair, type QueuePairOptions } from './queue-pair.js'
import { SharedReceiveQueue } from './shared-receive-queue.js'
import { VerbsObject } from './verbs-object.js'
import type { VerbsDevice } from './device.js'

export class ProtectionDomain extends VerbsObject<'pd'> {
  static {
    brand(this)
  }

  readonly device: VerbsDevice

  private constructor(native: NativePd, device: VerbsDevice) {
    super(native, [device])
    this.device = device
  }

  /** @internal */
  static fromNative(native: NativePd, device: VerbsDevice): ProtectionDomain {
    return new ProtectionDomain(native, device)
  }

  protected get what(): string {
    return 'ProtectionDomain'
  }

  /**
   * Registers a range of a CPU mapping: pins it, unless it is on demand, and
   * gives it keys. The region keeps the range's addresses, also over the
   * mapping's `unmap()`.
   */
  async register(mapping: Mapping, options: RegionOptions = {}): Promise<MemoryRegion> {
    const request = registerMapping(this, mapping, options)
    return this.make([], request.start, request.wrap, request.about)
  }

  /** The same on the event loop: for a few pages, which take less time than a thread to wake. */
  registerNow(mapping: Mapping, options: RegionOptions = {}): MemoryRegion {
    return registerMappingNow(this, mapping, options)
  }

  /**
   * Registers a range of a dma-buf, which need not have a CPU mapping. ERR_UNSUPPORTED
   * where neither the provider's library nor the kernel's driver can.
   */
  async registerDmabuf(dmaBuf: DmaBuf, options: DmabufRegionOptions = {}): Promise<MemoryRegion> {
    const request = registerDmabuf(this, dmaBuf, options)
    return this.make([], request.start, request.wrap, request.about)
  }

  /** The same on the event loop. */
  registerDmabufNow(dmaBuf: DmaBuf, options: DmabufRegionOptions = {}): MemoryRegion {
    return registerDmabufNow(this, dmaBuf, options)
  }

  async queuePair(options: QueuePairOptions): Promise<QueuePair> {
    const request = QueuePair.check(this, options)
    const { sendCq, receiveCq, srq } = request
    return this.make(
      [sendCq, receiveCq, ...(srq === null ? [] : [srq])],
      () =>
        nativeVerbs().verbsCreateQp(
          this.handle,
          sendCq.handle,
          receiveCq.handle,
          srq?.handle ?? null,
          request.type,
          request.maxSendWr,
          request.maxReceiveWr,
          request.maxInlineData,
          request.signalAll,
        ),
      (native) => QueuePair.fromNative(native, this, request),
      { doing: 'verbs.qp', wrong: () => this.device.limits('maxQpWr', 'maxQp') },
    )
  }

  /** A queue of receives that several queue pairs take from. */
  async sharedReceiveQueue(maxReceiveWr: number): Promise<SharedReceiveQueue> {
    checkInteger('maxReceiveWr', maxReceiveWr, 1, 0x7fffffff)
    const id = SharedReceiveQueue.nextId()
    return this.make(
      [],
      () => nativeVerbs().verbsCreateSrq(this.handle, maxReceiveWr, id),
      (native) => SharedReceiveQueue.fromNative(native, this, id),
      { doing: 'verbs.srq', wrong: () => this.device.limits('maxSrqWr', 'maxSrq') },
    )
  }

  /** Where datagrams go. */
  async addressHandle(options: AddressOptions): Promise<AddressHandle> {
    const address = nativeAddress(checkOptions(options))
    return this.make(
      [],
      () => nativeVerbs().verbsCreateAh(this.handle, address),
      (native) => AddressHandle.fromNative(native, this),
    )
  }

  /** A window of type 1 is bound by a call of its own, one of type 2 by a request with a key of ours. */
  async memoryWindow(type: 1 | 2): Promise<MemoryWindow> {
    if (typeof type !== 'number') throw typeError('type', '1 or 2', type)
    checkInteger('type', type, 1, 2)
    return this.make(
      [],
      () => nativeVerbs().verbsAllocMw(this.handle, type),
      (native) => MemoryWindow.fromNative(native, this, type),
      { doing: 'verbs.window' },
    )
  }
}

/** RDMA devices: which there are, what they can do, and an open one. */
import { brand } from '../../brand.js'
import { P2pdmaError, checkOptions, typeError } from '../../errors.js'
import { nativeVerbs, type NativeDevice, type VerbsLimits } from '../../native-verbs.js'
import { call, callAsync } from '../call.js'
import { type AsyncEvent, AsyncEvents, type AsyncSubscription } from './async-events.js'
import { CompletionChannel } from './completion-channel.js'
import { CompletionQueue, type CompletionQueueOptions } from './completion-queue.js'
import {
  checkPortNum,
  chooseGid,
  choosePort,
  type GidChoice,
  type GidEntry,
  gidEntry,
  type PortInfo,
  portInfo,
} from './port.js'
import { ProtectionDomain } from './protection-domain.js'
import { checkSpare } from './spare.js'
import { VerbsObject } from './verbs-object.js'

export interface VerbsDeviceEntry {
  /** `rxe0`, `mlx5_0`. */
  name: string
  guid: bigint
  transport: 'infiniband' | 'iwarp' | 'other'
}

/** On-demand paging: which operations of which transport fault pages in by themselves. */
export interface OdpCapabilities {
  supported: boolean
  /** One region for the whole address space. */
  implicit: boolean
  rc: OdpOperations
  uc: OdpOperations
  ud: OdpOperations
  xrc: OdpOperations
}

export interface OdpOperations {
  send: boolean
  receive: boolean
  write: boolean
  read: boolean
  atomic: boolean
  srqReceive: boolean
}

export type { VerbsLimits }

export interface VerbsAttributes extends VerbsLimits {
  /** Whether atomics are so for the CPU as well. */
  atomicity: 'none' | 'device' | 'system'
  odp: OdpCapabilities
}

/**
 * The devices there are; none is opened for it. ERR_VERBS_MISSING without libibverbs, EMFILE
 * with fewer than 8 descriptors left, of which it needs some.
 */
export function verbsDevices(): VerbsDeviceEntry[] {
  nativeVerbs()
  checkSpare()
  const entries = call(() => nativeVerbs().verbsDevices(), { doing: 'verbs.open' })
  return entries.map(({ name, guid, transport }) => ({
    name,
    guid,
    transport: transport === 0 ? 'infiniband' : transport === 1 ? 'iwarp' : 'other',
  }))
}

export class VerbsDevice extends VerbsObject<'device'> {
  static {
    brand(this, null, { promising: ['protectionDomain', 'completionChannel'] })
  }

  readonly name: string
  /** Soft-RoCE: a driver without a device. @internal */
  readonly isSoftware: boolean
  readonly #events: AsyncEvents

  private constructor(native: NativeDevice, name: string) {
    super(native, [])
    this.name = name
    // drivers/infiniband/sw/rxe/rxe_param.h, RXE_VENDOR_ID.
    this.isSoftware = this.attributes().vendorId === 0xffffff
    this.#events = new AsyncEvents(native)
  }

  /** Opens a device by name; ENODEV where there is none. */
  static async open(name: string): Promise<VerbsDevice> {
    if (typeof name !== 'string') throw typeError('name', 'a string', name)
    const known = verbsDevices().map((each) => each.name)
    if (!known.includes(name)) {
      throw new P2pdmaError(`There is no RDMA device '${name}'`, {
        code: 'ENODEV',
        errno: -19,
        syscall: 'ibv_get_device_list',
        argument: 'name',
        hint:
          known.length === 0
            ? 'there is none at all: see `rdma link`; soft-RoCE is made by `rdma link add`'
            : `there are ${known.join(', ')}`,
      })
    }
    const native = await callAsync(() => nativeVerbs().verbsOpen(name), {
      doing: 'verbs.open',
      of: name,
    })
    try {
      return new VerbsDevice(native, name)
    } catch (error) {
      await callAsync(() => nativeVerbs().verbsClose(native)).catch(() => {})
      throw error
    }
  }

  protected get what(): string {
    return `VerbsDevice ${this.name}`
  }

  attributes(): VerbsAttributes {
    const raw = call(() => nativeVerbs().verbsQueryDevice(this.handle))
    const atomicity = (['none', 'device', 'system'] as const)[raw.atomicity] ?? 'none'
    const { general, rc, uc, ud, xrc } = raw.odp
    return {
      ...raw,
      atomicity,
      odp: {
        supported: (general & 1) !== 0,
        implicit: (general & 2) !== 0,
        rc: odpOperations(rc),
        uc: odpOperations(uc),
        ud: odpOperations(ud),
        xrc: odpOperations(xrc),
      },
    }
  }

  /** Some of the attributes, in words. @internal */
  limits(...names: ('maxCq' | 'maxCqe' | 'maxQp' | 'maxQpWr' | 'maxSrq' | 'maxSrqWr')[]): string {
    const attributes = this.attributes()
    return `attributes() has ${names.map((name) => `${name} ${attributes[name]}`).join(', ')}`
  }

  /** What one port is like; ports count from 1. */
  port(portNum = 1): PortInfo {
    checkPortNum(portNum)
    return portInfo(call(() => nativeVerbs().verbsQueryPort(this.handle, portNum)))
  }

  /** The number of the first active port, or of the one that is asked for: see `choosePort()`. */
  activePortNum(portNum?: number): number {
    const { ports } = this.attributes()
    const infos = Array.from({ length: ports }, (_, i) => this.port(i + 1))
    return choosePort(this.name, infos, portNum)
  }

  /** What it is like; ERR_PORT_DOWN where it, or without a number every port, is not active. */
  activePort(portNum?: number): PortInfo {
    return this.port(this.activePortNum(portNum))
  }

  /** The table of GIDs, of all ports. */
  gids(): GidEntry[] {
    return call(() => nativeVerbs().verbsQueryGids(this.handle)).map(gidEntry)
  }

  /**
   * The entry to address a port by, unless the choice says which: the best by type, scope and
   * family, in the order that `chooseGid()` says. ERR_NO_GID where none fits, ERR_PORT_DOWN
   * where no port is named and none is active.
   */
  gid(choice: GidChoice = {}): GidEntry {
    const { portNum = this.activePortNum() } = checkOptions(choice)
    return chooseGid(this.name, this.gids(), { ...choice, portNum })
  }

  protectionDomain(): Promise<ProtectionDomain> {
    return this.make(
      [],
      () => nativeVerbs().verbsAllocPd(this.handle),
      (native) => ProtectionDomain.fromNative(native, this),
    )
  }

  /** For completion queues whose events come on this event loop. */
  completionChannel(): Promise<CompletionChannel> {
    return this.make(
      [],
      () => nativeVerbs().verbsCreateChannel(this.handle),
      (native) => CompletionChannel.fromNative(native, this),
    )
  }

  /** A completion queue for at least so many completions. */
  async completionQueue(
    capacity: number,
    options: CompletionQueueOptions = {},
  ): Promise<CompletionQueue> {
    const request = CompletionQueue.check(this, capacity, options)
    return this.make(
      request.channel === null ? [] : [request.channel],
      () =>
        nativeVerbs().verbsCreateCq(
          this.handle,
          capacity,
          request.channel?.handle ?? null,
          request.id,
        ),
      (native) => CompletionQueue.fromNative(native, this, request),
      { doing: 'verbs.cq', wrong: () => this.limits('maxCqe', 'maxCq') },
    )
  }

  /**
   * Tells of asynchronous events until the subscription or the device is
   * closed. Listening does not keep the process alive: see `hold()`.
   */
  onAsyncEvent(listener: (event: AsyncEvent) => void): AsyncSubscription {
    if (typeof listener !== 'function') throw typeError('listener', 'a function', listener)
    if (this.closed) void this.handle
    return this.#events.subscribe(listener)
  }

  protected override onClose(): void {
    this.#events.close()
  }
}

function odpOperations(bits: number): OdpOperations {
  const has = (bit: number) => (bits & (1 << bit)) !== 0
  return {
    send: has(0),
    receive: has(1),
    write: has(2),
    read: has(3),
    atomic: has(4),
    srqReceive: has(5),
  }
}

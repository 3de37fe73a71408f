/** DRM PRIME: buffers of a graphics driver as dma-bufs, both ways; and vgem's fences. */
import { constants, readdirSync } from 'node:fs'
import { brand } from '../brand.js'
import { P2pdmaError, checkInteger, checkOptions, closedError, typeError } from '../errors.js'
import { native, type NativeFd } from '../native.js'
import { call, translate } from './call.js'
import { DmaBuf } from './dma-buf.js'
import { Mapping } from './mapping.js'
import { OwnedFd } from './owned-fd.js'

const FOLDER = '/dev/dri'

/** Pixels of one row of a dumb buffer: a row is 4 KiB. */
const WIDTH = 1024
const BITS_PER_PIXEL = 32
const ROW = (WIDTH * BITS_PER_PIXEL) / 8

/** Which device: by the driver's name, or by path. */
export type DrmSelector = { driver: string } | { path: string }

export class DrmDevice extends OwnedFd {
  static {
    brand(this, (value) => #handles in value)
  }

  /** The driver's name. */
  readonly driver: string
  /**
   * GEM handles held. PRIME gives the handle that is already there when the
   * same buffer is imported again (drm_prime.c, drm_gem_prime_fd_to_handle),
   * and closing it once closes it for everybody, so they are counted here.
   */
  readonly #handles: Map<number, number>

  private constructor(fd: NativeFd, driver: string, handles: Map<number, number>) {
    super(fd)
    this.driver = driver
    this.#handles = handles
  }

  /** The drivers of the cards that can be opened, each once. */
  static drivers(): string[] {
    const drivers = new Set<string>()
    for (const path of cards()) {
      try {
        using device = DrmDevice.#openPath(path)
        drivers.add(device.driver)
      } catch {
        // Whoever wants it hears why from open().
      }
    }
    return [...drivers].sort()
  }

  /** Opens the first card of a driver (ENOENT where there is none), or a path. */
  static open(selector: DrmSelector): DrmDevice {
    checkOptions(selector, 'selector')
    if ('path' in selector) return DrmDevice.#openPath(selector.path)
    const { driver } = selector
    if (typeof driver !== 'string') throw typeError('driver', 'a string', driver)
    let refused: unknown
    for (const path of cards()) {
      try {
        const device = DrmDevice.#openPath(path)
        if (device.driver === driver) return device
        device.close()
      } catch (error) {
        refused = error
      }
    }
    if (refused !== undefined) throw refused as Error
    throw new P2pdmaError(`No DRM device of driver ${driver}`, {
      code: 'ENOENT',
      argument: 'driver',
      hint: `load the driver: \`modprobe ${driver}\``,
    })
  }

  static #openPath(path: string): DrmDevice {
    if (typeof path !== 'string') throw typeError('path', 'a string', path)
    const fd = call(() => native.openFd(path, constants.O_RDWR), { doing: 'drm.open', path })
    try {
      const driver = call(() => native.drmDriver(fd), { doing: 'drm.query' })
      return new DrmDevice(fd, driver, new Map())
    } catch (error) {
      fd.close()
      throw error
    }
  }

  /** Allocates a zeroed "dumb" buffer of at least `size` bytes. */
  createBuffer(size: number): DrmBuffer {
    checkInteger('size', size, 1, ROW * 0x7fffffff)
    const height = Math.ceil(size / ROW)
    const dumb = call(() => native.drmDumbCreate(this.handle, WIDTH, height, BITS_PER_PIXEL), {
      doing: 'drm.create',
      bytes: size,
    })
    this.#hold(dumb.handle)
    return new DrmBuffer(this, dumb.handle, dumb.size)
  }

  /** Imports a dma-buf of any exporter. */
  importBuffer(dmaBuf: DmaBuf): DrmBuffer {
    if (!(dmaBuf instanceof DmaBuf)) throw typeError('dmaBuf', 'a DmaBuf', dmaBuf)
    const { size } = dmaBuf
    const handle = call(() => native.drmFdToHandle(this.handle, dmaBuf.handle), {
      doing: 'drm.import',
    })
    this.#hold(handle)
    return new DrmBuffer(this, handle, size)
  }

  /** Signals a vgem fence (ETIMEDOUT where it had expired, ENOENT where it is gone). */
  signalFence(fence: number): void {
    checkInteger('fence', fence, 0, 0xffffffff)
    this.checkVgem()
    call(() => native.vgemSignal(this.handle, fence))
  }

  /** ERR_UNSUPPORTED for another driver than vgem: its ioctls' numbers mean something else there. @internal */
  checkVgem(): void {
    if (this.driver === 'vgem') return
    throw new P2pdmaError(`The driver ${this.driver} has no fences to attach`, {
      code: 'ERR_UNSUPPORTED',
      hint: 'only vgem has: `modprobe vgem`',
    })
  }

  #hold(handle: number): void {
    this.#handles.set(handle, (this.#handles.get(handle) ?? 0) + 1)
  }

  /** Gives up one hold on a GEM handle. @internal */
  releaseHandle(handle: number): void {
    if (this.closed) return
    const held = this.#handles.get(handle) ?? 0
    if (held > 1) {
      this.#handles.set(handle, held - 1)
    } else if (this.#handles.delete(handle)) {
      call(() => native.drmGemClose(this.handle, handle))
    }
  }

  /** Shares the handles, which are the open file's. */
  dup(): DrmDevice {
    return new DrmDevice(
      call(() => native.dupFd(this.handle)),
      this.driver,
      this.#handles,
    )
  }
}

/** One hold on a buffer of a DRM device. Closing the device closes it too. */
export class DrmBuffer {
  static {
    brand(this, (value) => #handle in value)
  }

  readonly device: DrmDevice
  /** Bytes. */
  readonly size: number
  readonly #handle: number
  #closed = false

  /** @internal */
  constructor(device: DrmDevice, handle: number, size: number) {
    if (!(device instanceof DrmDevice)) throw typeError('device', 'a DrmDevice', device)
    this.device = device
    this.#handle = handle
    this.size = size
  }

  /** The GEM handle; ERR_CLOSED after `close()`. */
  get handle(): number {
    if (this.#closed) throw closedError('DrmBuffer')
    return this.#handle
  }

  /** A dma-buf of it, which lives on its own. */
  exportDmaBuf(): DmaBuf {
    return DmaBuf.fromHandle(call(() => native.drmHandleToFd(this.device.handle, this.handle)))
  }

  /** Maps it through the device (dumb buffers of this device only). */
  map(): Mapping {
    const offset = call(() => native.drmDumbMap(this.device.handle, this.handle))
    return Mapping.ofHandle(this.device.handle, { offset, length: this.size })
  }

  /**
   * Attaches a vgem fence to it, of a reader or a writer, and returns its
   * number for `DrmDevice.signalFence`. EBUSY where it conflicts with one
   * that is there. By itself it expires after 10 seconds, as a success.
   */
  attachFence(mode: 'r' | 'w'): number {
    if (mode !== 'r' && mode !== 'w') {
      throw new P2pdmaError("mode must be 'r' or 'w'", {
        code: 'ERR_INVALID_ARG_VALUE',
        argument: 'mode',
      })
    }
    this.device.checkVgem()
    const flags = mode === 'w' ? 1 : 0
    return call(() => native.vgemAttach(this.device.handle, this.handle, flags))
  }

  /** Gives up the hold. Idempotent. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.device.releaseHandle(this.#handle)
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

function cards(): string[] {
  try {
    return readdirSync(FOLDER)
      .filter((name) => /^card\d+$/.test(name))
      .map((name) => `${FOLDER}/${name}`)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw translate(error, { doing: 'drm.open' })
  }
}

/** The end of a device that is open: how it is noticed, and what comes of it. */
import { deviceLostError, type P2pdmaError } from '../../errors.js'
import type { VerbsDevice } from '../../kernel/verbs/index.js'
import type { Engine } from '../../move-notify/importer/engine.js'
import { loseDevice } from '../../move-notify/importer/shared.js'
import type { Presence } from './presence.js'
import { saysGone } from './presence.js'

export interface DeviceLossHost {
  readonly engine: Engine
  readonly device: VerbsDevice
  readonly portNum: number
  /** See `VerbsEngineOptions`. */
  readonly removalTimeoutMs: number
  /** Peers, and with them all that is in flight; called once, before the importers fail. */
  onLost(error: P2pdmaError): void
}

export class LossOfDevice {
  readonly #host: DeviceLossHost
  readonly #presence: Presence
  #error: P2pdmaError | null = null
  #importersFailed: Promise<void> = Promise.resolve()
  #isOver = false

  /** `presence`: of the device, from before it was used. */
  constructor(host: DeviceLossHost, presence: Presence) {
    this.#host = host
    this.#presence = presence
    host.device.onAsyncEvent(({ name }) => {
      if (name === 'DEVICE_FATAL') this.#lose('it says so itself: DEVICE_FATAL')
    })
  }

  /** ERR_DEVICE_LOST, or null while it works. */
  get error(): P2pdmaError | null {
    return this.#error
  }

  /** A call has failed: is the device there still? */
  look(cause: unknown): void {
    if (this.#error !== null || this.#isOver) return
    if (this.#presence.isGone) return this.#lose('the kernel lists it no more', cause)
    if (!saysGone(cause)) return
    try {
      this.#host.device.port(this.#host.portNum)
    } catch (error) {
      if (saysGone(error)) this.#lose('its calls fail', error)
    }
  }

  /** For a call's rejection: the loss instead, where it was that. */
  readonly rethrow = (error: unknown): never => {
    this.look(error)
    throw this.#error ?? error
  }

  /** `seen`: how we know. Nothing waits: what is in flight is rejected now. */
  #lose(seen: string, cause?: unknown): void {
    if (this.#error !== null || this.#isOver) return
    const error = deviceLostError(
      `The RDMA device ${this.#host.device.name}`,
      `${seen} (removed, reset, or its driver or network interface taken away); ` +
        'close the engine, and open it again when the device is back: see `rdma link`',
      cause,
    )
    this.#error = error
    this.#host.onLost(error)
    this.#importersFailed = this.#failImporters(error)
  }

  async #failImporters(error: P2pdmaError): Promise<void> {
    const isOutOfReach = await this.#presence.ends(this.#host.removalTimeoutMs)
    loseDevice(this.#host.engine, error, isOutOfReach)
  }

  /**
   * Throws while a deregistration would say nothing: of a device that is lost libibverbs
   * takes EIO for success (libibverbs/cmd.c, verbs_is_destroy_err()).
   */
  checkUnmap(): void {
    if (this.#error !== null && !this.#presence.isGone) throw this.#error
  }

  /** The engine is being closed: what is lost from now on is lost to nobody. */
  end(): Promise<void> {
    this.#isOver = true
    return this.#importersFailed
  }
}

/**
 * The model's engine. A device runs one chunk per event, acknowledges a stop
 * when it likes or hangs, and checks at each call that the heart keeps the
 * contract of lib/move-notify/importer/engine.ts.
 */
import { P2pdmaError } from '../../lib/errors.js'
import type { Backing } from '../../lib/move-notify/exporter/backing.js'
import type {
  Engine,
  EngineCapabilities,
  EngineChannel,
  EngineChannelOptions,
} from '../../lib/move-notify/importer/engine.js'
import { DeviceChannel } from './device-channel.js'
import { ModelBacking } from './memory.js'
import type { World } from './scheduler.js'

export interface DeviceFaults {
  /** These stops (counted from 0 over all channels) are never acknowledged. */
  hangStops?: number[]
  /** After these stops even force() throws. */
  failForces?: boolean
  /** These calls of map() fail (counted from 0). */
  failMaps?: number[]
  /** It says that it cannot map what such an exporter made. */
  refuses?: string
  /** map() and unmap() take events of their own. */
  slow?: boolean
  /** A stop that does not hang is done at once. */
  instant?: boolean
  /** All chunks of an operation run in one event when false: fewer interleavings. Default true. */
  chunks?: boolean
}

export interface Mapping {
  readonly id: number
  readonly backing: ModelBacking
  alive: boolean
  sealed: boolean
}

export class ModelEngine implements Engine {
  readonly name = 'model'
  readonly world: World
  readonly faults: DeviceFaults
  readonly channels: DeviceChannel[] = []
  readonly #mappings = new Map<number, Mapping>()
  /** Told of every byte that the device writes through an attachment. */
  onWrite: (id: number, at: number, value: number) => void = () => {}
  stops = 0
  maps = 0
  unmaps = 0
  accesses = 0

  constructor(world: World, faults: DeviceFaults = {}) {
    this.world = world
    this.faults = faults
  }

  openChannel(options: EngineChannelOptions): EngineChannel {
    const channel = new DeviceChannel(this, this.channels.length, options)
    this.channels.push(channel)
    return channel
  }

  mapping(id: number): Mapping | undefined {
    return this.#mappings.get(id)
  }

  readonly capabilities: EngineCapabilities = {
    operations: [],
    isTwoSided: false,
    maps: { dmaBufs: false, cpuMemory: true, bars: false },
    lateAccess: 'fault',
    canMap: (backing) => this.#refusalOf(backing),
  }

  #refusalOf({ placement }: Backing): string | null {
    const { refuses } = this.faults
    return refuses !== undefined && placement.startsWith(`${refuses}/`) ? 'out of reach' : null
  }

  map(id: number, backing: Backing): void | Promise<void> {
    const number = this.maps++
    if (this.#refusalOf(backing) !== null) this.world.fail(`map() of ${backing.placement}, refused`)
    if (!(backing instanceof ModelBacking)) this.world.fail('map() of memory from elsewhere')
    if (this.#mappings.has(id)) this.world.fail(`map() of attachment ${id}, which is mapped`)
    const finish = () => {
      if (this.faults.failMaps?.includes(number) === true) {
        throw new P2pdmaError('no page tables', { code: 'ENOMEM' })
      }
      if (backing.state === 'freed' || backing.state === 'poisoned') {
        this.world.fail(`map() of a backing that is ${backing.state}`)
      }
      this.#mappings.set(id, { id, backing, alive: true, sealed: true })
    }
    if (this.faults.slow !== true) return finish()
    return new Promise((resolve, reject) => {
      this.world.event(`map ${id}`, () => {
        try {
          finish()
          resolve()
        } catch (error) {
          reject(error)
        }
      })
    })
  }

  seal(id: number): void {
    const mapping = this.#mappings.get(id)
    if (mapping !== undefined) mapping.sealed = true
  }

  unseal(id: number): void {
    const mapping = this.#mappings.get(id)
    if (mapping === undefined) return this.world.fail(`unseal() of ${id}, which is not mapped`)
    if (mapping.backing.state !== 'live') {
      this.world.fail(`unseal() of ${id}: its backing is ${mapping.backing.state}`)
    }
    mapping.sealed = false
  }

  unmap(id: number): void | Promise<void> {
    for (const channel of this.channels) {
      if (channel.isMoving && channel.names(id)) {
        this.world.fail(`unmap() of ${id} under channel ${channel.index}, which is not stopped`)
      }
    }
    this.unmaps++
    const finish = () => {
      const mapping = this.#mappings.get(id)
      if (mapping !== undefined) mapping.alive = false
      this.#mappings.delete(id)
    }
    if (this.faults.slow !== true) return finish()
    return new Promise((resolve) => {
      this.world.event(`unmap ${id}`, () => {
        finish()
        resolve()
      })
    })
  }

  close(): void {
    for (const channel of this.channels) channel.close()
  }
}

/** What plants of RDMA devices have in common, wherever the other end is. */
import { P2pdmaError } from '../../errors.js'
import type { DeviceAxes } from '../axes.js'
import type { Lane } from '../lanes.js'
import { layOutBlocks } from '../layout.js'
import type { SmokeOptions } from '../options.js'
import { pinnedBytes } from '../memory.js'
import { checkMemory } from '../plan.js'
import type { Conclusion, Plant, Port, Station } from '../plant.js'
import type { Scenario } from '../scenarios.js'

export abstract class RdmaPlant implements Plant {
  abstract readonly facts: readonly string[]
  abstract readonly scenarios: readonly Scenario[]
  readonly axes: readonly DeviceAxes[]
  readonly judgedSize = 0
  readonly aimMs = 3000
  /** While the blocks of one are on their way nobody has a bracket open on its buffers. */
  readonly window = (pairs: number) => pairs
  readonly header = new Uint8Array()
  readonly layOut = layOutBlocks
  readonly concludes = true
  /** No device counts them; the scenario that would ask is not among these. */
  readonly bytes = 0
  /** No device does as it is told there. */
  readonly injected = 0
  readonly #pinned: number

  /** `pinned`: bytes, before the devices were opened. */
  constructor(axes: readonly DeviceAxes[], pinned: number) {
    this.axes = axes
    this.#pinned = pinned
  }

  check(options: SmokeOptions, played: readonly Scenario[]): void {
    checkMemory(options, undefined, played)
  }

  abstract open(): Station

  async conclude(): Promise<Conclusion> {
    await this.close()
    const left = pinnedBytes() - this.#pinned
    return { check: { ok: left === 0, name: `${left} pinned bytes are left` }, dmaFaults: null }
  }

  abstract close(): Promise<void>
}

export abstract class RdmaStation implements Station {
  abstract readonly source: Port
  abstract readonly target: Port
  abstract readonly resets: number

  lane(): Lane {
    throw new P2pdmaError('a lane over RDMA is opened by its kind', { code: 'ERR_UNSUPPORTED' })
  }

  inject(): void {}

  abstract close(): Promise<void>
}

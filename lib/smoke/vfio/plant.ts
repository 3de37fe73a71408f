/** Two NICs, one of which sends what the other receives, and a device with memory. */
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { VfioEngine } from '../../engines/index.js'
import { P2pdmaError } from '../../errors.js'
import { Importer } from '../../move-notify/importer.js'
import type { Form, Lane } from '../lanes.js'
import { type Layout, layOutFrames } from '../layout.js'
import type { SmokeOptions } from '../options.js'
import type { Placement } from '../pair.js'
import { checkMemory } from '../plan.js'
import type { Conclusion, Plant, Port, Station } from '../plant.js'
import { Probe } from '../probe.js'
import type { Scenario } from '../scenarios.js'
import type { Tally } from '../tally.js'
import { type Cast, castDevices } from './devices.js'
import { FrameLane } from './frame-lane.js'
import { ethernetHeader } from './header.js'
import { frameScenarios } from './scenarios.js'

/** How long the links may take to come up, ms: autonegotiation takes a few seconds. */
const LINK_MS = 10_000

export async function openVfioPlant(
  nics: string,
  options: SmokeOptions,
  system: Placement,
): Promise<VfioPlant> {
  const locked = lockedBytes()
  const cast = castDevices(nics, options.memory)
  const engines: VfioEngine[] = []
  try {
    for (const address of [cast.sender, cast.receiver]) engines.push(await VfioEngine.open(address))
    for (const engine of engines) await untilLinkIsUp(engine)
    const [sender, receiver] = engines as [VfioEngine, VfioEngine]
    return new VfioPlant(cast, sender, receiver, system, locked)
  } catch (error) {
    for (const engine of engines) await engine.close()
    throw error
  }
}

async function untilLinkIsUp(engine: VfioEngine): Promise<void> {
  const deadline = performance.now() + LINK_MS
  while (engine.link?.isUp !== true) {
    if (performance.now() > deadline) {
      throw new P2pdmaError(`${engine.name} has no link`, {
        code: 'ERR_NO_LINK',
        hint: 'connect the two NICs to each other',
      })
    }
    await sleep(20)
  }
}

/** What is pinned for DMA counts as locked: vfio_iommu_type1.c, vfio_lock_acct(). */
function lockedBytes(): number {
  const text = readFileSync('/proc/self/status', 'utf8')
  return Number(/^VmLck:\s+(\d+) kB/m.exec(text)?.[1] ?? 0) * 1024
}

export class VfioPlant implements Plant {
  readonly sender: VfioEngine
  readonly receiver: VfioEngine
  readonly facts: readonly string[]
  readonly scenarios: readonly Scenario[]
  readonly judgedSize = 0
  readonly aimMs = 1000
  readonly header: Uint8Array
  readonly layOut = layOutFrames
  readonly concludes = true
  /** Addresses in use with nothing attached, and bytes pinned before the devices were opened. */
  readonly #idle: readonly number[]
  readonly #locked: number

  constructor(
    cast: Cast,
    sender: VfioEngine,
    receiver: VfioEngine,
    system: Placement,
    locked: number,
  ) {
    this.sender = sender
    this.receiver = receiver
    this.header = ethernetHeader(receiver.mac ?? '', sender.mac ?? '')
    this.scenarios = frameScenarios(this, system)
    this.facts = facts(cast)
    this.#idle = this.#taken()
    this.#locked = locked
  }

  get bytes(): number {
    return this.receiver.stats().device['goodOctetsReceived'] ?? 0
  }

  check(options: SmokeOptions): void {
    checkMemory(options, undefined, this.scenarios)
  }

  open(): Station {
    return new VfioStation(this.sender, this.receiver)
  }

  #taken(): number[] {
    return [this.sender, this.receiver].map(({ device }) => device.space.iovas.taken)
  }

  async conclude(): Promise<Conclusion> {
    const ranges = this.#taken().map((count, i) => count - (this.#idle[i] ?? 0))
    const left = ranges.reduce((sum, count) => sum + count, 0)
    await this.close()
    const pinned = lockedBytes() - this.#locked
    return {
      check: {
        ok: left === 0 && pinned === 0,
        name: `given back: ${left} IOVA ranges and ${pinned} pinned bytes are left`,
      },
      dmaFaults: null,
    }
  }

  async close(): Promise<void> {
    await Promise.all([this.sender.close(), this.receiver.close()])
  }
}

function facts({ sender, receiver, memory }: Cast): string[] {
  return [
    `engine vfio: real, ${sender} sends what ${receiver} receives, each behind the IOMMU`,
    memory === null
      ? 'no memory device: `p2pdma bind` one, and name it by --memory'
      : `memory device ${memory}: real, frames go out of its BAR and into it`,
  ]
}

/** Frames on the way at most. */
const DEPTH = 256

class VfioStation implements Station {
  readonly source: Port
  readonly target: Port
  readonly #sender: VfioEngine
  readonly #receiver: VfioEngine

  constructor(sender: VfioEngine, receiver: VfioEngine) {
    this.#sender = sender
    this.#receiver = receiver
    this.source = port(sender)
    this.target = port(receiver)
  }

  lane(form: Form, tally: Tally): Lane {
    const half = (engine: VfioEngine, { importer }: Port, queue: string) => ({
      engine,
      channel: importer.channel({ queue, depth: DEPTH }),
    })
    return new FrameLane(
      form,
      half(this.#sender, this.source, 'tx'),
      half(this.#receiver, this.target, 'rx'),
      tally,
    )
  }

  /** No device of these does as it is told there. */
  inject(_kind: unknown, _lane: Lane, _layout: Layout): void {}

  async close(): Promise<void> {
    await this.source.importer.close()
    await this.target.importer.close()
  }
}

function port(engine: VfioEngine): Port {
  const probe = new Probe(engine)
  return { probe, importer: new Importer(probe) }
}

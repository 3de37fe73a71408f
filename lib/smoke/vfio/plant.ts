/** Two NICs, one of which sends what the other receives, and a device with memory. */
import { VfioEngine } from '../../engines/index.js'
import { P2pdmaError } from '../../errors.js'
import { type VfioBarExporter, vfioBar } from '../../exporters/index.js'
import { waitUntil } from '../../kernel/patience.js'
import { Importer } from '../../move-notify/importer/importer.js'
import type { Form, Lane } from '../lanes.js'
import { type Layout, layOutFrames } from '../layout.js'
import type { SmokeOptions } from '../options.js'
import type { Placement } from '../pair.js'
import { pinnedBytes } from '../memory.js'
import { checkMemory } from '../plan.js'
import type { Conclusion, Plant, Port, Station } from '../plant.js'
import { Probe } from '../probe.js'
import type { Scenario } from '../scenarios.js'
import type { Tally } from '../tally.js'
import { type Cast, castDevices } from './devices.js'
import { FrameLane } from './frame-lane.js'
import { FaultWatch } from './faults.js'
import { ethernetHeader } from './header.js'
import { frameScenarios, witnessScenario } from './scenarios.js'

/** How long the links may take to come up, ms: autonegotiation takes a few seconds. */
const LINK_MS = 10_000

export async function openVfioPlant(
  nics: string,
  options: SmokeOptions,
  system: Placement,
): Promise<VfioPlant> {
  const pinned = pinnedBytes()
  const cast = castDevices(nics, options.memory)
  const engines: VfioEngine[] = []
  const faults = new FaultWatch([cast.sender, cast.receiver, cast.memory ?? ''])
  try {
    for (const address of [cast.sender, cast.receiver]) engines.push(await VfioEngine.open(address))
    for (const engine of engines) await untilLinkIsUp(engine)
    const [sender, receiver] = engines as [VfioEngine, VfioEngine]
    const memory = cast.memory === null ? null : await openMemory(cast.memory)
    const parts = { cast, sender, receiver, memory, faults, pinned }
    return new VfioPlant(parts, system, options.witness)
  } catch (error) {
    faults.close()
    for (const engine of engines) await engine.close()
    throw error
  }
}

/** What cannot be opened is said now, not in the middle of the run. */
async function openMemory(address: string): Promise<VfioBarExporter> {
  const memory = vfioBar(address)
  const backing = await memory.allocate(1)
  await backing.free()
  return memory
}

async function untilLinkIsUp(engine: VfioEngine): Promise<void> {
  if (await waitUntil(() => engine.link?.isUp === true, LINK_MS, 20)) return
  throw new P2pdmaError(`${engine.name} has no link`, {
    code: 'ERR_NO_LINK',
    hint: 'connect the two NICs to each other',
  })
}

interface Parts {
  cast: Cast
  sender: VfioEngine
  receiver: VfioEngine
  memory: VfioBarExporter | null
  faults: FaultWatch
  /** Bytes pinned before the devices were opened. */
  pinned: number
}

export class VfioPlant implements Plant {
  readonly sender: VfioEngine
  readonly receiver: VfioEngine
  readonly faults: FaultWatch
  readonly iommu: NonNullable<Plant['iommu']>
  readonly facts: readonly string[]
  readonly scenarios: readonly Scenario[]
  readonly judgedSize = 0
  readonly aimMs = 3000
  /** While the frames of one are on their way nobody has a bracket open on its buffers. */
  readonly window = (pairs: number) => pairs
  readonly header: Uint8Array
  readonly layOut = layOutFrames
  readonly concludes = true
  /** No device of these does as it is told there. */
  readonly injected = 0
  /** Addresses in use with nothing attached. */
  readonly #idle: readonly number[]
  readonly #pinned: number
  readonly #memory: VfioBarExporter | null

  constructor(parts: Parts, system: Placement, isWitness: boolean) {
    const { cast, sender, receiver, memory, faults, pinned } = parts
    this.faults = faults
    this.#memory = memory
    this.sender = sender
    this.receiver = receiver
    this.header = ethernetHeader(receiver.mac ?? '', sender.mac ?? '')
    this.scenarios = isWitness
      ? [witnessScenario(this, system)]
      : frameScenarios(this, system, memory)
    this.iommu = sender.device.space.kind
    this.facts = facts(cast, faults, this.iommu)
    this.#idle = this.#taken()
    this.#pinned = pinned
  }

  get bytes(): number {
    return this.receiver.stats().device['goodOctetsReceived'] ?? 0
  }

  check(options: SmokeOptions, played: readonly Scenario[]): void {
    checkMemory(options, undefined, played)
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
    await this.#closeDevices()
    const faults = this.faults.unexpected
    const pinned = pinnedBytes() - this.#pinned
    const count = faults?.length ?? null
    const seen = count === null ? 'nobody to see DMA faults' : `${count} unexpected DMA faults`
    const first = faults?.[0]
    const which = first === undefined ? '' : ` (${first.device} at 0x${first.iova.toString(16)})`
    return {
      check: {
        ok: left === 0 && pinned === 0 && (count ?? 0) === 0,
        name: `${seen}${which}; ${left} IOVA ranges and ${pinned} pinned bytes are left`,
      },
      dmaFaults: count,
    }
  }

  async close(): Promise<void> {
    await this.#closeDevices()
    this.faults.close()
  }

  async #closeDevices(): Promise<void> {
    await Promise.all([this.sender.close(), this.receiver.close(), this.#memory?.close()])
  }
}

function facts(
  { sender, receiver, memory }: Cast,
  { missing }: FaultWatch,
  iommu: NonNullable<Plant['iommu']>,
): string[] {
  return [
    `engine vfio: real, ${sender} sends what ${receiver} receives, each behind the IOMMU (${iommu})`,
    memory === null
      ? 'no memory device: `p2pdma bind` one, and name it by --memory'
      : `memory device ${memory}: real, frames go out of its BAR and into it`,
    missing === null
      ? "the IOMMU's faults are read from the kernel's log"
      : `the IOMMU's faults cannot be read: ${missing}`,
  ]
}

/** Frames on the way at most. */
const DEPTH = 1024

class VfioStation implements Station {
  readonly source: Port
  readonly target: Port
  readonly #sender: VfioEngine
  readonly #receiver: VfioEngine
  readonly #before: number

  constructor(sender: VfioEngine, receiver: VfioEngine) {
    this.#sender = sender
    this.#receiver = receiver
    this.source = port(sender)
    this.target = port(receiver)
    this.#before = this.#total
  }

  get #total(): number {
    return this.#sender.stats().resets + this.#receiver.stats().resets
  }

  get resets(): number {
    return this.#total - this.#before
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

/** RDMA devices: one end of a connection reads, writes or sends what the other has. */
import { VerbsEngine } from '../../engines/verbs/engine.js'
import type { Peer } from '../../engines/verbs/peer.js'
import type { Exporter } from '../../move-notify/exporter/backing.js'
import { Importer } from '../../move-notify/importer/importer.js'
import { MovableBuffer } from '../../move-notify/exporter/movable-buffer.js'
import type { DeviceAxes } from '../axes.js'
import type { Form, Lane } from '../lanes.js'
import { portChoice, type SmokeOptions } from '../options.js'
import type { Placement } from '../pair.js'
import { pinnedBytes } from '../memory.js'
import type { Port } from '../plant.js'
import { Probe } from '../probe.js'
import type { Scenario } from '../scenarios.js'
import { describe, type Tally } from '../tally.js'
import { castVerbsDevices, describePort } from './devices.js'
import { type End, openEnds } from './ends.js'
import { chooseLink, type NetLink } from './links.js'
import { MessageLane } from './message-lane.js'
import { OneSidedLane } from './one-sided-lane.js'
import { RdmaPlant, RdmaStation } from './rdma-plant.js'
import { askRigMover } from './rig-mover.js'
import { verbsScenarios } from './scenarios.js'

export async function openVerbsPlant(
  names: string,
  options: SmokeOptions,
  system: Placement,
): Promise<VerbsPlant> {
  const pinned = pinnedBytes()
  const choice = portChoice(options)
  const cast = await castVerbsDevices(names, choice)
  const engines: VerbsEngine[] = []
  try {
    for (const name of cast) engines.push(await VerbsEngine.open(name, choice))
    const [first, second] = engines as [VerbsEngine, VerbsEngine]
    const peers = await first.pair(second)
    const axes = await askAxes(engines, system.to)
    const ports = engines.map(({ port }) => port)
    // Where nobody has asked for it, nobody needs to know.
    const isAsked = options.disruptive.includes('link')
    const link = isAsked ? await chooseLink(ports, options.links) : UNASKED
    return new VerbsPlant([first, second], peers, { axes, system, pinned, link })
  } catch (error) {
    for (const engine of engines) await engine.close()
    throw error
  }
}

/** How each device takes each exporter's memory. What is not here is said elsewhere. */
export async function askAxes(
  engines: readonly VerbsEngine[],
  exporters: readonly Exporter[],
): Promise<DeviceAxes[]> {
  const axes = new Map<string, DeviceAxes>()
  // One device alone is both ends.
  const known = new Map(engines.map((engine) => [engine.device.name, engine]))
  for (const exporter of exporters) {
    const backing = await exporter.allocate(1).catch(() => null)
    if (backing === null) continue
    try {
      for (const [device, engine] of known) {
        const { placement } = exporter
        const told = engine.axes(backing)
        const refused = told.registration === 'dma-buf' ? await refusal(engine, exporter) : null
        axes.set(`${device} ${placement}`, {
          ...{ device, exporter: placement, ...told },
          ...(refused !== null && {
            ...{ registration: 'none' as const, mover: 'us' as const, reason: refused },
            decidedBy: 'an attempt to register it',
          }),
        })
      }
    } finally {
      await backing.free()
    }
  }
  return [...axes.values(), ...(await askRigMover([...known.values()]))]
}

/** Why the device does not take this exporter's memory after all; null where it does. */
async function refusal(engine: VerbsEngine, exporter: Exporter): Promise<string | null> {
  const importer = new Importer(engine)
  const buffer = await MovableBuffer.create(1, exporter)
  try {
    await importer.attach(buffer)
    return null
  } catch (error) {
    return describe(error)
  } finally {
    await importer.close()
    await buffer.close()
  }
}

/** Whose link is left alone in any case: see `whyUnasked()`. */
const UNASKED = ''

interface Parts {
  axes: readonly DeviceAxes[]
  system: Placement
  /** Bytes, before the devices were opened. */
  pinned: number
  /** The one that may be taken down; or why there is none. */
  link: NetLink | string
}

export class VerbsPlant extends RdmaPlant {
  readonly link: NetLink | string
  readonly engines: readonly [VerbsEngine, VerbsEngine]
  readonly peers: readonly [Peer, Peer]
  readonly facts: readonly string[]
  readonly scenarios: readonly Scenario[]

  constructor(
    engines: readonly [VerbsEngine, VerbsEngine],
    peers: readonly [Peer, Peer],
    { axes, system, pinned, link }: Parts,
  ) {
    super(axes, pinned)
    this.engines = engines
    this.peers = peers
    this.link = link
    this.scenarios = verbsScenarios(this, system)
    const [first, second] = engines.map(({ port }) => port.name)
    this.facts = [
      first === second
        ? `engine verbs: RDMA, two queue pairs of ${first}, connected to each other`
        : `engine verbs: RDMA between ${first} and ${second}, both ends in this process`,
      ...new Set(engines.map(({ port }) => describePort(port))),
    ]
  }

  open(): VerbsStation {
    return new VerbsStation(this)
  }

  async close(): Promise<void> {
    await Promise.all(this.engines.map((engine) => engine.close()))
  }
}

export type Kind = 'write' | 'read' | 'message'

export class VerbsStation extends RdmaStation {
  readonly source: Port
  readonly target: Port
  readonly #plant: VerbsPlant
  readonly #before: number

  constructor(plant: VerbsPlant) {
    super()
    this.#plant = plant
    const [first, second] = plant.engines
    this.source = verbsPort(first)
    this.target = verbsPort(second)
    this.#before = resetsOf(plant)
  }

  /** How often ends of queue pairs have been connected anew. */
  get resets(): number {
    return resetsOf(this.#plant) - this.#before
  }

  /** The same of all but these. */
  resetsBeside(queues: readonly string[]): number {
    const resetsOf = (engine: VerbsEngine, queue: string) => engine.stats({ queue }).resets
    return this.#plant.engines.reduce(
      (sum, engine) => queues.reduce((rest, queue) => rest - resetsOf(engine, queue), sum),
      this.resets,
    )
  }

  /** The source's end and the target's of one more queue pair. */
  ends(): Promise<[End, End]> {
    return openEnds(this.#plant.peers, [this.source, this.target])
  }

  /** Writes are the source's to do, reads the target's, and messages go from one to the other. */
  async open(kind: Kind, form: Form, tally: Tally): Promise<Lane> {
    const [source, target] = await this.ends()
    if (kind === 'write') return new OneSidedLane(kind, form, source, target, tally)
    if (kind === 'read') return new OneSidedLane(kind, form, target, source, tally)
    return new MessageLane(form, source, target, tally)
  }

  async close(): Promise<void> {
    await this.source.importer.close()
    await this.target.importer.close()
  }
}

function resetsOf({ engines }: VerbsPlant): number {
  // One device alone is both ends.
  return [...new Set(engines)].reduce((sum, engine) => sum + engine.stats().resets, 0)
}

export function verbsPort(engine: VerbsEngine): Port {
  const probe = new Probe(engine)
  return { probe, importer: new Importer(probe) }
}

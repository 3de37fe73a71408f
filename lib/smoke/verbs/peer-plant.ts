/** One RDMA device here, and a peer on another host, which runs `p2pdma serve`. */
import { isIPv6 } from 'node:net'
import { VerbsEngine } from '../../engines/verbs/engine.js'
import type { Peer } from '../../engines/verbs/peer.js'
import { P2pdmaError } from '../../errors.js'
import type { DeviceAxes } from '../axes.js'
import type { Form, Lane } from '../lanes.js'
import { PORT, portChoice, type SmokeOptions } from '../options.js'
import type { Placement } from '../pair.js'
import { pinnedBytes } from '../memory.js'
import type { Port } from '../plant.js'
import {
  type Goal,
  type Outcome,
  type Scenario,
  softwareAlone,
  stampedUnderMoves,
} from '../scenarios.js'
import type { SmokeStage } from '../stage.js'
import { castVerbsDevices, describePort } from './devices.js'
import { DEPTH } from './ends.js'
import { EchoLane, RoundTripLane, type Served } from './peer-lanes.js'
import { askAxes, verbsPort } from './plant.js'
import { RdmaPlant, RdmaStation } from './rdma-plant.js'
import { saw } from './scenarios.js'
import { SERVED } from './serve.js'

interface Address {
  host: string
  port: number
}

export async function openPeerPlant(
  names: string,
  options: SmokeOptions,
  system: Placement,
): Promise<PeerPlant> {
  const address = parsePeer(options.peer ?? '')
  const pinned = pinnedBytes()
  const choice = portChoice(options)
  const [device] = await castVerbsDevices(names, choice)
  const engine = await VerbsEngine.open(device, choice)
  try {
    const axes = await askAxes([engine], system.to)
    // What cannot be reached is said now. It stays until the engine is closed: whoever serves
    // this run alone knows by it when the run has ended.
    await engine.connect(address)
    return new PeerPlant(engine, address, axes, system, pinned)
  } catch (error) {
    await engine.close()
    throw error
  }
}

/** `host`, `host:port`, `[2001:db8::1]:port`, `[fe80::1%eth0]:port`. */
export function parsePeer(text: string): Address {
  const [, bracketed, plain, digits] =
    /^(?:\[([^\]]+)\]|([\w.-]+))(?::(\d{1,5}))?$/.exec(text) ?? []
  const host = bracketed ?? plain
  const port = digits === undefined ? PORT : Number(digits)
  const isAddress = host !== undefined && (bracketed === undefined || isIPv6(bracketed))
  if (isAddress && port > 0 && port < 65536) return { host, port }
  throw new P2pdmaError(`--peer takes HOST or HOST:PORT, not ${JSON.stringify(text)}`, {
    code: 'ERR_INVALID_ARG_VALUE',
    argument: 'peer',
    hint: 'as in 192.0.2.7:18515, or [fe80::1%eth0]:18515, where `p2pdma serve` runs',
  })
}

class PeerPlant extends RdmaPlant {
  readonly engine: VerbsEngine
  readonly address: Address
  readonly facts: readonly string[]
  readonly scenarios: readonly Scenario[]

  constructor(
    engine: VerbsEngine,
    address: Address,
    axes: readonly DeviceAxes[],
    system: Placement,
    pinned: number,
  ) {
    super(axes, pinned)
    this.engine = engine
    this.address = address
    this.scenarios = peerScenarios(system)
    const { host, port } = address
    this.facts = [
      `engine verbs: RDMA from ${engine.port.name} to ${host}, port ${port}; the peer moves its buffers by itself, and does not count here`,
      describePort(engine.port),
    ]
  }

  open(): PeerStation {
    return new PeerStation(this)
  }

  async close(): Promise<void> {
    await this.engine.close()
  }
}

/** A connection for each scenario: what the peer has for it goes with it. */
class PeerStation extends RdmaStation {
  readonly source: Port
  readonly target: Port
  readonly #plant: PeerPlant
  readonly #before: number
  #peer: Peer | null = null
  #queues = 0

  constructor(plant: PeerPlant) {
    super()
    this.#plant = plant
    this.source = this.target = verbsPort(plant.engine)
    this.#before = plant.engine.stats().resets
  }

  get resets(): number {
    return this.#plant.engine.stats().resets - this.#before
  }

  /** One more queue pair, and the peer's buffer for it. */
  async #serve(size: number): Promise<Served> {
    this.#peer ??= await this.#plant.engine.connect(this.#plant.address)
    const { importer } = this.source
    const queue = await this.#peer.openQueue({ depth: DEPTH })
    const channel = importer.channel({ queue, depth: DEPTH })
    const offered = await this.#peer.offered(`${SERVED}-${this.#queues++}`)
    if (offered.size < size) {
      throw new P2pdmaError(`the peer's buffers are of ${offered.size} bytes, ours of ${size}`, {
        code: 'ERR_OUT_OF_RANGE',
        argument: 'size',
        hint: `give both the same --size`,
      })
    }
    return { channel, remote: offered.attach(importer) }
  }

  async roundTrip(form: Form, { pairs, tally, run }: SmokeStage): Promise<Lane> {
    const served: Served[] = []
    for (const _ of pairs) served.push(await this.#serve(run.options.size))
    return new RoundTripLane(form, served, tally)
  }

  async echo({ tally, run }: SmokeStage): Promise<Lane> {
    // Every other one sends back: see serve.ts.
    await this.#serve(run.options.size)
    const { channel } = await this.#serve(run.options.size)
    return new EchoLane(channel, tally)
  }

  async close(): Promise<void> {
    await this.source.importer.close()
    await this.#peer?.close()
  }
}

function peerScenarios(system: Placement): Scenario[] {
  const scenario = (
    name: string,
    open: (station: PeerStation, stage: SmokeStage) => Promise<Lane>,
  ): Scenario => ({
    ...{ name, share: 1 / 3, bytesShare: 1 / 3, pairs: (asked) => asked, movesAtOnce: () => 1 },
    effects: [],
    placements: { source: system, target: system },
    run: (stage, goal) => underMoves(stage, goal, open),
  })
  return [
    scenario('written to the peer and read back, promise form', (station, stage) =>
      station.roundTrip('promise', stage),
    ),
    scenario('written to the peer and read back, batch form', (station, stage) =>
      station.roundTrip('batch', stage),
    ),
    scenario('sent to the peer, which sends it back', (station, stage) => station.echo(stage)),
    ...softwareAlone(),
  ]
}

async function underMoves(
  stage: SmokeStage,
  goal: Goal,
  open: (station: PeerStation, stage: SmokeStage) => Promise<Lane>,
): Promise<Outcome> {
  const lane = stage.adopt(await open(stage.station as PeerStation, stage))
  await stampedUnderMoves(stage, goal, lane)
  return { checks: [], saw: () => saw(stage) }
}

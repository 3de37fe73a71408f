/**
 * The witness scenario: a mapping is taken away behind the heart's back, with
 * receives posted into it, and frames are sent there. The IOMMU faults each,
 * the kernel says so, and no byte changes.
 */
import { P2pdmaError } from '../../errors.js'
import { FAULT_PAGE } from '../../kernel/dma-fault.js'
import { FRAME_SLOT, groupSlots, payloadOffset } from '../layout.js'
import type { Side } from '../pair.js'
import { sleep } from '../../move-notify/reservation/deadline.js'
import { type Check, type Goal, type Outcome, stampedUnderMoves } from '../scenarios.js'
import type { SmokeStage } from '../stage.js'
import { FrameLane } from './frame-lane.js'
import { HEADER_BYTES } from './header.js'
import type { VfioPlant } from './plant.js'

/** Frames sent one by one: as far apart as the kernel's log needs to have each. */
const SINGLE = 8
const APART_MS = 2000
const BURST = 1000

export async function witness(plant: VfioPlant, stage: SmokeStage, goal: Goal): Promise<Outcome> {
  const lane = stage.lane('promise')
  const [pair] = stage.pairs
  if (!(lane instanceof FrameLane) || pair === undefined) throw new TypeError('no frames')
  // The same way, mapped: so that what does not arrive later is the IOMMU's doing.
  await stampedUnderMoves(stage, { ...goal, moves: Math.min(goal.moves, 4) }, lane)
  const { target } = pair
  const { backing } = target.buffer
  const deliberate = new Deliberate(plant, stage, lane, pair.source, target)
  await backing.poison()
  const matched = await deliberate.singles()
  const arrived = await deliberate.burst()
  const changed = await backing.countStrayWrites()
  const all = Array.from({ length: stage.layout.groups }, (_, group) =>
    groupSlots(stage.layout, group),
  ).flat()
  await stage.run.stamps.clear(target.buffer, all)
  const checks: Check[] = [
    { ok: matched === SINGLE, name: `${matched} of ${SINGLE} frames matched to their DMA faults` },
    { ok: arrived === BURST, name: `${arrived} of ${BURST} frames of a burst taken by the device` },
    { ok: changed === 0, name: `${changed} runs of bytes changed in the memory that was revoked` },
  ]
  const saw = () =>
    `${SINGLE} frames to a revoked IOVA, ${APART_MS / 1000} s apart: ${matched} faults at their ` +
    `addresses; a burst of ${BURST}: ${changed} bytes changed`
  return { checks, saw }
}

/** Frames into a mapping that is gone. */
class Deliberate {
  readonly #plant: VfioPlant
  readonly #stage: SmokeStage
  readonly #lane: FrameLane
  readonly #source: Side
  readonly #iova: number
  readonly #receives: Promise<unknown>[] = []

  constructor(plant: VfioPlant, stage: SmokeStage, lane: FrameLane, source: Side, target: Side) {
    this.#plant = plant
    this.#stage = stage
    this.#lane = lane
    this.#source = source
    const { receiver } = plant
    const { attachment, buffer } = target
    const iova = receiver.iovaOf(attachment.id)
    if (iova === null) throw new P2pdmaError('the target is not mapped', { code: 'ERR_NO_IOMMU' })
    this.#iova = iova
    for (let frame = 0; frame < SINGLE + BURST; frame++) {
      const offset = this.#offset(frame)
      this.#receives.push(lane.receiver.channel.receive(attachment, offset, FRAME_SLOT))
    }
    plant.faults.expect(receiver.device.address, iova, iova + buffer.size)
    // Behind the heart's back: nothing has been stopped.
    void receiver.unmap(attachment.id)
  }

  /** A page for each of the first ones: that is what the kernel's log tells. */
  #offset(frame: number): number {
    const { layout } = this.#stage
    const slot = (2 * frame) % (layout.groups * layout.groupSize)
    return payloadOffset(layout, slot) - HEADER_BYTES
  }

  async #send(frame: number): Promise<void> {
    const { layout } = this.#stage
    const { attachment } = this.#source
    const length = HEADER_BYTES + layout.payload
    await this.#lane.sender.channel.send(attachment, this.#offset(frame), length)
    // The device has written it, as far as it knows.
    await this.#receives[frame]
  }

  /** How many of the frames were seen to fault where they should, and nowhere else. */
  async singles(): Promise<number> {
    const { faults, receiver } = this.#plant
    faults.look()
    let matched = 0
    for (let frame = 0; frame < SINGLE && !this.#stage.run.signal.aborted; frame++) {
      await this.#send(frame)
      await sleep(APART_MS)
      const page = Math.floor((this.#iova + this.#offset(frame)) / FAULT_PAGE)
      const seen = faults.look()
      const fits = seen.every(
        ({ device, write, iova }) =>
          device === receiver.device.address && write && Math.floor(iova / FAULT_PAGE) === page,
      )
      if (seen.length > 0 && fits) matched++
    }
    return matched
  }

  async burst(): Promise<number> {
    const all = Array.from({ length: BURST }, (_, i) => this.#send(SINGLE + i))
    const done = await Promise.allSettled(all)
    return done.filter(({ status }) => status === 'fulfilled').length
  }
}

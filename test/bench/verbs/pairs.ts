/** Ours beside theirs: both ends of a queue pair, and figures taken in turns. */
import { VerbsEngine } from '../../../lib/engines/index.js'
import { memfd } from '../../../lib/exporters/index.js'
import { MovableBuffer } from '../../../lib/move-notify/exporter/movable-buffer.js'
import { type Ratio, ratioOf } from '../measure.js'
import type { Device, Devices } from './devices.js'
import { FarEnd } from './far-end.js'

/** One end of a queue pair to a far end, and a buffer of so many bytes. */
export async function open({ near, far }: Devices, depth: number, size: number) {
  const engine = await VerbsEngine.open(near.name, { gidIndex: near.gidIndex })
  const end = await FarEnd.start(engine, far, { queues: 1, depth, size })
  const importer = engine.importer({ minRunMs: 0 })
  const channel = importer.channel({ queue: end.queues[0], depth })
  const buffer = await MovableBuffer.create(size, memfd())
  const attachment = await importer.attach(buffer)
  const close = async () => {
    await end[Symbol.asyncDispose]()
    await engine.close()
    await buffer.close()
  }
  return { importer, end, channel, attachment, [Symbol.asyncDispose]: close }
}

export type Measure = () => Promise<number>

/**
 * Ours, theirs, and theirs again as a control, in turns: each round begins with
 * another of the three. One round beforehand is thrown away, unless there is but one.
 */
export async function rounds(count: number, measures: readonly Measure[]): Promise<number[][]> {
  const samples: number[][] = []
  for (let round = count > 1 ? -1 : 0; round < count; round++) {
    const sample: number[] = []
    for (let i = 0; i < measures.length; i++) {
      const at = (i + round + measures.length) % measures.length
      sample[at] = await measures[at]!()
    }
    if (round >= 0) samples.push(sample)
  }
  return samples
}

const pick = (samples: readonly number[][], a: number, b: number) =>
  samples.map((sample) => [sample[a] ?? NaN, sample[b] ?? NaN] as const)

export function withControl(
  name: string,
  unit: string,
  samples: number[][],
  parameters: Ratio['parameters'],
): Ratio[] {
  return [
    ratioOf(name, unit, pick(samples, 0, 1), parameters),
    ratioOf(`control_${name}`, unit, pick(samples, 2, 1), parameters),
  ]
}

export const sides = ({ near, far }: Devices) => `${near.name} to ${far.name}, a process each`
export const same = (device: Device) => ({ mtu: device.mtu, inline: 0 })

/** Bandwidth, message rate and latency on one queue pair, against perftest and against C. */
import { VerbsEngine } from '../../../lib/engines/index.js'
import { memfd } from '../../../lib/exporters/index.js'
import { MovableBuffer } from '../../../lib/move-notify/movable-buffer.js'
import { quantile, type Ratio, ratioOf } from '../measure.js'
import { pingInC } from './c-peer.js'
import type { Device, Devices } from './devices.js'
import { FarEnd } from './far-end.js'
import * as perftest from './perftest.js'
import { PING_DEPTH, Pinger, RECEIVES, RENEWED, type Wait } from './pinger.js'
import { Writer } from './writer.js'

const DEPTH = 128
const KIB = 1024

/** One end of a queue pair to a far end, and a buffer of so many bytes. */
async function open({ near, far }: Devices, depth: number, size: number) {
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

type Measure = () => Promise<number>

/**
 * Ours, theirs, and theirs again as a control, in turns: each round begins with
 * another of the three. One round beforehand is thrown away, unless there is but one.
 */
async function rounds(count: number, measures: readonly Measure[]): Promise<number[][]> {
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

function withControl(
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

const sides = ({ near, far }: Devices) => `${near.name} to ${far.name}, a process each`
const same = (device: Device) => ({ mtu: device.mtu, inline: 0 })

export async function writeRatios(devices: Devices, quick: boolean): Promise<Ratio[]> {
  const size = 64 * KIB
  const count = quick ? 32 : 64
  await using ours = await open(devices, DEPTH, size)
  const remote = (await ours.end.peer.offered('far-0')).attach(ours.importer)
  const options = { size, depth: DEPTH, list: 1 }
  const writer = new Writer(ours.channel, ours.attachment.id, remote.id, options)
  let moderation = 0
  const theirs = async () => {
    const args = ['-s', size, '-n', count, '-t', DEPTH, '-I', 0]
    const figures = await perftest.bandwidth('ib_write_bw', devices, args)
    moderation = figures.moderation
    return figures.bandwidth / 2 ** 20
  }
  const mine = async () =>
    (size * count * 1e9) / (await ours.end.during(writer.write(count))) / 2 ** 20
  const samples = await rounds(quick ? 1 : 9, [mine, theirs, theirs])
  return withControl('write_bw_64k_vs_perftest', 'MiB/s', samples, {
    ...same(devices.near),
    ...{ bytes: size, writes: count, depth: DEPTH, list: 1, ends: sides(devices) },
    ...{
      signalled: `1 of 16 or in 32 KiB; perftest 1 of ${moderation}`,
      waits: 'ours by event, perftest polls',
    },
  })
}

export async function rateRatios(devices: Devices, quick: boolean): Promise<Ratio[]> {
  const size = 64
  const list = 32
  const count = quick ? 256 : 1024
  await using ours = await open(devices, DEPTH, 4 * KIB)
  const remote = (await ours.end.peer.offered('far-0')).attach(ours.importer)
  const options = { size, depth: DEPTH, list }
  const writer = new Writer(ours.channel, ours.attachment.id, remote.id, options)
  let moderation = 0
  const theirs = async () => {
    const args = ['-s', size, '-n', count, '-t', DEPTH, '-l', list, '-I', 0]
    const figures = await perftest.bandwidth('ib_write_bw', devices, args)
    moderation = figures.moderation
    return figures.rate
  }
  const mine = async () => (count * 1e9) / (await ours.end.during(writer.write(count)))
  const samples = await rounds(quick ? 1 : 9, [mine, theirs, theirs])
  return withControl('msg_rate_64b_batch32_vs_perftest', '/s', samples, {
    ...same(devices.near),
    ...{ bytes: size, writes: count, depth: DEPTH, list, ends: sides(devices) },
    ...{
      signalled: `1 of 16 or in 32 KiB; perftest 1 of ${moderation}`,
      waits: 'ours by event, perftest polls',
    },
  })
}

export async function latencyRatios(devices: Devices, quick: boolean): Promise<Ratio[]> {
  const size = 64
  const count = quick ? 32 : 300
  await using ours = await open(devices, PING_DEPTH, 4 * KIB)
  const pinger = new Pinger(ours.channel, ours.attachment.id, size)
  const halves = async (wait: Wait) => {
    await ours.end.ask({ what: 'echo', count, size, wait })
    return ours.end.during(pinger.ping(count, wait))
  }
  // Until it is compiled it takes many times as long, and compiling takes the CPU from it:
  // with the guest's clock counting instructions, for more than 3000 messages.
  const warmUp = quick ? 0 : 5400
  for (let i = 0; i < warmUp; i += count) await halves(i < 4500 ? 'event' : 'poll')
  const mean = async (wait: Wait) => average(await halves(wait))
  const median = async (wait: Wait) => quantile(Array.from((await halves(wait)).toSorted()), 0.5)
  const shape = {
    ...same(devices.near),
    bytes: size,
    messages: count,
    warmUp,
    ends: sides(devices),
  }
  const receives = `ours ${RECEIVES}, ${RENEWED} anew at a time`

  const c = { size, depth: PING_DEPTH, warmUp: quick ? 8 : 100, iterations: count }
  const inC = () => pingInC(devices, c)
  const events = await rounds(quick ? 1 : 9, [() => mean('event'), inC, inC])
  const polls = await rounds(quick ? 1 : 9, [
    () => median('poll'),
    ...[0, 1].map(() => async () => {
      const args = ['-s', size, '-n', count, '-I', 0]
      return (await perftest.latency(devices, args)).median
    }),
  ])
  return [
    ...withControl('send_lat_event_vs_perftest', 'us', events, {
      ...{ ...shape, depth: PING_DEPTH, signalled: 'all', of: 'the mean' },
      ...{ receives: `${receives}; C ${PING_DEPTH}, one`, against: 'C by completion events' },
    }),
    ...withControl('send_lat_poll_vs_perftest', 'us', polls, {
      ...{ ...shape, depth: `${PING_DEPTH}; perftest 1`, of: 'the median' },
      ...{ signalled: 'all', receives: `${receives}; perftest 512, one` },
    }),
  ]
}

function average(samples: Float64Array): number {
  return samples.reduce((sum, each) => sum + each, 0) / samples.length
}

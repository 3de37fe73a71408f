/** Bandwidth and message rate on one queue pair, against perftest. */
import type { Ratio } from '../measure.js'
import type { Devices } from './devices.js'
import { open, rounds, same, sides, withControl } from './pairs.js'
import * as perftest from './perftest.js'
import { Writer } from './writer.js'

const DEPTH = 128
const KIB = 1024

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

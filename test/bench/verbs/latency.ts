/** Half a round trip on one queue pair, against perftest and against C. */
import { availableParallelism } from 'node:os'
import { quantile, type Ratio } from '../measure.js'
import { pingInC } from './c-peer.js'
import type { Devices } from './devices.js'
import { type Measure, open, rounds, same, sides, withControl } from './pairs.js'
import * as perftest from './perftest.js'
import { PING_DEPTH, Pinger, RECEIVES, RENEWED, type Wait } from './pinger.js'

const SIZE = 64
/**
 * Messages beforehand. Until it is compiled it takes many times as long, and compiling
 * takes the CPU from it: where the guest's clock counts instructions, for more than 3000.
 */
const WARM_UP = 4500

const receives = `ours ${RECEIVES}, ${RENEWED} anew at a time`

/** Rounds of messages between us and a far end, and what they have in common with the others'. */
async function openPinger(devices: Devices, quick: boolean, wait: Wait, messages = 300) {
  const count = quick ? 32 : messages
  const ours = await open(devices, PING_DEPTH, 4096)
  const pinger = new Pinger(ours.channel, ours.attachment.id, SIZE)
  const halves = async () => {
    await ours.end.ask({ what: 'echo', count, size: SIZE, wait })
    return ours.end.during(pinger.ping(count, wait))
  }
  const warmUp = quick ? 0 : WARM_UP
  for (let i = 0; i < warmUp; i += count) await halves()
  const shape = {
    ...same(devices.near),
    ...{ bytes: SIZE, messages: count, warmUp, signalled: 'all', ends: sides(devices) },
  }
  const close = () => ours[Symbol.asyncDispose]()
  return { halves, count, shape, [Symbol.asyncDispose]: close }
}

const pairs = (quick: boolean, ours: Measure, theirs: Measure, many = 9) =>
  rounds(quick ? 1 : many, [ours, theirs, theirs])

/** By completion events that are waited for within the call, as C waits for them. */
export const eventRatios = (devices: Devices, quick: boolean) =>
  byEvents('send_lat_event_vs_perftest', devices, quick, 'event')

/** By completion events on the event loop. */
export const loopRatios = (devices: Devices, quick: boolean) =>
  byEvents('send_lat_event_loop_vs_perftest', devices, quick, 'loop')

const CALLS = { event: 'completionsSync()', loop: 'completions()', poll: 'reap()' }

async function byEvents(
  name: string,
  devices: Devices,
  quick: boolean,
  wait: 'event' | 'loop',
): Promise<Ratio[]> {
  await using pinger = await openPinger(devices, quick, wait)
  const { halves, count, shape } = pinger
  const c = { size: SIZE, depth: PING_DEPTH, warmUp: quick ? 8 : 100, iterations: count }
  const ours = async () => average(await halves())
  const samples = await pairs(quick, ours, () => pingInC(devices, c))
  return withControl(name, 'us', samples, {
    ...{ ...shape, depth: PING_DEPTH, of: 'the mean', waits: CALLS[wait] },
    ...{ receives: `${receives}; C ${PING_DEPTH}, one`, against: 'C by completion events' },
  })
}

/** Both ends look without a pause. On one CPU that would measure the scheduler: none then. */
export async function pollRatios(devices: Devices, quick: boolean): Promise<Ratio[]> {
  if (availableParallelism() < 2) {
    const why = 'two ends that poll want two CPUs: rig without --icount'
    process.stderr.write(`bench: send_lat_poll_vs_perftest left out: ${why}\n`)
    return []
  }
  // More messages and pairs than by events: without --icount times spread more.
  await using pinger = await openPinger(devices, quick, 'poll', 1000)
  const { halves, count, shape } = pinger
  const args = ['-s', SIZE, '-n', count, '-I', 0]
  const ours = async () => quantile(Array.from((await halves()).toSorted()), 0.5)
  const theirs = async () => (await perftest.latency(devices, args)).median
  const samples = await pairs(quick, ours, theirs, 25)
  return withControl('send_lat_poll_vs_perftest', 'us', samples, {
    ...{ ...shape, depth: `${PING_DEPTH}; perftest 1`, of: 'the median', waits: CALLS.poll },
    receives: `${receives}; perftest 512, one`,
  })
}

function average(samples: Float64Array): number {
  return samples.reduce((sum, each) => sum + each, 0) / samples.length
}

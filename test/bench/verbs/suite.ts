/** An RDMA NIC against perftest and C, and what moves cost. Wants two devices that reach each other. */
import type { Ratio } from '../measure.js'
import { buildPeer } from './c-peer.js'
import { findDevices } from './devices.js'
import { eventRatios, loopRatios, pollRatios } from './latency.js'
import { bystanderRatios, gapRatios } from './moves.js'
import { rateRatios, writeRatios } from './traffic.js'

const measures = {
  'bandwidth against perftest': writeRatios,
  'message rate against perftest': rateRatios,
  'latency by events against C': eventRatios,
  'latency on the event loop against C': loopRatios,
  'latency by polling against perftest': pollRatios,
  'a move among 1000 regions': gapRatios,
  'bystanders of moves': bystanderRatios,
}

export async function verbsSuite(
  quick: boolean,
  progress: (what: string) => void,
): Promise<Ratio[]> {
  const devices = await findDevices()
  buildPeer()
  const ratios: Ratio[] = []
  for (const [what, measure] of Object.entries(measures)) {
    progress(`verbs: ${what}`)
    ratios.push(...(await measure(devices, quick)))
  }
  return ratios
}

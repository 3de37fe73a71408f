/** An RDMA NIC against perftest and C, and what moves cost. Wants two devices that reach each other. */
import type { Ratio } from '../measure.js'
import { buildPeer } from './c-peer.js'
import { findDevices } from './devices.js'
import { bystanderRatios, gapRatios } from './moves.js'
import { latencyRatios, rateRatios, writeRatios } from './traffic.js'

const measures = [writeRatios, rateRatios, latencyRatios, gapRatios, bystanderRatios]

export async function verbsSuite(quick: boolean): Promise<Ratio[]> {
  const devices = await findDevices()
  buildPeer()
  const ratios: Ratio[] = []
  for (const measure of measures) {
    ratios.push(...(await measure(devices, quick)))
  }
  return ratios
}

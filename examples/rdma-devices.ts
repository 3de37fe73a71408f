/**
 * The RDMA devices of this machine: their ports, addresses and limits, and what
 * each can do that matters here: page faults of its own, atomics.
 */
import { P2pdmaError, VerbsDevice, verbsDevices, type OdpOperations } from 'p2pdma'

const words = (of: OdpOperations) => {
  const can = Object.entries(of).filter(([, does]) => does === true)
  return can.map(([name]) => name).join(', ') || 'nothing'
}

async function show(name: string): Promise<void> {
  await using device = await VerbsDevice.open(name)
  const { firmware, vendorId, ports, atomicity, odp, ...limits } = device.attributes()
  console.log(`${name}: vendor 0x${vendorId.toString(16)}, firmware ${firmware || 'not said'}`)
  for (let portNum = 1; portNum <= ports; portNum++) {
    const { state, activeMtu, maxMtu, linkLayer } = device.port(portNum)
    console.log(`  port ${portNum}: ${state}, ${linkLayer}, MTU ${activeMtu} of ${maxMtu}`)
    for (const { index, gid, type } of device.gids().filter((gid) => gid.portNum === portNum)) {
      console.log(`    GID ${index}: ${gid}, ${type}`)
    }
  }
  const { maxQp, maxQpWr, maxMr, maxMrSize, maxCqe } = limits
  console.log(`  queue pairs: ${maxQp}, of ${maxQpWr} requests; completion queues of ${maxCqe}`)
  console.log(`  memory regions: ${maxMr}, of ${maxMrSize} bytes; atomics: ${atomicity}`)
  console.log(`  faults pages in by itself: ${odp.supported ? words(odp.rc) : 'no'}`)
}

try {
  const names = process.argv.slice(2)
  if (names.length === 0) names.push(...verbsDevices().map(({ name }) => name))
  if (names.length === 0) console.log('no RDMA device: `rdma link add` makes one of soft-RoCE')
  for (const name of names) await show(name)
} catch (error) {
  if (!(error instanceof P2pdmaError)) throw error
  console.log(error.message)
  console.log(error.hint ?? '')
  process.exitCode = error.code === 'ERR_VERBS_MISSING' ? 0 : 1
}

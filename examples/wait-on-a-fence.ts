/**
 * Waits on a fence without blocking the event loop: vgem attaches one to a
 * buffer, as a device that writes to it would, and signals it a little later.
 *
 * Needs the driver vgem: `npm run rig -- node dist/examples/wait-on-a-fence.js`
 */
import { DrmDevice } from 'p2pdma'

using vgem = DrmDevice.open({ driver: 'vgem' })
using buffer = vgem.createBuffer(4096)
using dmaBuf = buffer.exportDmaBuf()

const fence = buffer.attachFence('w')
// A reader waits for writers: the snapshot holds the fence.
using syncFile = dmaBuf.exportSyncFile('r')
const [info] = syncFile.info().fences
console.log(`a fence of ${info?.driver}, status ${syncFile.status}`)

let turns = 0
const counting = setInterval(() => turns++, 1)
setTimeout(() => vgem.signalFence(fence), 50)
try {
  await syncFile.wait({ signal: AbortSignal.timeout(5000) })
} finally {
  clearInterval(counting)
}
await dmaBuf.readable()
console.log(`signalled, status ${syncFile.status}; the loop went on meanwhile: ${turns > 0}`)
if (syncFile.status !== 1 || turns === 0) process.exitCode = 1

/**
 * Sends frames as fast as a NIC takes them, in batches. Takes its PCI address
 * (by default the first 82574 that is bound to vfio-pci, see `p2pdma bind`),
 * how many frames, and their length. Nobody has to listen.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { Batch, Completions, memfd, MovableBuffer, Op, openEngine, pciDevices } from 'p2pdma'

const BATCH = 32
const SLOT = 2048

const [nic] = pciDevices().filter(
  ({ vendor, device, driver }) => vendor === 0x8086 && device === 0x10d3 && driver === 'vfio-pci',
)
const [address = nic?.address, frames = '1024', size = '1514'] = process.argv.slice(2)
if (address === undefined) {
  console.log('bind an 82574 NIC: `p2pdma bind ADDRESS`')
  process.exit()
}

await using engine = await openEngine(`vfio:${address}`)
await using importer = engine.importer()
await using buffer = await MovableBuffer.create(BATCH * SLOT, memfd())
const mac = (engine.mac ?? '').split(':').map((byte) => Number.parseInt(byte, 16))
await buffer.withCpuAccess('w', (cpu) => {
  for (let at = 0; at < BATCH * SLOT; at += SLOT) {
    cpu.view().set([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, ...mac, 0x88, 0xb5], at)
  }
})
const { id } = await importer.attach(buffer)
await using channel = importer.channel({ queue: 'tx', depth: 256 })

const batch = new Batch(BATCH)
batch.op.fill(Op.SEND)
batch.source.fill(id)
batch.length.fill(Number(size))
for (let row = 0; row < BATCH; row++) batch.sourceOffset[row] = row * SLOT
while (engine.link?.isUp !== true) await sleep(10)

const completions = new Completions(BATCH)
const count = Number(frames)
const start = performance.now()
let posted = 0
for (let sent = 0; sent < count;) {
  const row = posted % BATCH
  const accepted = channel.post(batch, row, Math.min(BATCH - row, count - posted))
  posted += accepted
  const reaped = channel.reap(completions)
  sent += reaped
  if (accepted === 0 && reaped === 0) await channel.completions()
}
const seconds = (performance.now() - start) / 1000
const { device, dropped } = engine.stats()
console.log(`${count} frames of ${size} bytes, ${Math.round(count / seconds)} a second`)
console.log(`the NIC says: ${device['packetsTransmitted'] ?? 0} sent, ${dropped} dropped`)

/**
 * Takes frames as they come, in batches, until none has come for two seconds,
 * or none at all for thirty.
 * Takes the PCI address of a NIC (by default the second 82574 that is bound to
 * vfio-pci, see `p2pdma bind`), and how many seconds to wait for the first frame
 * instead. packet-generator.ts has the frames.
 */
import { Batch, Completions, memfd, MovableBuffer, Op, openEngine, pciDevices } from 'p2pdma'

const SLOTS = 256
const SLOT = 2048
const QUIET_MS = 2000

const [, nic] = pciDevices().filter(
  ({ vendor, device, driver }) => vendor === 0x8086 && device === 0x10d3 && driver === 'vfio-pci',
)
const [address = nic?.address, patience = '30'] = process.argv.slice(2)
if (address === undefined) {
  console.log('bind two 82574 NICs, or name one that is bound: `p2pdma bind ADDRESS`')
  process.exit()
}

await using engine = await openEngine(`vfio:${address}`)
await using importer = engine.importer()
await using buffer = await MovableBuffer.create(SLOTS * SLOT, memfd())
const { id } = await importer.attach(buffer)
await using channel = importer.channel({ queue: 'rx', depth: SLOTS })

const batch = new Batch(SLOTS)
batch.op.fill(Op.RECEIVE)
batch.target.fill(id)
batch.length.fill(SLOT)
for (let row = 0; row < SLOTS; row++) batch.targetOffset[row] = row * SLOT
const completions = new Completions(SLOTS)
console.log(`${address} listens`)

let posted = 0
let frames = 0
let bytes = 0
let [first, last] = [0, 0]
for (;;) {
  // Frames come in the order of the receives: what was reaped is free again.
  const row = posted % SLOTS
  posted += channel.post(batch, row, Math.min(SLOTS - row, SLOTS - (posted - frames)))
  const count = channel.reap(completions)
  for (let i = 0; i < count; i++) bytes += completions.result[i] ?? 0
  frames += count
  if (count > 0) last = performance.now()
  if (frames === count) first = last
  if (count > 0) continue
  const quiet = AbortSignal.timeout(frames === 0 ? Number(patience) * 1000 : QUIET_MS)
  await channel.completions({ signal: quiet }).catch(() => {})
  if (quiet.aborted) break
}
const rate = frames > 1 ? Math.round((frames / Math.max(last - first, 1)) * 1000) : 0
console.log(`${frames} frames, ${bytes} bytes, ${rate} frames a second`)
console.log(`the NIC has dropped ${engine.stats().dropped}`)

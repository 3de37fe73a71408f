/**
 * Moves a buffer while a device copies into it. The traffic stops, moves and
 * restarts by itself. Runs anywhere; with kernel exporters where they are.
 */
import { availableExporters, exporterByName, memfd, MovableBuffer, openEngine } from 'p2pdma'

const SIZE = 1 << 20
const MOVES = 6

const placements = availableExporters()
  .filter(({ available, placement }) => available && !placement.endsWith(':hugetlb'))
  .map(({ placement }) => exporterByName(placement))

await using engine = await openEngine('software')
await using importer = engine.importer()
await using source = await MovableBuffer.create(SIZE, memfd())
await using target = await MovableBuffer.create(SIZE, memfd(), { poison: true })
await source.withCpuAccess('w', (cpu) => void cpu.view().fill(42))
const from = await importer.attach(source)
const to = await importer.attach(target)

let moving = true
let copies = 0
async function load(): Promise<void> {
  while (moving) {
    await importer.copy(from, 0, to, 0, SIZE)
    copies++
  }
}
// Enough of it that the device has work whenever the buffer moves.
const traffic = Array.from({ length: 64 }, load)

for (let i = 0; i < MOVES; i++) {
  const exporter = placements[i % placements.length] ?? memfd()
  const { from: old, to: now, endMs } = await target.move(exporter)
  console.log(`moved from ${old} to ${now} in ${endMs.toFixed(1)} ms, ${copies} copies so far`)
}
moving = false
await Promise.all(traffic)

const whole = await target.withCpuAccess('r', (cpu) => cpu.view().every((byte) => byte === 42))
const stray = await target.countStrayWrites()
const { stops } = importer.stats
console.log(`${copies} copies, ${stops} stops; whole: ${whole}; stray writes: ${stray}`)
if (!whole || stray !== 0 || stops === 0) process.exitCode = 1

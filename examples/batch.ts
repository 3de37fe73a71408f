/**
 * The batch form: columns in, columns out, one native call for each, nothing
 * allocated per operation. The buffer moves meanwhile. Runs anywhere.
 */
import { Batch, Completions, memfd, MovableBuffer, Op, openEngine, Status } from 'p2pdma'

const BLOCK = 4096
const ROWS = 256
const ROUNDS = 200

await using engine = await openEngine('software')
await using importer = engine.importer()
await using source = await MovableBuffer.create(BLOCK * ROWS, memfd())
await using target = await MovableBuffer.create(BLOCK * ROWS, memfd())
const from = await importer.attach(source)
const to = await importer.attach(target)
await using channel = importer.channel({ depth: 1024 })

const batch = new Batch(ROWS)
batch.op.fill(Op.COPY)
batch.source.fill(from.id)
batch.target.fill(to.id)
batch.length.fill(BLOCK)
for (let row = 0; row < ROWS; row++) {
  batch.sourceOffset[row] = row * BLOCK
  batch.targetOffset[row] = row * BLOCK
  batch.cookie[row] = row
}
const completions = new Completions(ROWS)

let moving = true
async function moves(): Promise<number> {
  let count = 0
  for (; moving; count++) await target.move(memfd())
  return count
}
const moved = moves()

let posted = 0
let reaped = 0
let failed = 0
while (reaped < ROWS * ROUNDS) {
  const row = posted % ROWS
  const left = Math.min(ROWS - row, ROWS * ROUNDS - posted)
  // Fewer than asked for while a buffer moves, or the ring is full.
  const accepted = left === 0 ? 0 : channel.post(batch, row, left)
  posted += accepted
  const count = channel.reap(completions)
  for (let i = 0; i < count; i++) if (completions.status[i] !== Status.OK) failed++
  reaped += count
  if (accepted > 0 || count > 0) continue
  await (channel.stats.inFlight > 0 ? channel.completions() : channel.ready(batch, row))
}
moving = false
console.log(`${reaped} copies in batches, ${failed} failed; ${await moved} moves meanwhile`)
if (failed > 0) process.exitCode = 1

/**
 * RDMA writes into a buffer that moves. One device writes by a key to memory of
 * the other's, which moves it from place to place meanwhile: each time the
 * writer is told to keep still, the old key dies, and it goes on with the new
 * one. Takes the names of the devices, by default the first two.
 */
import { Access, memfd, MovableBuffer, verbsDevices, VerbsEngine } from 'p2pdma'

const SIZE = 1 << 20
const BLOCK = 4096
const MOVES = 8

const found = process.argv.length > 2 ? [] : verbsDevices().map(({ name }) => name)
const [first, second = first] = [...process.argv.slice(2), ...found]
if (first === undefined || second === undefined) {
  console.log('there is no RDMA device: `rdma link add` makes one of soft-RoCE')
  process.exit()
}
await using writer = await VerbsEngine.open(first)
await using owner = await VerbsEngine.open(second)
const [peer, guest] = await writer.pair(owner)
const accepted = new Promise<string>((resolve) => guest.once('queue', resolve))
const queue = await peer.openQueue()
await using ours = writer.importer()
await using theirs = owner.importer()
const channel = ours.channel({ queue })
await using source = await MovableBuffer.create(SIZE, memfd())
await using target = await MovableBuffer.create(SIZE, memfd(), { poison: true })
const from = await ours.attach(source, { access: Access.READ })
const into = await theirs.attach(target, { access: Access.WRITE })
await source.withCpuAccess('w', (cpu) => cpu.view().forEach((_, i, all) => (all[i] = i % 251)))

// The owner lets the writer use it, on that queue pair and no other.
guest.grant(theirs.channel({ queue: await accepted }), into, { label: 'target' })
const remote = (await peer.offered('target')).attach(ours)

let isMoving = true
let writes = 0
const writing = Array.from({ length: 8 }, async (_, start) => {
  for (let at = start * BLOCK; isMoving || at < SIZE; at += 8 * BLOCK) {
    await channel.copy(from, at % SIZE, remote, at % SIZE, BLOCK)
    writes++
  }
})
for (let move = 0; move < MOVES; move++) {
  const { endMs } = await target.move(memfd())
  console.log(`moved in ${endMs.toFixed(1)} ms, after ${writes} writes`)
}
isMoving = false
await Promise.all(writing)

const read = (cpu: { view(): Uint8Array }) => Buffer.from(cpu.view())
const whole = (await source.withCpuAccess('r', read)).equals(await target.withCpuAccess('r', read))
const stray = await target.countStrayWrites()
console.log(`${writes} writes in ${MOVES} moves, whole: ${whole}; stray writes: ${stray}`)
if (!whole || stray > 0) process.exitCode = 1

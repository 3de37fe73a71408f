/**
 * Ping-pong between two RDMA devices: a message goes to and fro, out of a
 * buffer and into it, and halfway that buffer moves. Takes the names of the
 * devices, by default the first two (or one, which talks to itself); between
 * two hosts: `engine.listen()` on the one, `engine.connect()` on the other.
 */
import { memfd, MovableBuffer, verbsDevices, VerbsEngine } from 'p2pdma'

const ROUNDS = 200
const LENGTH = 1024

const found = process.argv.length > 2 ? [] : verbsDevices().map(({ name }) => name)
const [first, second = first] = [...process.argv.slice(2), ...found]
if (first === undefined || second === undefined) {
  console.log('there is no RDMA device: `rdma link add` makes one of soft-RoCE')
  process.exit()
}
await using near = await VerbsEngine.open(first)
await using far = await VerbsEngine.open(second)
const [peer, other] = await near.pair(far)
const accepted = new Promise<string>((resolve) => other.once('queue', resolve))
const queue = await peer.openQueue({ depth: 64 })
await using ping = near.importer()
await using pong = far.importer()
const to = ping.channel({ queue, depth: 64 })
const fro = pong.channel({ queue: await accepted, depth: 64 })

await using ours = await MovableBuffer.create(4096, memfd())
await using theirs = await MovableBuffer.create(4096, memfd())
const mine = await ping.attach(ours)
const yours = await pong.attach(theirs)
await ours.withCpuAccess('w', (cpu) => cpu.view().fill(0xa5))

const answer = async () => {
  for (let round = 0; round < ROUNDS; round++) {
    const { bytes } = await fro.receive(yours, 0, LENGTH)
    await fro.send(yours, 0, bytes)
  }
}
const answered = answer()
const start = performance.now()
for (let round = 0; round < ROUNDS; round++) {
  const back = to.receive(mine, 0, LENGTH)
  await to.send(mine, 0, LENGTH)
  await back
  if (round === ROUNDS / 2) await ours.move(memfd())
}
const us = ((performance.now() - start) * 1000) / ROUNDS / 2
await answered
const bytes = await ours.withCpuAccess('r', (cpu) => Buffer.from(cpu.view()))
const same = bytes.subarray(0, LENGTH).every((byte) => byte === 0xa5)
console.log(
  `${first} and ${second}: ${ROUNDS} rounds, ${us.toFixed(0)} us each way, whole: ${same}`,
)
if (!same) process.exitCode = 1

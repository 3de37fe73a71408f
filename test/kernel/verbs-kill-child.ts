/** One end for verbs-kill.test.ts: connects from rxe1, says when it is there, and is killed. */
import { writeSync } from 'node:fs'
import { VerbsEngine } from '../../lib/engines/verbs/engine.js'
import { memfd, udmabuf } from '../../lib/exporters/index.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { type ChannelTransition, trace } from '../../lib/move-notify/trace.js'

const [state = 'idle', port = '0'] = process.argv.slice(2)
const say = (what: string) => process.stdout.write(`${what}\n`)

/** Nothing but the kernel answers for this process from now on. */
function freeze(): void {
  writeSync(1, 'now\n')
  process.kill(process.pid, 'SIGSTOP')
}

const engine = await VerbsEngine.open('rxe1')
const peer = await engine.connect({ host: '127.0.0.1', port: Number(port) })
const queue = await peer.openQueue({ depth: 16 })
const importer = engine.importer()
const channel = importer.channel({ queue, depth: 16 })
const buffer = await MovableBuffer.create(64 << 10, memfd())
const attachment = await importer.attach(buffer)
peer.grant(channel, attachment, { label: 'child' })
const offer = await peer.offered('parent')
const remote = offer.attach(importer)

if (state === 'idle') say('now')
else if (state === 'writing') {
  // Writes without end; killed in the middle.
  const write = async () => {
    for (;;) await channel.copy(attachment, 0, remote, 0, 32 << 10)
  }
  for (let i = 0; i < 8; i++) void write()
  setTimeout(() => say('now'), 100)
} else if (state === 'receiving') {
  for (let i = 0; i < 8; i++) void channel.receive(attachment, i * 1024, 1024).catch(() => {})
  setTimeout(() => say('now'), 50)
} else if (state === 'deaf') freeze()
else if (state === 'torn apart') {
  // As the kernel does it to a process that was killed: the regions first, while the queue
  // pair and the connection are still there (drivers/infiniband/core/rdma_core.c,
  // uverbs_destroy_ufile_hw()). Nobody answers meanwhile.
  setTimeout(() => {
    engine.regions.unshare(attachment.id, attachment.access)
    const end = performance.now() + 500
    while (performance.now() < end);
    freeze()
  }, 100)
} else if (state.startsWith('frozen ')) {
  // In the very transition that leads there, with writes of both ends under way.
  trace.channel.subscribe((message) => {
    if (`frozen ${(message as ChannelTransition).to}` === state) freeze()
  })
  for (let i = 0; i < 4; i++) void channel.copy(attachment, 0, remote, 0, 32 << 10)
  await buffer.move(udmabuf())
} else {
  // `moving`: stops and restarts all the time, with the parent's writes coming in.
  setTimeout(() => say('now'), 200)
  for (let i = 0; ; i++) await buffer.move(i % 2 === 0 ? udmabuf() : memfd())
}
setInterval(() => {}, 1000)

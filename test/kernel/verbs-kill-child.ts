/** One end for verbs-kill.test.ts: serves on rxe1, says when, and is killed. */
import { VerbsEngine } from '../../lib/engines/verbs/engine.js'
import { memfd, udmabuf } from '../../lib/exporters/index.js'
import { MovableBuffer } from '../../lib/move-notify/movable-buffer.js'

const [state = 'idle', port = '0'] = process.argv.slice(2)
const say = (what: string) => process.stdout.write(`${what}\n`)

/** `serves`: the parent connects to us; else we connect to it. */
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
} else {
  // `moving`: stops and restarts all the time, with the parent's writes coming in.
  setTimeout(() => say('now'), 200)
  for (let i = 0; ; i++) await buffer.move(i % 2 === 0 ? udmabuf() : memfd())
}
setInterval(() => {}, 1000)

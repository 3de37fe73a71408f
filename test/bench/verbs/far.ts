/** The far end, in a process of its own: connects, opens queue pairs, and does as it is told. */
import { VerbsEngine } from '../../../lib/engines/index.js'
import { memfd } from '../../../lib/exporters/index.js'
import { MovableBuffer } from '../../../lib/move-notify/exporter/movable-buffer.js'
import type { FarOptions, FarReply, FarRequest } from './far-end.js'
import { Pinger } from './pinger.js'
import { Writer } from './writer.js'

const options = JSON.parse(process.argv[2] ?? '') as FarOptions
const { device, gidIndex, port, queues, depth, size } = options

const engine = await VerbsEngine.open(device, { gidIndex })
const importer = engine.importer({ minRunMs: 0 })
const peer = await engine.connect({ host: '127.0.0.1', port })
peer.once('closed', () => void engine.close().then(() => process.exit()))
const buffer = await MovableBuffer.create(size, memfd())
const attachment = await importer.attach(buffer)
const channels = []
for (let i = 0; i < queues; i++) {
  const queue = await peer.openQueue({ depth })
  const channel = importer.channel({ queue, depth })
  peer.grant(channel, attachment, { label: `far-${i}` })
  channels.push(channel)
}
const [channel] = channels
if (channel === undefined) throw new Error('no queue pair')

let pinger: Pinger | null = null
let writer: Writer | null = null

async function obey(request: FarRequest): Promise<FarReply> {
  switch (request.what) {
    case 'echo':
      pinger ??= new Pinger(channel!, attachment.id, request.size)
      // Answered when it is ready; a failure ends the process, which the near end sees.
      void pinger.echo(request.count, request.wait)
      return {}
    case 'write': {
      const remote = (await peer.offered(request.label)).attach(importer)
      writer = new Writer(channel!, attachment.id, remote.id, { ...request, depth, list: 1 })
      void writer.goOn(request.everyMs)
      return {}
    }
    case 'gap':
      return { gap: writer!.takeGap(), writes: writer!.done }
  }
}

process.on('message', (request: FarRequest) => {
  void obey(request).then((reply) => process.send?.(reply))
})
process.once('disconnect', () => process.exit())

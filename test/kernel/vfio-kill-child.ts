/** Run by vfio-kill.test.ts: drives the NICs, says when it is in a state, and stays there. */
import { memfd } from '../../lib/exporters/index.js'
import type { Exporter } from '../../lib/move-notify/exporter/backing.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { exchange, FRAME, openTraffic, ROOM, type Traffic } from './vfio-traffic.js'

const never = new Promise<never>(() => {})
const hold = () => {
  process.stdout.write('there\n')
  return never
}

/** Like `exporter`, and its backings never finish to be copied to. */
function copyingFor(exporter: Exporter): Exporter {
  const { placement, kind } = exporter
  const allocate = async (size: number) => {
    const backing = await exporter.allocate(size)
    const copyFrom = backing.copyFrom.bind(backing)
    backing.copyFrom = async (source) => {
      await copyFrom(source)
      await hold()
    }
    return backing
  }
  return { placement, kind, allocate }
}

/** Where each state holds a move up. */
const states: Record<string, (it: Traffic) => void> = {
  running: () => {},
  // The gate is closed, and the device receives still.
  stopping: ({ receiver }) => {
    const { openChannel } = receiver
    receiver.openChannel = (options) => {
      const channel = openChannel.call(receiver, options)
      channel.stop = hold
      return channel
    }
  },
  // The receiver is off, its mapping is there.
  stopped: ({ receiver }) => void (receiver.unmap = hold),
  unmapped: ({ receiver }) => {
    const { unmap } = receiver
    receiver.unmap = async (id) => {
      await unmap.call(receiver, id)
      await hold()
    }
  },
  copying: () => {},
  restoring: ({ receiver }) => {
    const { map } = receiver
    let attached = false
    receiver.map = async (...args) => {
      await map.apply(receiver, args)
      if (attached) await hold()
      attached = true
    }
  },
}

const state = process.argv[2] ?? ''
const traffic = await openTraffic({ minRunMs: 0, stopTimeoutMs: 600_000 })
states[state]?.(traffic)
const system = memfd()
const buffer = await MovableBuffer.create(1 << 20, system)
const to = await traffic.into.attach(buffer)
await exchange(traffic, to)

// Frames are in flight all the time: where the receiver is off, they wait in the hub.
const { out, into, from } = traffic
let received = 0
const receive = () => {
  void into.receive(to, 0, ROOM).then(() => {
    received++
    receive()
  })
}
for (let i = 0; i < 128; i++) receive()
const send = () => void out.send(from, 0, FRAME).then(() => setImmediate(send))
send()
while (received < 64) await new Promise((resolve) => setImmediate(resolve))

if (state === 'running') void hold()
else void buffer.move(state === 'copying' ? copyingFor(system) : system)
setInterval(() => {}, 1 << 30)

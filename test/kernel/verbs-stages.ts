/** Brings a verbs program to a stage, and leaves it there. Each resolves with what it has made. */
import { VerbsEngine } from '../../lib/engines/verbs/engine.js'
import { memfd, udmabuf } from '../../lib/exporters/index.js'
import { SendOp, VerbsDevice } from '../../lib/kernel/verbs/index.js'
import { MovableBuffer } from '../../lib/move-notify/exporter/movable-buffer.js'
import { IOVA, openEnd, pair, receives, send } from './verbs-support.js'

const KIB = 1024

async function connected() {
  const here = await VerbsEngine.open('rxe0')
  const there = await VerbsEngine.open('rxe1')
  const [near, far] = await here.pair(there)
  const accepted = new Promise<string>((resolve) => far.once('queue', resolve))
  const queue = await near.openQueue({ depth: 16 })
  const [a, b] = [here.importer({ minRunMs: 0 }), there.importer({ minRunMs: 0 })]
  const ours = a.channel({ queue, depth: 16 })
  const theirs = b.channel({ queue: await accepted, depth: 16 })
  const source = await MovableBuffer.create(64 * KIB, memfd())
  const target = await MovableBuffer.create(64 * KIB, memfd())
  const [from, to] = [await a.attach(source), await b.attach(target)]
  far.grant(theirs, to, { label: 'target' })
  const remote = (await near.offered('target')).attach(a)
  return { here, there, ours, theirs, source, target, from, to, remote }
}

export const stages: Record<string, () => Promise<unknown>> = {
  device: () => VerbsDevice.open('rxe0'),
  'protection domain': async () => (await VerbsDevice.open('rxe0')).protectionDomain(),
  'completion queue': async () => {
    const device = await VerbsDevice.open('rxe0')
    const channel = await device.completionChannel()
    const cq = await device.completionQueue(16, { channel, onEvent: () => undefined })
    cq.arm()
    return cq
  },
  'queue pair and region': () => openEnd('rxe0'),
  'making and registering': async () => {
    const { device, domain, cq, mapping } = await openEnd('rxe0')
    return Array.from({ length: 8 }, () => [
      domain.register(mapping),
      domain.queuePair({ sendCq: cq }),
      device.completionQueue(16),
    ])
  },
  'requests under way': async () => {
    const [a, b] = await pair()
    // One waits for a receive, with others behind it.
    for (let i = 0; i < 8; i++) send(a, { opcode: SendOp.SEND })
    b.qp.postReceive(receives(b, 4))
    send(b, {
      ...{ opcode: SendOp.RDMA_WRITE, length: 60_000 },
      ...{ rkey: a.region.rkey, remoteAddress: IOVA },
    })
    return [a, b]
  },
  'engines that are connected': connected,
  'work in flight, and a move': async () => {
    const scene = await connected()
    const { ours, theirs, from, to, remote, target } = scene
    const work: Promise<unknown>[] = []
    for (let i = 0; i < 8; i++) work.push(theirs.receive(to, i * KIB, KIB))
    for (let i = 0; i < 8; i++) work.push(ours.copy(from, 0, remote, 32 * KIB, 32 * KIB))
    for (let i = 0; i < 12; i++) work.push(ours.send(from, 0, 100))
    work.push(target.move(udmabuf()))
    // Whatever becomes of them.
    return [scene, ...work.map((each) => each.catch(() => undefined))]
  },
}

/** The typed classes over libibverbs, between two soft-RoCE devices. */
import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { Memfd, Udmabuf } from '../../lib/kernel/index.js'
import {
  Advice,
  type AsyncEvent,
  MemoryAccess,
  QpState,
  SendBatch,
  SendFlag,
  SendOp,
  VerbsDevice,
  verbsDevices,
  WcFlag,
  WcOpcode,
  WorkCompletions,
} from '../../lib/kernel/verbs/index.js'
import * as index from '../../lib/index.js'
import { someBadValues, rowOf, walkArguments, walkReceivers } from '../unit/surface-walk.js'
import { openFds, settled } from './support.js'
import {
  close,
  completions,
  IOVA,
  join,
  openEnd,
  pair,
  receives,
  REMOTE,
  send,
} from './verbs-support.js'

t.setTimeout(900_000)

const badRow = (argument: string) => ({ code: 'ERR_INVALID_ARG_VALUE', argument })

t.test('devices, ports and GIDs', async (t) => {
  const names = verbsDevices().map(({ name }) => name)
  t.ok(names.includes('rxe0') && names.includes('rxe1'), names.join(' '))
  await using device = await VerbsDevice.open('rxe0')
  const attributes = device.attributes()
  t.ok(attributes.maxQp > 0 && attributes.maxMr > 0)
  t.equal(attributes.ports, 1)
  t.equal(attributes.odp.rc.send, attributes.odp.supported)
  const port = device.activePort()
  t.match(port, { state: 'active', linkLayer: 'ethernet' })
  t.ok([1024, 4096].includes(port.activeMtu))
  const gid = device.gid()
  t.match(gid, { type: 'roce-v2', gid: '0000:0000:0000:0000:0000:ffff:0a00:0001' })
  t.ok(device.gids().length >= 1)
})

t.test('send and receive, write, read, atomics', async (t) => {
  const [a, b] = await pair()
  a.bytes.fill(0x5a, 0, 4096)

  await t.test('send, with immediate, inline, of nothing', async (t) => {
    t.equal(b.qp.postReceive(receives(b, 4)), 4)
    t.equal(send(a, { opcode: SendOp.SEND, wrId: 1 }), 1)
    t.equal(send(a, { opcode: SendOp.SEND_WITH_IMM, wrId: 2, immediate: 0xdeadbeef }), 1)
    const inline = SendFlag.SIGNALED | SendFlag.INLINE
    t.equal(send(a, { opcode: SendOp.SEND, wrId: 3, flags: inline, length: 33 }), 1)
    t.equal(send(a, { opcode: SendOp.SEND, wrId: 4, length: 0 }), 1)
    const sent = await completions(a.cq, 4)
    t.same(
      sent.map(({ wrId, status }) => [wrId, status]),
      [1, 2, 3, 4].map((wrId) => [wrId, 'SUCCESS']),
    )
    const got = await completions(b.cq, 4)
    t.same(
      got.map(({ wrId, byteLength, opcode }) => [wrId, byteLength, opcode]),
      [64, 64, 33, 0].map((length, i) => [1000 + i, length, WcOpcode.RECV]),
    )
    t.equal(got[1]?.immediate, 0xdeadbeef)
    t.equal((got[1]?.flags ?? 0) & WcFlag.WITH_IMM, WcFlag.WITH_IMM)
    t.equal(got[0]?.qpNumber, b.qp.qpNumber)
    t.ok(b.bytes.subarray(0, 64).every((byte) => byte === 0x5a))
    t.ok(b.bytes.subarray(512, 545).every((byte) => byte === 0x5a))
    t.equal(b.bytes[545], 0)
  })

  await t.test('write and read', async (t) => {
    const remote = { rkey: b.region.rkey, remoteAddress: IOVA + 8192 }
    t.equal(send(a, { opcode: SendOp.RDMA_WRITE, length: 4000, ...remote }), 1)
    t.match(await completions(a.cq, 1), [{ status: 'SUCCESS', opcode: WcOpcode.RDMA_WRITE }])
    t.ok(b.bytes.subarray(8192, 12192).every((byte) => byte === 0x5a))
    t.equal(b.bytes[12192], 0)
    b.qp.postReceive(receives(b, 1))
    send(a, { opcode: SendOp.RDMA_WRITE_WITH_IMM, immediate: 7, ...remote })
    await completions(a.cq, 1)
    t.match(await completions(b.cq, 1), [{ opcode: WcOpcode.RECV_RDMA_WITH_IMM, immediate: 7 }])
    b.bytes.fill(0x77, 20000, 20100)
    const read = { address: IOVA + 30000, remoteAddress: IOVA + 20000, rkey: b.region.rkey }
    send(a, { opcode: SendOp.RDMA_READ, length: 100, ...read })
    t.match(await completions(a.cq, 1), [{ status: 'SUCCESS', opcode: WcOpcode.RDMA_READ }])
    t.ok(a.bytes.subarray(30000, 30100).every((byte) => byte === 0x77))
  })

  await t.test('atomics', async (t) => {
    const words = new DataView(b.bytes.buffer)
    const before = new DataView(a.bytes.buffer)
    words.setBigUint64(40000, 41n, true)
    const at = { rkey: b.region.rkey, remoteAddress: IOVA + 40000, address: IOVA + 48, length: 8 }
    send(a, { opcode: SendOp.ATOMIC_FETCH_AND_ADD, compareAdd: 1, ...at })
    t.match(await completions(a.cq, 1), [{ status: 'SUCCESS', opcode: WcOpcode.FETCH_ADD }])
    t.equal(words.getBigUint64(40000, true), 42n)
    t.equal(before.getBigUint64(48, true), 41n)
    send(a, { opcode: SendOp.ATOMIC_CMP_AND_SWP, compareAdd: 42, swap: 2 ** 53 - 1, ...at })
    t.match(await completions(a.cq, 1), [{ status: 'SUCCESS', opcode: WcOpcode.COMP_SWAP }])
    t.equal(words.getBigUint64(40000, true), 2n ** 53n - 1n)
    send(a, { opcode: SendOp.ATOMIC_CMP_AND_SWP, compareAdd: 1, swap: 9, ...at })
    await completions(a.cq, 1)
    t.equal(words.getBigUint64(40000, true), 2n ** 53n - 1n, 'unequal: left alone')
  })

  await t.test('batches: a full queue, a bad row, only the last one signaled', async (t) => {
    const rows = a.qp.maxSendWr + 8
    const batch = new SendBatch(rows)
    for (let i = 0; i < rows; i++) {
      batch.opcode[i] = SendOp.RDMA_WRITE
      batch.wrId[i] = i
      batch.address[i] = IOVA
      batch.length[i] = 8
      batch.lkey[i] = a.region.lkey
      batch.remoteAddress[i] = IOVA + i * 8
      batch.rkey[i] = b.region.rkey
      batch.flags[i] = SendFlag.SIGNALED
    }
    const accepted = a.qp.post(batch)
    t.ok(accepted > 8 && accepted <= rows, `${accepted} of ${rows}`)
    const done = await completions(a.cq, accepted)
    t.same(
      done.map(({ wrId }) => wrId),
      [...Array(accepted).keys()],
    )
    batch.length[5] = 0.5
    t.equal(a.qp.post(batch, 0, 16), 5, 'up to the bad row')
    await completions(a.cq, 5)
    t.throws(() => a.qp.post(batch, 5, 1), badRow('length'))
    batch.length[5] = 8
    batch.flags.fill(0, 0, 15)
    t.equal(a.qp.post(batch, 0, 16), 16)
    t.match(await completions(a.cq, 1), [{ wrId: 15, status: 'SUCCESS' }])
    t.equal(a.cq.poll(new WorkCompletions(4)), 0, 'and nothing else')
  })
  await close(a, b)
})

t.test('events, armed, on this loop', async (t) => {
  const device = await VerbsDevice.open('rxe0')
  const channel = await device.completionChannel()
  let events = 0
  let told: () => void = () => undefined
  const cq = await device.completionQueue(16, {
    channel,
    onEvent: () => {
      events++
      told()
    },
  })
  const other = await VerbsDevice.open('rxe0')
  await t.rejects(other.completionQueue(1, { channel, onEvent: () => undefined }), {
    code: 'ERR_INVALID_ARG_TYPE',
    argument: 'channel',
  })
  await other.close()
  const domain = await device.protectionDomain()
  const qp = await domain.queuePair({ sendCq: cq })
  using memfd = Memfd.create(4096)
  using mapping = memfd.map()
  const region = domain.registerNow(mapping, { access: REMOTE })
  const a = { device, domain, cq, qp, mapping, bytes: new Uint8Array(mapping.view()), region }
  const b = await openEnd('rxe1')
  await join(a, b)
  await join(b, a)
  channel.hold(true)
  for (let i = 0; i < 5; i++) {
    cq.arm()
    const event = new Promise<void>((resolve) => (told = resolve))
    send(a, { opcode: SendOp.RDMA_WRITE, rkey: b.region.rkey, remoteAddress: IOVA, wrId: i })
    await event
    t.match(await completions(cq, 1), [{ wrId: i, status: 'SUCCESS' }])
  }
  t.equal(events, 5, 'one for each arm')
  channel.hold(false)
  cq.arm()
  send(a, { opcode: SendOp.RDMA_WRITE, rkey: b.region.rkey, remoteAddress: IOVA })
  await channel.close()
  t.equal(cq.closed, true, 'closed with its channel')
  t.equal(qp.closed, true)
  await close(a, b)
  t.equal(events, 5, 'nothing after the close')
})

t.test('a queue pair in SQD, in ERR, and back', async (t) => {
  const [a, b] = await pair()
  const seen: AsyncEvent[] = []
  using subscription = a.device.onAsyncEvent((event) => seen.push(event))
  b.device.onAsyncEvent((event) => seen.push(event)).hold(true)
  subscription.hold(true)
  t.equal(a.qp.query().qpState, QpState.RTS)
  t.match(a.qp.query(), { destQpNum: b.qp.qpNumber, pathMtu: 1024, rnrRetry: 7, retryCnt: 7 })
  await a.qp.toSqd()
  const waitFor = async (name: string) => {
    for (let i = 0; i < 2000 && !seen.some((each) => each.name === name); i++) await sleep(1)
    t.ok(
      seen.some((each) => each.name === name),
      name,
    )
  }
  await waitFor('SQ_DRAINED')
  t.match(seen[0], { of: 'queue-pair', number: a.qp.qpNumber })
  send(b, { opcode: SendOp.RDMA_WRITE, rkey: a.region.rkey, remoteAddress: IOVA + 4096 })
  t.match(await completions(b.cq, 1), [{ status: 'SUCCESS' }], 'SQD does not stop what arrives')
  await a.qp.modify({ qpState: QpState.RTS })

  const bad = { rkey: b.region.rkey ^ 0x55, remoteAddress: IOVA }
  b.bytes.fill(0, 0, 64)
  a.bytes.fill(1, 0, 64)
  send(a, { opcode: SendOp.RDMA_WRITE, wrId: 1, ...bad })
  send(a, { opcode: SendOp.RDMA_WRITE, wrId: 2, rkey: b.region.rkey, remoteAddress: IOVA })
  t.match(await completions(a.cq, 2), [
    { wrId: 1, status: 'REM_ACCESS_ERR' },
    { wrId: 2, status: 'WR_FLUSH_ERR' },
  ])
  t.ok(
    b.bytes.subarray(0, 64).every((byte) => byte === 0),
    'nothing was written',
  )
  t.equal(a.qp.query().qpState, QpState.ERR)
  await waitFor('QP_ACCESS_ERR')
  t.equal(b.qp.query().qpState, QpState.ERR)
  t.equal(send(a, { opcode: SendOp.SEND, wrId: 3 }), 1)
  t.match(await completions(a.cq, 1), [{ wrId: 3, status: 'WR_FLUSH_ERR' }])
  await Promise.all([a.qp.toReset(), b.qp.toReset()])
  await Promise.all([join(a, b), join(b, a)])
  send(a, { opcode: SendOp.RDMA_WRITE, wrId: 4, rkey: b.region.rkey, remoteAddress: IOVA })
  t.match(await completions(a.cq, 1), [{ wrId: 4, status: 'SUCCESS' }])
  t.ok(b.bytes.subarray(0, 64).every((byte) => byte === 1))

  await t.test('deregistered: the key is dead', async (t) => {
    const { rkey } = b.region
    b.region.deregisterNow()
    b.region.deregisterNow()
    send(a, { opcode: SendOp.RDMA_READ, rkey, remoteAddress: IOVA })
    t.match(await completions(a.cq, 1), [{ status: 'REM_ACCESS_ERR' }])
  })
  await t.rejects(a.qp.modify({ qpState: QpState.RTR }), {
    code: 'EINVAL',
    syscall: 'ibv_modify_qp',
  })
  await t.rejects(a.qp.modify({ pathMtu: 1000 }), { code: 'ERR_OUT_OF_RANGE', argument: 'pathMtu' })
  await t.rejects(a.qp.modify({ sqPsn: 2 ** 24 }), { code: 'ERR_OUT_OF_RANGE', argument: 'sqPsn' })
  await t.rejects(a.qp.modify({ psn: 1 } as never), badRow('psn'))
  await close(a, b)
})

t.test('back-pressure: no receive posted, rnrRetry 7', async (t) => {
  const [a, b] = await pair()
  send(a, { opcode: SendOp.SEND, wrId: 1 })
  await sleep(50)
  t.equal(a.cq.poll(new WorkCompletions(1)), 0, 'waits')
  b.qp.postReceive(receives(b, 1))
  t.match(await completions(a.cq, 1), [{ wrId: 1, status: 'SUCCESS' }])
  await close(a, b)
})

t.test('datagrams', async (t) => {
  const a = await openEnd('rxe0', 64 << 10, { type: 'UD' })
  const b = await openEnd('rxe1', 64 << 10, { type: 'UD' })
  for (const { qp } of [a, b]) {
    await qp.toInit({ qkey: 0x1234 })
    await qp.toRtr()
    await qp.toRts({ sqPsn: 1 })
  }
  const address = await a.domain.addressHandle({
    dgid: b.device.gid().gid,
    sgidIndex: a.device.gid().index,
  })
  b.qp.postReceive(receives(b, 1))
  a.bytes.fill(9, 0, 64)
  const to = { addressHandle: address.id, remoteQpn: b.qp.qpNumber, remoteQkey: 0x1234 }
  send(a, { opcode: SendOp.SEND, ...to })
  t.match(await completions(a.cq, 1), [{ status: 'SUCCESS' }])
  t.match(await completions(b.cq, 1), [{ byteLength: 104, flags: WcFlag.GRH }])
  t.ok(b.bytes.subarray(40, 104).every((byte) => byte === 9))
  t.throws(() => send(a, { opcode: SendOp.RDMA_WRITE, ...to }), badRow('opcode'))
  await address.close()
  t.throws(() => send(a, { opcode: SendOp.SEND, ...to }), badRow('addressHandle'))
  await close(a, b)
})

t.test('a shared receive queue', async (t) => {
  const b = await openEnd('rxe1')
  const srq = await b.domain.sharedReceiveQueue(16)
  const second = await b.domain.queuePair({ sendCq: b.cq, srq })
  const first = await b.domain.queuePair({ sendCq: b.cq, srq })
  const [a, c] = [await openEnd('rxe0'), await openEnd('rxe0')]
  await join(a, { ...b, qp: first })
  await join({ ...b, qp: first }, a)
  await join(c, { ...b, qp: second })
  await join({ ...b, qp: second }, c)
  t.equal(srq.postReceive(receives(b, 4)), 4)
  t.throws(() => first.postReceive(receives(b, 1)), { code: 'ERR_INVALID_STATE' })
  const limit = new Promise<AsyncEvent>((resolve) => {
    b.device.onAsyncEvent(resolve).hold(true)
  })
  srq.setLimit(3)
  send(a, { opcode: SendOp.SEND })
  send(c, { opcode: SendOp.SEND })
  const got = await completions(b.cq, 2)
  t.same(got.map(({ qpNumber }) => qpNumber).sort(), [first.qpNumber, second.qpNumber].sort())
  t.match(await limit, { name: 'SRQ_LIMIT_REACHED', of: 'shared-receive-queue', number: srq.id })
  await srq.close()
  t.ok(first.closed && second.closed, 'what receives from it is closed first')
  await close(a, b, c)
})

t.test('memory windows', async (t) => {
  const [a, b] = await pair()
  for (const type of [1, 2] as const) {
    const window = await b.domain.memoryWindow(type)
    const access = MemoryAccess.REMOTE_WRITE
    const rkey = b.qp.bind(window, b.region, {
      address: IOVA + 4096,
      length: 4096,
      access,
      wrId: 8,
    })
    t.match(await completions(b.cq, 1), [{ status: 'SUCCESS', wrId: 8, opcode: WcOpcode.BIND_MW }])
    t.equal(window.rkey, rkey)
    send(a, { opcode: SendOp.RDMA_WRITE, rkey, remoteAddress: IOVA + 4096 })
    t.match(await completions(a.cq, 1), [{ status: 'SUCCESS' }], `type ${type}`)
    await t.rejects(b.region.close(), { code: 'EINVAL', hint: /unbind/ })
    t.equal(b.region.closed, false, 'it can still be used')
    if (type === 1) b.qp.bind(window, b.region, { length: 0, access: 0, signaled: true })
    else send(b, { opcode: SendOp.LOCAL_INV, rkey })
    t.match(await completions(b.cq, 1), [{ status: 'SUCCESS' }], 'unbound')
    send(a, { opcode: SendOp.RDMA_WRITE, rkey, remoteAddress: IOVA + 4096 })
    t.match(await completions(a.cq, 1), [{ status: 'REM_ACCESS_ERR' }], 'no longer')
    await Promise.all([a.qp.toReset(), b.qp.toReset()])
    await Promise.all([join(a, b), join(b, a)])
    await window.close()
  }
  await close(a, b)
})

t.test('bad input and refusals', async (t) => {
  await t.rejects(VerbsDevice.open('nothing0'), { code: 'ENODEV', argument: 'name', hint: /rxe0/ })
  const device = await VerbsDevice.open('rxe0')
  t.throws(() => device.port(9), { code: 'EINVAL', syscall: 'ibv_query_port' })
  t.throws(() => device.gid({ portNum: 9 }), { code: 'ERR_NO_GID', hint: /ip address add/ })
  t.throws(() => device.gid({ index: 77 }), { code: 'ERR_NO_GID', argument: 'index' })
  const domain = await device.protectionDomain()
  using memfd = Memfd.create(8192)
  using mapping = memfd.map()
  const page = { length: 4096 }
  await t.rejects(domain.register(mapping, { ...page, iova: 0x1001 }), {
    code: 'ERR_OUT_OF_RANGE',
    argument: 'iova',
    hint: /would do/,
  })
  await t.rejects(domain.register(mapping, { access: MemoryAccess.REMOTE_WRITE }), {
    code: 'ERR_INVALID_ARG_VALUE',
    argument: 'access',
  })
  await t.rejects(domain.register(mapping, { offset: 8192 }), {
    code: 'ERR_OUT_OF_RANGE',
    argument: 'offset',
  })
  await t.rejects(domain.register(mapping, { length: 8193 }), {
    code: 'ERR_OUT_OF_RANGE',
    argument: 'length',
  })
  await t.rejects(domain.register(mapping, { onDemand: true, iova: 0x10000 }), {
    code: 'ERR_UNSUPPORTED',
    argument: 'iova',
  })
  // By its access, too. Let through, rxe would read other memory than it is to.
  await t.rejects(domain.register(mapping, { access: MemoryAccess.ON_DEMAND, iova: 0x10000 }), {
    code: 'ERR_UNSUPPORTED',
    argument: 'iova',
  })
  const unaligned = await domain.register(mapping, { offset: 100, length: 50, iova: 0x7064 })
  t.match(unaligned, { iova: 0x7064, length: 50 })
  await t.rejects(unaligned.advise(Advice.PREFETCH), { code: 'ERR_UNSUPPORTED', hint: /onDemand/ })
  await t.rejects(unaligned.advise(3), { code: 'ERR_OUT_OF_RANGE', argument: 'advice' })
  await t.rejects(unaligned.advise(0, 51), { code: 'ERR_OUT_OF_RANGE', argument: 'offset' })

  using dmaBuf = await Udmabuf.create(memfd, 0, 8192)
  const onDemand = { access: MemoryAccess.ON_DEMAND }
  await t.rejects(domain.registerDmabuf(dmaBuf, onDemand), {
    code: 'ERR_INVALID_ARG_VALUE',
    argument: 'access',
    hint: /only LOCAL_WRITE/,
  })
  await t.rejects(domain.registerDmabuf(dmaBuf, { offset: 4096, iova: 0x1001 }), {
    code: 'ERR_OUT_OF_RANGE',
    argument: 'iova',
  })
  await t.rejects(domain.registerDmabuf(dmaBuf, { length: 8193 }), {
    code: 'ERR_OUT_OF_RANGE',
    argument: 'length',
  })
  // Stock soft-RoCE cannot, and the kernel itself was asked.
  await t.rejects(domain.registerDmabuf(dmaBuf), { code: 'EOPNOTSUPP', syscall: /REG_DMABUF_MR/ })

  mapping.unmap()
  await t.rejects(domain.register(mapping), { code: 'ERR_CLOSED' })
  await device.close()
  await device.close()
  t.throws(() => device.attributes(), { code: 'ERR_CLOSED' })
  await t.rejects(domain.register(mapping), { code: 'ERR_CLOSED' })
  t.equal(unaligned.closed, true)
})

t.test('posts in a state that takes none: librxe does not say where it stopped', async (t) => {
  const end = await openEnd('rxe0')
  const refused = { code: 'EINVAL', errno: -22 }
  const three = new SendBatch(3)
  three.opcode.fill(SendOp.SEND)
  three.address.fill(IOVA)
  three.length.fill(64)
  three.lkey.fill(end.region.lkey)
  t.throws(() => end.qp.postReceive(receives(end, 3)), { ...refused, syscall: 'ibv_post_recv' })
  t.throws(() => end.qp.post(three), { ...refused, syscall: 'ibv_post_send' })
  await end.qp.toInit({ access: REMOTE })
  t.throws(() => end.qp.post(three), { ...refused, syscall: 'ibv_post_send' })
  t.equal(end.qp.postReceive(receives(end, 3)), 3)
  await close(end)
})

t.test('without types: wrong receivers, arguments left out, what only looks right', async (t) => {
  const engines = [await index.VerbsEngine.open('rxe0'), await index.VerbsEngine.open('rxe1')]
  const [engine, other] = engines as [index.VerbsEngine, index.VerbsEngine]
  const [peer] = await engine.pair(other)
  const device = await VerbsDevice.open('rxe0')
  const manager = await index.ConnectionManager.open()
  const domain = await device.protectionDomain()
  const channel = await device.completionChannel()
  const cq = await device.completionQueue(64)
  const srq = await domain.sharedReceiveQueue(4)
  const qp = await domain.queuePair({ sendCq: cq })
  const window = await domain.memoryWindow(1)
  const gid = device.gid()
  const path = { dgid: gid.gid, sgidIndex: gid.index }
  const address = await domain.addressHandle(path)
  using memfd = Memfd.create(8192)
  using mapping = memfd.map()
  using dmaBuf = await Udmabuf.create(memfd, 0, 8192)
  const region = await domain.register(mapping)
  const sends = new SendBatch(4)
  const receives = new index.ReceiveBatch(4)
  const out = new WorkCompletions(4)
  const listener = () => undefined
  const rows = {
    'VerbsDevice.open': rowOf(VerbsDevice.open, 'nothing0'),
    'VerbsDevice#port': rowOf(device.port.bind(device), 1),
    'VerbsDevice#activePortNum': rowOf(device.activePortNum.bind(device), 1),
    'VerbsDevice#activePort': rowOf(device.activePort.bind(device), 1),
    'VerbsDevice#gid': rowOf(device.gid.bind(device), {}),
    'VerbsDevice#completionQueue': rowOf(device.completionQueue.bind(device), 4, {}),
    'VerbsDevice#onAsyncEvent': rowOf(device.onAsyncEvent.bind(device), listener),
    'ProtectionDomain#register': rowOf(domain.register.bind(domain), mapping, {}),
    'ProtectionDomain#registerNow': rowOf(domain.registerNow.bind(domain), mapping, {}),
    'ProtectionDomain#registerDmabuf': rowOf(domain.registerDmabuf.bind(domain), dmaBuf, {}),
    'ProtectionDomain#registerDmabufNow': rowOf(domain.registerDmabufNow.bind(domain), dmaBuf, {}),
    'ProtectionDomain#queuePair': rowOf(domain.queuePair.bind(domain), { sendCq: cq }),
    'ProtectionDomain#sharedReceiveQueue': rowOf(domain.sharedReceiveQueue.bind(domain), 4),
    'ProtectionDomain#addressHandle': rowOf(domain.addressHandle.bind(domain), path),
    'ProtectionDomain#memoryWindow': rowOf(domain.memoryWindow.bind(domain), 1),
    'MemoryRegion#advise': rowOf(region.advise.bind(region), 0, 0, 64),
    'CompletionChannel#hold': rowOf(channel.hold.bind(channel), false),
    'CompletionQueue#poll': rowOf(cq.poll.bind(cq), out, 1),
    'CompletionQueue#arm': rowOf(cq.arm.bind(cq), false),
    'SharedReceiveQueue#postReceive': rowOf(srq.postReceive.bind(srq), receives, 0, 0),
    'SharedReceiveQueue#setLimit': rowOf(srq.setLimit.bind(srq), 0),
    'QueuePair#post': rowOf(qp.post.bind(qp), sends, 0, 0),
    'QueuePair#postReceive': rowOf(qp.postReceive.bind(qp), receives, 0, 0),
    'QueuePair#bind': rowOf(qp.bind.bind(qp), window, region, { access: 0 }),
    'QueuePair#modify': rowOf(qp.modify.bind(qp), { qpState: QpState.INIT }),
    'QueuePair#modifyNow': rowOf(qp.modifyNow.bind(qp), { qpState: QpState.INIT }),
    'QueuePair#toInit': rowOf(qp.toInit.bind(qp), {}),
    'QueuePair#toRtr': rowOf(qp.toRtr.bind(qp), { destQpNum: 1, rqPsn: 0, ahAttr: path }),
    'QueuePair#toRts': rowOf(qp.toRts.bind(qp), { sqPsn: 0 }),
    'QueuePair#toSqd': rowOf(qp.toSqd.bind(qp), true),
    'ConnectionManager#listen': rowOf(manager.listen.bind(manager), listener, {}),
    'VerbsEngine.open': rowOf(index.VerbsEngine.open, 'nothing0', {}),
    'VerbsEngine#axes': rowOf(engine.axes.bind(engine), engine),
    'VerbsEngine#listen': rowOf(engine.listen.bind(engine), {}, listener),
    'VerbsEngine#pair': rowOf(engine.pair.bind(engine), other),
    'VerbsEngine#stats': rowOf(engine.stats.bind(engine), {}),
    'VerbsEngine#inject': rowOf(engine.inject.bind(engine), { kind: 'queue-pair-error' }),
    'VerbsEngine#importer': rowOf(engine.importer.bind(engine), {}),
    'Peer#openQueue': rowOf(peer.openQueue.bind(peer), { depth: 4 }),
    'Peer#offered': { ...rowOf(peer.offered.bind(peer), 'label', {}), mayWait: true },
    'Peer#grant': rowOf(peer.grant.bind(peer), engine, region, {}),
  }
  const args = await walkArguments(rows, someBadValues(), () => undefined)
  t.comment(`${args.calls} calls`)
  t.same(args.wrong, [])
  const instances = [engine, peer, device, manager, domain, channel, cq, srq, qp, window]
  const known = [...instances, address, region].map((instance) => {
    return { type: instance.constructor, instance }
  })
  const receivers = await walkReceivers(known, () => undefined)
  t.same(receivers.wrong, [])
  await Promise.all([engine, other, device, manager].map((each) => each.close()))
})

t.test('closing in every order, and while calls are under way', async (t) => {
  const before = openFds()
  const orders = ['device', 'domain', 'cq', 'qp', 'region'] as const
  for (const what of orders) {
    const [a, b] = await pair()
    b.qp.postReceive(receives(b, 4))
    send(a, { opcode: SendOp.RDMA_WRITE, rkey: b.region.rkey, remoteAddress: IOVA, length: 60_000 })
    await Promise.all([b[what].close(), b[what].close()])
    t.equal(b[what].closed, true, what)
    t.throws(() => b[what].handle, { code: 'ERR_CLOSED' })
    await close(a, b)
  }
  const device = await VerbsDevice.open('rxe0')
  const domain = await device.protectionDomain()
  const cq = await device.completionQueue(4)
  using memfd = Memfd.create(4096)
  using mapping = memfd.map()
  const work = [
    domain.register(mapping),
    domain.queuePair({ sendCq: cq }),
    domain.memoryWindow(1),
    device.completionChannel(),
    device.completionQueue(8),
  ].map((each) => each.catch((error: { code: string }) => error.code))
  await device.close()
  for (const outcome of await Promise.all<{ closed: boolean } | string>(work)) {
    t.ok(outcome === 'ERR_CLOSED' || (typeof outcome === 'object' && outcome.closed), 'not left')
  }
  memfd.close()
  await settled()
  t.equal(openFds(), before)
})

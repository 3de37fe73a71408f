/** Connecting soft-RoCE devices by address: librdmacm. */
import t from 'tap'
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { Connection } from '../../lib/kernel/verbs/index.js'
import {
  ConnectionManager,
  type Listener,
  MemoryAccess,
  QpState,
  SendOp,
} from '../../lib/kernel/verbs/index.js'
import { openFds, settled } from './support.js'
import {
  close,
  completions,
  type End,
  IOVA,
  openEnd,
  receives,
  REMOTE,
  send,
} from './verbs-support.js'

t.setTimeout(900_000)

/** The next request. */
function listenOnce(manager: ConnectionManager): Promise<[Listener, Promise<Connection>]> {
  return new Promise((resolve, reject) => {
    let onRequest: (connection: Connection) => void = () => undefined
    const request = new Promise<Connection>((take) => (onRequest = take))
    manager
      .listen(
        (each) => {
          onRequest(each)
        },
        { address: '10.0.0.1' },
      )
      .then((listener) => {
        resolve([listener, request])
      }, reject)
  })
}

async function writes(from: End, to: End): Promise<void> {
  send(from, { opcode: SendOp.RDMA_WRITE, rkey: to.region.rkey, remoteAddress: IOVA })
  t.match(await completions(from.cq, 1), [{ status: 'SUCCESS' }])
}

t.test('connect, accept, exchange, disconnect', async (t) => {
  const manager = await ConnectionManager.open()
  const [listener, request] = await listenOnce(manager)
  t.ok(listener.port > 0)
  const [a, b] = [await openEnd('rxe0'), await openEnd('rxe0')]
  const there = await manager.resolve('10.0.0.1', listener.port)
  t.equal(there.deviceName, 'rxe0')
  t.match(there.peerAddress, { address: '10.0.0.1', port: listener.port })
  const connected = there.connect(a.qp, { privateData: Buffer.from('hello'), access: REMOTE })
  const here = await request
  t.equal(Buffer.from(here.privateData.subarray(0, 5)).toString(), 'hello')
  await here.accept(b.qp, { privateData: Buffer.from('yes'), access: REMOTE })
  await connected
  t.equal(Buffer.from(there.privateData.subarray(0, 3)).toString(), 'yes')
  t.equal(a.qp.query().qpState, QpState.RTS)
  await writes(a, b)
  await writes(b, a)
  await there.disconnect()
  await here.ended
  await there.ended
  t.equal(b.qp.query().qpState, QpState.ERR)
  t.equal(a.qp.query().qpState, QpState.ERR)
  await Promise.all([here.close(), there.close(), listener.close()])
  await manager.close()
  await close(a, b)
})

/** Messages of the connection manager's of one kind, sent by rxe0. */
function sent(kind: 'drep' | 'dreq', folder = 'cm_tx_msgs'): number {
  return Number(readFileSync(`/sys/class/infiniband/rxe0/ports/1/${folder}/${kind}`, 'utf8'))
}

t.test('receives before connecting; a disconnect is answered when it comes', async (t) => {
  const manager = await ConnectionManager.open()
  const [listener, request] = await listenOnce(manager)
  const [a, b] = [await openEnd('rxe0'), await openEnd('rxe0')]
  const there = await manager.resolve('10.0.0.1', listener.port)
  // One as rdma_create_qp(3) leaves it, one by its owner.
  await there.prepare(a.qp, { access: REMOTE })
  await b.qp.toInit()
  for (const end of [a, b]) t.equal(end.qp.postReceive(receives(end, 2)), 2)
  const connected = there.connect(a.qp)
  const here = await request
  await here.accept(b.qp, { access: REMOTE })
  await connected
  for (const end of [a, b]) send(end, { opcode: SendOp.SEND })
  for (const end of [a, b]) {
    t.match(await completions(end.cq, 2), [{ status: 'SUCCESS' }, { status: 'SUCCESS' }])
  }
  await writes(a, b)
  const [answers, repeated] = [sent('drep'), sent('dreq', 'cm_tx_retries')]
  await there.disconnect()
  await here.ended
  t.equal(here.closed, false)
  t.equal(sent('drep'), answers + 1)
  t.equal(sent('dreq', 'cm_tx_retries'), repeated)
  t.match(await completions(b.cq, 1), [{ status: 'WR_FLUSH_ERR' }])
  await manager.close()
  await close(a, b)
})

t.test('refusals', async (t) => {
  const before = openFds()
  const manager = await ConnectionManager.open()
  await t.rejects(manager.resolve('localhost', 1), {
    code: 'ERR_INVALID_ARG_VALUE',
    argument: 'address',
  })
  await t.rejects(manager.resolve('10.0.0.1', 0), { code: 'ERR_OUT_OF_RANGE', argument: 'port' })
  await t.rejects(manager.resolve('10.0.0.77', 5000, { timeoutMs: 300 }), {
    syscall: 'rdma_resolve_addr',
  } as never)
  await t.rejects(
    manager.listen(() => undefined, { address: '10.9.9.9' }),
    { code: 'EADDRNOTAVAIL' },
  )
  const aborted = AbortSignal.abort()
  await t.rejects(manager.resolve('10.0.0.1', 5, { signal: aborted }), { code: 'ABORT_ERR' })

  const a = await openEnd('rxe0')
  const nobody = await manager.resolve('10.0.0.1', 4999)
  await t.rejects(nobody.connect(a.qp), { code: 'ECONNREFUSED' })
  await a.qp.toReset()
  const other = await openEnd('rxe1')
  await t.rejects(nobody.connect(other.qp), { code: 'ERR_INVALID_ARG_VALUE', argument: 'pair' })

  const [listener, request] = await listenOnce(manager)
  const there = await manager.resolve('10.0.0.1', listener.port)
  const refused = t.rejects(there.connect(a.qp), { code: 'ECONNREFUSED' })
  await (await request).reject()
  await refused
  await a.qp.toReset()

  const pending = await manager.resolve('10.0.0.1', listener.port)
  const cut = t.rejects(pending.connect(a.qp), { code: 'ERR_CLOSED' })
  await manager.close()
  await cut
  t.ok([listener, pending, there, nobody].every((each) => each.closed))
  await manager.close()
  await close(a, other)
  await settled()
  t.equal(openFds(), before)
})

t.test('from the other network namespace', async (t) => {
  const manager = await ConnectionManager.open()
  const [listener, request] = await listenOnce(manager)
  const child = new URL('./verbs-cm-child.js', import.meta.url).pathname
  const end = await openEnd('rxe0')
  const output = new Promise<string>((resolve, reject) => {
    void import('node:child_process').then(({ execFile }) => {
      const words = ['netns', 'exec', 'peer', process.execPath, child, `${listener.port}`]
      execFile('ip', words, (error, stdout, stderr) => {
        if (error === null) resolve(stdout)
        else reject(new Error(stderr))
      })
    })
  })
  const here = await request
  t.equal(here.peerAddress.address, '10.0.0.2')
  const keys = Buffer.alloc(12)
  keys.writeUInt32LE(end.region.rkey, 0)
  keys.writeDoubleLE(IOVA, 4)
  await here.accept(end.qp, {
    privateData: keys,
    access: MemoryAccess.LOCAL_WRITE | MemoryAccess.REMOTE_WRITE,
  })
  t.match(await output, /rxe1 wrote SUCCESS/)
  await here.ended
  t.ok(end.bytes.subarray(0, 64).every((byte) => byte === 0xab))
  await manager.close()
  await close(end)
  t.ok(execFileSync('rdma', ['resource', 'show', 'qp']).toString().split('\n').length < 20)
})

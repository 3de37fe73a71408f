/** The other side of verbs-cm.test.ts: connects to 10.0.0.1 and writes. */
import { ConnectionManager, SendOp } from '../../lib/kernel/verbs/index.js'
import { close, completions, openEnd, send } from './verbs-support.js'

const manager = await ConnectionManager.open()
const connection = await manager.resolve('10.0.0.1', Number(process.argv[2]))
const end = await openEnd(connection.deviceName)
end.bytes.fill(0xab)
await connection.connect(end.qp)
const keys = Buffer.from(connection.privateData)
send(end, {
  opcode: SendOp.RDMA_WRITE,
  rkey: keys.readUInt32LE(0),
  remoteAddress: keys.readDoubleLE(4),
})
const [done] = await completions(end.cq, 1)
console.log(`${connection.deviceName} wrote ${done?.status}`)
await connection.disconnect()
await manager.close()
await close(end)

/**
 * Allocates a udmabuf and shares it with another process: the child gets the
 * file descriptor, knows the buffer by its identity, and reads what is in it.
 *
 * Needs /dev/udmabuf: `npm run rig -- node dist/examples/share-udmabuf.js`
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { DmaBuf, Memfd, Udmabuf } from 'p2pdma'

const SIZE = 64 << 10
const CHILD_FD = 3

async function parent(): Promise<void> {
  using memfd = Memfd.create(SIZE)
  using dmaBuf = await Udmabuf.create(memfd, 0, SIZE)
  dmaBuf.setName('shared')
  await dmaBuf.withCpuAccess('w', (bytes) => {
    Buffer.from(bytes.buffer).write('hello from the parent')
  })
  console.log(`parent: ${dmaBuf.size} bytes by ${dmaBuf.info().exporter}, ${dmaBuf.identity}`)
  const child = spawn(process.execPath, [fileURLToPath(import.meta.url), dmaBuf.identity], {
    stdio: ['ignore', 'inherit', 'inherit', dmaBuf.fd],
  })
  const [code] = (await once(child, 'exit')) as [number | null]
  process.exitCode = code ?? 1
}

async function child(identity: string): Promise<void> {
  using dmaBuf = DmaBuf.adopt(CHILD_FD)
  const text = await dmaBuf.withCpuAccess('r', (bytes) =>
    Buffer.from(bytes).toString('utf8', 0, 21),
  )
  console.log(`child: '${dmaBuf.name}' says '${text}'`)
  if (dmaBuf.identity !== identity || text !== 'hello from the parent') process.exitCode = 1
}

const identity = process.argv[2]
await (identity === undefined ? parent() : child(identity))

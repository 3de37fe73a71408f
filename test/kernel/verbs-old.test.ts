/** A libibverbs that is older than this addon's headers: what it lacks, it says by name; the rest works. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { verbsDevices } from '../../lib/kernel/verbs/index.js'
import { patched } from '../unit/native-help.js'

t.setTimeout(900_000)

const program = `
  const { Memfd, Udmabuf, VerbsDevice } = await import(process.argv[1])
  const device = await VerbsDevice.open('rxe0')
  const domain = await device.protectionDomain()
  await domain.queuePair({ sendCq: await device.completionQueue(4) })
  const outcomes = [device.activePort().state]
  const told = ({ code, syscall }) => outcomes.push([code, syscall])
  try {
    device.gids()
  } catch (error) {
    told(error)
  }
  const memfd = Memfd.create(4096)
  await domain.register(memfd.map()).then(() => outcomes.push('registered'), told)
  const dmaBuf = await Udmabuf.create(memfd, 0, 4096)
  await domain.registerDmabuf(dmaBuf).catch(told)
  await device.close()
  console.log(JSON.stringify(outcomes))`

t.test('what came in later is refused by name', async (t) => {
  t.ok(verbsDevices().length > 0, 'this process has it loaded')
  const maps = readFileSync('/proc/self/maps', 'utf8')
  const [real = ''] = /\/\S*libibverbs\.so\.1\S*/.exec(maps) ?? []
  const folder = mkdtempSync(join(tmpdir(), 'p2pdma-old-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  // This machine's, without what came in versions 32 and 34 of rdma-core.
  const library = join(folder, 'libibverbs.so.1')
  let from = real
  for (const name of ['_ibv_query_gid_table', 'ibv_reg_dmabuf_mr']) {
    patched(from, library, `${name}\0`, `${name.slice(0, -1)}X\0`)
    from = library
  }
  const index = new URL('../../lib/kernel/index.js', import.meta.url).href
  const output = execFileSync(process.execPath, ['--input-type=module', '-e', program, index], {
    encoding: 'utf8',
    env: { ...process.env, LD_LIBRARY_PATH: folder },
  })
  t.same(JSON.parse(output), [
    'active',
    ['ERR_VERBS_TOO_OLD', '_ibv_query_gid_table'],
    'registered',
    // The kernel's own call needs no library.
    ['EOPNOTSUPP', 'ioctl UVERBS_METHOD_REG_DMABUF_MR'],
  ])
})

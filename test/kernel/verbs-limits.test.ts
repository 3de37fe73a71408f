/**
 * Less memory may be locked than is to be registered. Root may lock any amount
 * (CAP_IPC_LOCK), so it is a child without that capability that tries.
 */
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { rdmaResources } from './verbs-support.js'

t.setTimeout(900_000)

const child = fileURLToPath(new URL('verbs-limits-child.js', import.meta.url))
const LIMIT = 256 * 1024

function run(limit: string, what: string): Record<string, unknown> {
  const drop = ['setpriv', '--bounding-set=-ipc_lock', '--inh-caps=-ipc_lock']
  const command = [`--memlock=${limit}`, ...drop, process.execPath, child, what]
  const output = execFileSync('prlimit', command, { encoding: 'utf8', timeout: 300_000 })
  return JSON.parse(output) as Record<string, unknown>
}

function refusal(limit: number, pinned: number) {
  const said = `the limit of locked memory is ${limit} bytes, and ${pinned} of them are in use: `
  const help = /`ulimit -l`, LimitMEMLOCK= of systemd, or memlock in \/etc\/security\/limits\.conf/
  return {
    code: 'ENOMEM',
    errno: -12,
    syscall: 'ibv_reg_mr_iova2',
    hint: new RegExp(`^${said}.*${help.source}`),
  }
}

t.test('registering more than may be locked', (t) => {
  const before = rdmaResources()
  const found = run(`${LIMIT}:${LIMIT}`, 'little')
  t.match(found['classes'], {
    refused: [refusal(LIMIT, 0), refusal(LIMIT, 0)],
    left: { pinned: 0, isClean: true },
    rest: refusal(LIMIT, 128 * 1024),
    half: 128 * 1024,
    after: 0,
  })
  // Its queue pairs have a page each for what atomics return.
  const refused = refusal(LIMIT, 8192)
  const whole = { attachments: 0, moved: 'memfd' }
  t.match(found['engine'], {
    refused: [refused, whole, refused, whole],
    left: { pinned: 0, isClean: true },
    goesOn: 'udmabuf',
  })
  t.equal(found['pinned'], 0)
  t.equal(rdmaResources(), before)
  t.end()
})

t.test('none at all', (t) => {
  const before = rdmaResources()
  const refused = { ...refusal(0, 0), code: 'EPERM', errno: -1 }
  t.match(run('0:0', 'none'), { refused, isClean: true, pinned: 0 })
  t.equal(rdmaResources(), before)
  t.end()
})

t.test('where there is no limit, none is to be raised', (t) => {
  t.match(run('unlimited:unlimited', 'hint'), { hint: /^this process may lock any amount/ })
  t.end()
})

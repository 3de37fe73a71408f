/**
 * What a host gives less of than is asked for. Of locked memory root has any amount
 * (CAP_IPC_LOCK), so it is a child without that capability that tries.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { VerbsEngine } from '../../lib/engines/verbs/engine.js'
import { VerbsDevice } from '../../lib/kernel/verbs/index.js'
import { compile, root } from '../unit/native-help.js'
import { rdmaResources } from './verbs-support.js'

t.setTimeout(900_000)

const child = fileURLToPath(new URL('verbs-limits-child.js', import.meta.url))
const LIMIT = 256 * 1024

function run(limit: string, what: string): Record<string, unknown> {
  const drop = ['setpriv', '--bounding-set=-ipc_lock', '--inh-caps=-ipc_lock']
  return runAs(['prlimit', `--memlock=${limit}`, ...drop], what)
}

function runAs(before: readonly string[], ...words: string[]): Record<string, unknown> {
  const [program = '', ...args] = [...before, process.execPath, child, ...words]
  const output = execFileSync(program, args, { encoding: 'utf8', timeout: 300_000 })
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

t.test('no descriptor is left', (t) => {
  const before = rdmaResources()
  const { refused, after } = runAs(['prlimit', '--nofile=100:100'], 'descriptors')
  const told = { code: 'EMFILE', hint: /as many files open as it may.*`ulimit -n`/ }
  t.match(refused, { list: told, open: told, channel: told, connect: told })
  t.same(after, ['rxe0', 'rxe1'], 'and then it finds them')
  t.equal(rdmaResources(), before)
  t.end()
})

t.test('more completions than the device has room for', async (t) => {
  const before = rdmaResources()
  {
    await using device = await VerbsDevice.open('rxe0')
    const { maxCqe } = device.attributes()
    await t.rejects(device.completionQueue(maxCqe + 1), {
      code: 'EINVAL',
      hint: new RegExp(`^more than the device has room for: .*maxCqe ${maxCqe},`),
    })
    // Four for each row.
    const fits = 2 ** Math.floor(Math.log2(maxCqe / 4))
    await using here = await VerbsEngine.open('rxe0')
    await using there = await VerbsEngine.open('rxe1')
    const [near] = await here.pair(there)
    const objects = rdmaResources()
    await t.rejects(near.openQueue({ depth: 2 * fits }), {
      code: 'ERR_OUT_OF_RANGE',
      argument: 'depth',
      message: new RegExp(`maxCqe ${maxCqe}`),
      hint: `a depth of ${fits} would do`,
    })
    t.equal(rdmaResources(), objects, 'nothing is left of it')
    await near.openQueue({ depth: fits })
  }
  t.equal(rdmaResources(), before)
})

const CGROUPS = '/sys/fs/cgroup'

/** A cgroup with a controller's limits, which goes with the test. */
function cgroup(t: Test, controller: string, limits: Record<string, string> = {}): string {
  const group = join(CGROUPS, `p2pdma-${controller}`)
  if (!existsSync(join(CGROUPS, 'cgroup.controllers'))) {
    execFileSync('mount', ['-t', 'cgroup2', 'none', CGROUPS])
    t.teardown(() => execFileSync('umount', [CGROUPS]))
  }
  writeFileSync(join(CGROUPS, 'cgroup.subtree_control'), `+${controller}`)
  mkdirSync(group)
  for (const [name, text] of Object.entries(limits)) writeFileSync(join(group, name), text)
  t.teardown(() => {
    rmdirSync(group)
    writeFileSync(join(CGROUPS, 'cgroup.subtree_control'), `-${controller}`)
  })
  return group
}

const inside = (group: string) => ['sh', '-c', `echo $$ > ${group}/cgroup.procs; exec "$@"`, 'sh']

t.test('an rdma cgroup', (t) => {
  const group = cgroup(t, 'rdma', { 'rdma.max': 'rxe0 hca_handle=1 hca_object=3' })
  const { second, objects } = runAs(inside(group), 'rdmaCgroup')
  const help = `trying again does not help; close some, or raise ${group}/rdma.max`
  const hint = (what: string) => new RegExp(`^the rdma cgroup .* ${what} of rxe0, .*${help}$`)
  t.match(second, { code: 'EAGAIN', hint: hint('1 hca_handle') })
  t.match(objects, { code: 'EAGAIN', syscall: 'ibv_alloc_pd', hint: hint('3 hca_object') })
  t.end()
})

/** As many as that, until the test is over. */
function reserveHugePages(t: Test, count: number): void {
  const file = '/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages'
  const before = readFileSync(file, 'utf8')
  writeFileSync(file, String(count))
  t.teardown(() => {
    writeFileSync(file, before)
  })
  t.equal(Number(readFileSync(file, 'utf8')), count)
}

t.test('a cgroup of huge pages', (t) => {
  reserveHugePages(t, 4)
  t.match(runAs([], 'hugePages'), { told: 'not refused' })
  const group = cgroup(t, 'hugetlb', { 'hugetlb.2MB.rsvd.max': '0' })
  const hint = `the cgroup has 0 of its 0 bytes: raise ${group}/hugetlb.2MB.rsvd.max`
  t.match(runAs(inside(group), 'hugePages'), { told: { code: 'ENOMEM', syscall: 'mmap', hint } })
  t.end()
})

t.test('a cgroup of processes', (t) => {
  const group = cgroup(t, 'pids')
  const { told } = runAs(inside(group), 'threads', group)
  const hint = new RegExp(`^the cgroup has \\d+ of its \\d+ threads: raise ${group}/pids.max$`)
  t.match(told, { code: 'EAGAIN', syscall: 'pthread_create', hint })
  t.end()
})

t.test('huge pages where fork() is to be safe', (t) => {
  reserveHugePages(t, 4)
  const built = join(root, 'build/tests/deny-call-guest')
  const deny = existsSync(built) ? built : compile('deny-call', ['test/native/deny-call.cc'])
  // Without netlink (AF_NETLINK, EPERM) libibverbs takes the kernel for one that copies nothing on fork().
  const before = ['env', 'RDMAV_FORK_SAFE=1']
  const filtered = [deny, 'socket=0:16', '1']
  const { told } = runAs([...before, ...filtered], 'forkSafe')
  t.match(told, { code: 'EINVAL', syscall: 'ibv_reg_mr_iova2', hint: /RDMAV_HUGEPAGES_SAFE=1/ })
  const cured = runAs([...before, 'RDMAV_HUGEPAGES_SAFE=1', ...filtered], 'forkSafe')
  t.match(cured, { told: 'not refused' })
  t.end()
})

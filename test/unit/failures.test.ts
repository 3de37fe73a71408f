/**
 * Errors that explain themselves. The conditions are real ones, made in a child; what no
 * child can have, a machine's files say.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { explain, type Failure, Machine } from '../../lib/failures/index.js'
import { symptoms } from '../../lib/failures/table.js'
import { compile } from './native-help.js'

t.setTimeout(900_000)

const folder = t.testdir({})

const child = fileURLToPath(new URL('failures-child.js', import.meta.url))

type Told = Record<'code' | 'syscall' | 'message' | 'hint' | 'name', string>

function run<T>(what: string, before: readonly string[] = [], flags: readonly string[] = []): T {
  const [program = '', ...args] = [...before, process.execPath, ...flags, child, what]
  const { stdout, stderr, signal } = spawnSync(program, args, { encoding: 'utf8' })
  if (stdout === '') throw new Error(`${what}: ${signal ?? ''} ${stderr.slice(-2000)}`)
  return JSON.parse(stdout) as T
}

const limited = (limit: string) => ['sh', '-c', `ulimit ${limit}; exec "$@"`, 'sh']
const NOFILE = /as many files open as it may.*`ulimit -n`/

t.test('no descriptor is left', (t) => {
  const { after, verbsAddon, engine, ...calls } = run<Record<string, Told>>(
    'descriptors',
    limited('-n 200'),
  )
  for (const [name, told] of Object.entries(calls)) {
    t.match(told, { name: 'P2pdmaError', code: 'EMFILE', hint: NOFILE }, name)
  }
  // Or it was not built at all.
  if (verbsAddon?.code !== 'ERR_VERBS_MISSING') {
    t.match(verbsAddon, { code: 'EMFILE', syscall: 'dlopen', hint: NOFILE })
    t.match(engine, { code: 'EMFILE', hint: NOFILE }, 'not a device that is missing')
  }
  t.equal(after, 'not refused')
  t.end()
})

t.test('no descriptor is left for the addon', (t) => {
  const told = run<Told>('loading', limited('-n 200'))
  t.match(told, { name: 'P2pdmaError', code: 'EMFILE', syscall: 'dlopen', hint: NOFILE })
  t.notMatch(told.hint, /npm rebuild/)
  t.end()
})

t.test('no descriptor is left for the command', (t) => {
  const main = join(dirname(child), '../../lib/cli/main.js')
  // With a few of them Node starts; the modules of a command, read all at once, want more.
  for (let limit = 20; ; limit += 4) {
    const [sh = '', ...args] = [...limited(`-n ${limit}`), process.execPath, main, 'smoke']
    const { stderr } = spawnSync(sh, [...args, '--moves', '1'], { encoding: 'utf8' })
    if (!stderr.startsWith('p2pdma: ') && limit < 80) continue
    t.match(stderr, /^p2pdma: EMFILE: .*\nhint: .*`ulimit -n`.*\n$/, `of ${limit}`)
    break
  }
  t.end()
})

t.test('no mapping is left', (t) => {
  // Room from the start for all that it needs: V8 dies where it is refused a mapping.
  const room = ['MALLOC_TOP_PAD_=100000000', 'MALLOC_MMAP_THRESHOLD_=1000000000']
  const flags = ['--min-semi-space-size=64', '--max-semi-space-size=64', '--no-opt', '--no-lazy']
  const before = ['env', 'MALLOC_ARENA_MAX=1', ...room]
  const found = run<{ told: Told; most: number; made: number }>('mappings', before, flags)
  const { told, most, made } = found
  t.ok(made < most, `${made} of ${most}`)
  t.match(told, { code: 'ENOMEM', syscall: 'mmap', hint: /\d+ memory mappings.*max_map_count/ })
  t.end()
})

t.test('no huge page is left', (t) => {
  const found = run<{ pages: { free: number; size: number }; told: Told } | null>('hugePages')
  if (found === null) {
    t.equal(new Machine().hugePages(), null, 'this kernel has none')
    t.end()
    return
  }
  const { pages, told } = found
  const hint = new RegExp(
    `^huge pages of ${pages.size / 1024} KiB: ${pages.free + 1} are wanted, and ${pages.free} of`,
  )
  t.match(told, { code: 'ENOMEM', syscall: 'mmap', hint })
  t.match(told.hint, `hugepages-${pages.size / 1024}kB/nr_hugepages`)
  t.end()
})

t.test('no address space is left', (t) => {
  const told = run<Told>('addressSpace', limited('-v 2500000'))
  t.match(told, { code: 'ENOMEM', hint: /bytes of address space, of 2560000000 .*`ulimit -v`/ })
  t.end()
})

t.test('a seccomp filter is no missing feature', (t) => {
  const deny = compile('deny-call', ['-Wall', '-Wextra', '-Werror', 'test/native/deny-call.cc'])
  const { EPERM, ENOSYS } = constants.errno
  for (const [code, errno] of Object.entries({ EPERM, ENOSYS })) {
    const { made } = run<Record<string, Told>>('filtered', [deny, 'memfd_create', String(errno)])
    const hint = /^a seccomp filter is in force.*forbids memfd_create, which the kernel has/
    t.match(made, { code, syscall: 'memfd_create', hint })
  }
  // MADV_POPULATE_WRITE.
  const { present } = run<Record<string, Told>>('filtered', [deny, 'madvise=2:23', String(EPERM)])
  t.match(present, { code: 'EPERM', syscall: 'madvise', hint: /^a seccomp filter/ })
  t.end()
})

let machines = 0

/** The hint that a machine of these files gives. */
function hintOn(
  files: Record<string, string>,
  failure: Failure,
  env: Record<string, string> = {},
): string | undefined {
  const root = join(folder, `machine${machines++}`)
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), text)
  }
  return explain(failure, new Machine(root, env)).hint
}

const limits = (name: string, soft: number | string) =>
  `Limit  Soft Limit  Hard Limit  Units\n${name.padEnd(26)}${soft}  unlimited  bytes\n`

const UNIFIED = '31 23 0:27 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n'
const inGroup = (path: string, mounts = UNIFIED) => ({
  'proc/self/cgroup': `0::${path}\n`,
  'proc/self/mountinfo': mounts,
})

t.test('limits that this process may not have here', (t) => {
  const register = { code: 'ENOMEM', syscall: 'ibv_reg_mr', doing: 'verbs.register' } as const
  const root = { 'proc/self/uid_map': '         0          0 4294967295\n' }
  const memlock = {
    ...root,
    'proc/self/limits': limits('Max locked memory', 8192),
    'proc/self/status': 'VmLck:\t 4 kB\nVmPin:\t 4 kB\nCapEff:\t0000000000000000\n',
  }
  const locked = /^the limit of locked memory is 8192 bytes, and 4096 of them are in use: /
  t.match(hintOn(memlock, { ...register, bytes: 8192 }), locked)
  t.match(hintOn(memlock, { ...register, syscall: 'ibv_create_cq' }), locked, 'a queue, too')
  t.match(hintOn(memlock, { code: 'ENOMEM', doing: 'type1.map', bytes: 8192 }), locked)
  t.match(hintOn(memlock, { code: 'ENOMEM', doing: 'iommufd.map', bytes: 1 }), locked, 'of a user')
  t.notMatch(hintOn(memlock, { ...register, bytes: 4096 }) ?? '', locked, 'it would fit')
  t.notMatch(hintOn(memlock, { code: 'ENOMEM', syscall: 'mmap' }) ?? '', locked)
  const status = 'VmPin:\t 4 kB\nCapEff:\t0000000000004000\n'
  const capable = { ...memlock, 'proc/self/status': status }
  t.match(hintOn(capable, { ...register, bytes: 8192 }), /^this process may lock any amount/)
  const inside = { ...capable, 'proc/self/uid_map': '0 1000 1\n' }
  t.match(hintOn(inside, { ...register, bytes: 8192 }), locked, 'root of a user namespace is none')

  const data = {
    'proc/self/limits': limits('Max data size', 1 << 20),
    'proc/self/status': 'VmData:\t 1000 kB\n',
  }
  t.match(hintOn(data, { code: 'ENOMEM', syscall: 'mmap', bytes: 1 << 16 }), /`ulimit -d`/)
  const strict = {
    'proc/sys/vm/overcommit_memory': '2\n',
    'proc/meminfo': 'CommitLimit:  1000 kB\nCommitted_AS:  999 kB\n',
  }
  const mmap = { code: 'ENOMEM', syscall: 'mmap', bytes: 4096 }
  t.match(hintOn(strict, mmap), /overcommit_ratio/)
  t.equal(hintOn({ ...strict, 'proc/sys/vm/overcommit_memory': '0\n' }, mmap), undefined)
  t.match(hintOn({ 'proc/meminfo': 'MemAvailable: 3 kB\n' }, mmap), /the machine has 3072 left/)
  t.match(hintOn({}, { code: 'ENFILE', syscall: 'open' }), /whole machine.*fs\.file-max/)
  t.end()
})

t.test('cgroups', (t) => {
  const failure = { code: 'EAGAIN', syscall: 'ibv_create_cq', of: 'rxe0' }
  const rdma = (max: string, current: string) => ({
    ...inGroup('/lab/job'),
    'sys/fs/cgroup/lab/job/rdma.max': 'rxe0 hca_handle=max hca_object=max\n',
    'sys/fs/cgroup/lab/rdma.max': max,
    'sys/fs/cgroup/lab/rdma.current': current,
  })
  const full = rdma('rxe0 hca_handle=2 hca_object=9\n', 'rxe0 hca_handle=1 hca_object=9\n')
  t.match(
    hintOn(full, failure),
    /9 hca_object of rxe0.*trying again does not help.*raise \/sys\/fs\/cgroup\/lab\/rdma\.max$/,
    'one above counts',
  )
  const free = rdma('rxe0 hca_handle=2 hca_object=9\n', 'rxe0 hca_handle=1 hca_object=8\n')
  t.match(hintOn(free, failure), /^the device has no more of them/)
  const handles = rdma('rxe0 hca_handle=1 hca_object=9\n', 'rxe0 hca_handle=1 hca_object=8\n')
  t.match(hintOn(handles, failure), /^the device has no more of them/, 'a handle is no object')
  t.match(hintOn(handles, { ...failure, syscall: 'ibv_open_device' }), /1 hca_handle of rxe0/)

  const enomem = { code: 'ENOMEM', syscall: 'madvise' }
  const memory = (used: number) => ({
    ...inGroup('/job'),
    'sys/fs/cgroup/job/memory.max': '1048576\n',
    'sys/fs/cgroup/job/memory.current': `${used}\n`,
  })
  t.match(
    hintOn(memory(1_040_000), enomem),
    /1040000 of its 1048576 bytes: raise .*job\/memory\.max/,
  )
  t.equal(hintOn(memory(500_000), enomem), undefined)
  t.match(hintOn(memory(500_000), { ...enomem, bytes: 600_000 }), /memory\.max/)
  const older = {
    'proc/self/cgroup': '4:cpu,memory:/docker/1f\n0::/\n',
    'proc/self/mountinfo': '35 31 0:32 /docker/1f /cg/memory rw - cgroup cgroup rw,memory\n',
    'cg/memory/memory.limit_in_bytes': '4096\n',
    'cg/memory/memory.usage_in_bytes': '4096\n',
  }
  t.match(hintOn(older, enomem), /raise \/cg\/memory\/memory\.limit_in_bytes/, 'of a container')

  const huge = 'sys/kernel/mm/hugepages/hugepages-2048kB'
  const reserved = {
    ...inGroup('/'),
    [`${huge}/nr_hugepages`]: '8\n',
    [`${huge}/free_hugepages`]: '8\n',
    [`${huge}/resv_hugepages`]: '0\n',
    'sys/fs/cgroup/hugetlb.2MB.rsvd.max': '2097152\n',
    'sys/fs/cgroup/hugetlb.2MB.rsvd.current': '0\n',
  }
  const map = { code: 'ENOMEM', syscall: 'mmap', hugePage: 2 << 20, bytes: 4 << 20 }
  t.match(hintOn(reserved, map), /raise \/sys\/fs\/cgroup\/hugetlb\.2MB\.rsvd\.max/)
  t.equal(hintOn(reserved, { ...map, bytes: 2 << 20 }), undefined)
  const taken = { ...reserved, [`${huge}/resv_hugepages`]: '7\n' }
  t.match(hintOn(taken, map), /2 are wanted, and 1 of 8 are free/, 'reserved ones are not')

  const thread = { code: 'EAGAIN', syscall: 'pthread_create' }
  const pids = { 'sys/fs/cgroup/job/pids.max': '9\n', 'sys/fs/cgroup/job/pids.current': '9\n' }
  t.match(hintOn({ ...inGroup('/job'), ...pids }, thread), /9 threads: raise .*job\/pids\.max/)
  t.match(hintOn({}, thread), /`ulimit -u`/)
  t.end()
})

t.test('huge pages and fork', (t) => {
  const failure = { code: 'EINVAL', syscall: 'ibv_reg_mr', doing: 'verbs.register' } as const
  const huge = { ...failure, hugePage: 2 << 20 }
  const safe = { RDMAV_FORK_SAFE: '1' }
  t.match(hintOn({}, huge, safe), /RDMAV_HUGEPAGES_SAFE=1/)
  t.match(hintOn({}, huge, { IBV_FORK_SAFE: '1' }), /RDMAV_HUGEPAGES_SAFE=1/)
  t.equal(hintOn({}, failure, safe), undefined, 'pages of the usual size')
  t.equal(hintOn({}, huge), undefined)
  t.equal(hintOn({}, huge, { ...safe, RDMAV_HUGEPAGES_SAFE: '1' }), undefined)
  t.end()
})

t.test('who forbids it', (t) => {
  const filter = { 'proc/self/status': 'Seccomp:\t2\n' }
  const open = {
    code: 'EPERM',
    syscall: 'open',
    path: '/dev/udmabuf',
    doing: 'udmabuf.open',
  } as const
  t.match(hintOn({}, open), /^the cgroup .*`docker run --device \/dev\/udmabuf`$/)
  t.match(hintOn(filter, { code: 'EPERM', syscall: 'ioctl X' }), /^a seccomp filter/)
  t.equal(hintOn({}, { code: 'EPERM', syscall: 'ioctl X' }), undefined)
  const sealed = {
    code: 'EPERM',
    syscall: 'ftruncate',
    doing: 'memfd.resize',
    seals: () => 2,
  } as const
  t.match(hintOn(filter, sealed), /^a seal [^;]*$/, 'what is certain is told alone')
  t.match(hintOn(filter, { ...sealed, seals: () => 0 }), /^a seccomp filter/)
  const remapping = { code: 'EPERM', syscall: 'ioctl VFIO_SET_IOMMU', doing: 'vfio.iommu' } as const
  t.match(
    hintOn(filter, remapping),
    /^no interrupt remapping.*; or a seccomp filter/,
    'both may be',
  )
  // No system call: libibverbs says so where no driver is loaded.
  const none = { code: 'ENOSYS', syscall: 'ibv_get_device_list', doing: 'verbs.open' } as const
  t.match(hintOn(filter, none), /^load the driver: [^;]*$/)
  t.end()
})

t.test('each row of the table says where it comes from, and something', (t) => {
  for (const { codes, hint, when, unsupported, source } of symptoms) {
    const what = codes.join()
    t.ok(codes.length > 0 && codes.every((code) => /^E[A-Z_]+$/.test(code)), what)
    t.match(source, /[\w.-]+\.[ch]\b|\(\)/, what)
    t.ok(hint !== undefined || when !== undefined || unsupported === true, what)
  }
  t.end()
})

/** The rig's parts that need no machine. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { splitCommand } from '../../lib/cli/args.js'
import { CpioArchive } from '../../lib/rig/cpio.js'
import { withoutSignature } from '../../lib/rig/initramfs.js'
import { compareVersions, matchesVersion } from '../../lib/rig/kernel.js'
import { newLog } from '../../lib/rig/logs.js'
import { deviceArguments, qemuArguments, tcgThreads } from '../../lib/rig/qemu.js'
import { runInRig } from '../../lib/rig/index.js'
import { isMountPoint } from '../../lib/rig/toolchain.js'

const dist = join(dirname(fileURLToPath(import.meta.url)), '../..')
const main = join(dist, 'lib/cli/main.js')
const folder = mkdtempSync(join(tmpdir(), 'p2pdma-test-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))

function p2pdma(args: string[], environment: NodeJS.ProcessEnv = process.env) {
  const options = { encoding: 'utf8', env: environment, cwd: folder } as const
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], options)
  return { status, stdout, stderr }
}

/** Reads an archive back: name, mode, content. */
function entries(archive: Buffer) {
  const found: { name: string; mode: string; content: string }[] = []
  for (let at = 0; at < archive.length;) {
    t.equal(archive.toString('latin1', at, at + 6), '070701')
    const field = (i: number) =>
      parseInt(archive.toString('latin1', at + 6 + i * 8, at + 14 + i * 8), 16)
    const [mode, size, nameSize] = [field(1), field(6), field(11)]
    const name = archive.toString('utf8', at + 110, at + 110 + nameSize - 1)
    const start = (at + 110 + nameSize + 3) & ~3
    found.push({
      name,
      mode: mode.toString(8),
      content: archive.toString('utf8', start, start + size),
    })
    at = (start + size + 3) & ~3
  }
  return found
}

t.test('a log goes when newer ones have come, but never that of a guest that runs', async (t) => {
  const logs = mkdtempSync(join(folder, 'logs-'))
  const ended = spawnSync('true').pid
  const name = (day: number, pid: number) => `202001${day}T000000-${pid}.log`
  const old = Array.from({ length: 12 }, (_, day) => name(day + 10, ended))
  const running = name(9, process.pid).replace('2020019', '20200109')
  for (const each of [running, ...old, 'build.log']) writeFileSync(join(logs, each), '')
  const made = newLog(logs)
  t.match(made, new RegExp(`/\\d{8}T\\d{6}-${process.pid}\\.log$`))
  const wanted = [running, ...old.slice(-9), made.slice(logs.length + 1), 'build.log']
  t.strictSame(readdirSync(logs).sort(), wanted.sort())
})

t.test('a cpio archive reads back', async (t) => {
  const archive = new CpioArchive()
    .folder('a')
    .file('a/b', 'text', 0o755)
    .file('a/empty', '')
    .file('a/c', Buffer.from('12345'))
    .link('l', 'a/b')
    .device('d', 5, 1)
    .finish()
  t.equal(archive.length % 4, 0)
  t.strictSame(entries(archive), [
    { name: 'a', mode: '40755', content: '' },
    { name: 'a/b', mode: '100755', content: 'text' },
    { name: 'a/empty', mode: '100644', content: '' },
    { name: 'a/c', mode: '100644', content: '12345' },
    { name: 'l', mode: '120777', content: 'a/b' },
    { name: 'd', mode: '20600', content: '' },
    { name: 'TRAILER!!!', mode: '0', content: '' },
  ])
})

t.test('a module’s signature is taken off, and nothing else', async (t) => {
  const marker = '~Module signature appended~\n'
  const header = (length: number) => {
    const bytes = Buffer.alloc(12)
    bytes.writeUInt32BE(length, 8)
    return bytes.toString('latin1')
  }
  const cut = (text: string) => withoutSignature(Buffer.from(text, 'latin1')).toString('latin1')
  t.equal(cut(`module, signature${header(11)}${marker}`), 'module')
  for (const other of ['', 'x', marker, `module${marker}x`, `module${header(100)}${marker}`]) {
    t.equal(cut(other), other)
  }
})

t.test('kernel versions', async (t) => {
  const releases = ['7.10.1+deb13-amd64', '7.2.12+deb13-amd64', '7.2.9+deb13-amd64', '7.3-amd64']
  t.strictSame([...releases].sort(compareVersions), [
    '7.2.9+deb13-amd64',
    '7.2.12+deb13-amd64',
    '7.3-amd64',
    '7.10.1+deb13-amd64',
  ])
  const matching = (version?: string) =>
    releases
      .filter((release) => matchesVersion(release, version))
      .map((release) => release.split(/[+-]/)[0])
  t.strictSame(matching('7.2'), ['7.2.12', '7.2.9'])
  t.strictSame(matching('7.1'), [])
  t.strictSame(matching('7.2.9'), ['7.2.9'])
  t.strictSame(matching('7.3-amd64'), ['7.3'])
  t.equal(matching(undefined).length, 4)
})

t.test('devices and shares on QEMU’s command line', async (t) => {
  t.strictSame(deviceArguments('edu'), ['-device', 'edu'])
  t.strictSame(deviceArguments('nvme,serial=x  -trace y'), [
    '-device',
    'nvme,serial=x',
    '-trace',
    'y',
  ])
  t.strictSame(deviceArguments('-drive if=none -device z'), ['-drive', 'if=none', '-device', 'z'])
  const kernel = { release: 'r', image: '/i', root: '/k', modules: '/k/m' }
  const machine = {
    kernel,
    log: '/l',
    folder: '/a,b',
    smp: 3,
    icount: false,
    threads: 'multi',
    memory: '1G',
    accelerator: 'tcg',
    devices: ['-device', 'edu'],
    defaultDevices: false,
    peerToPeer: false,
  } as const
  const args = qemuArguments(machine)
  t.ok(
    args.some(
      (arg) => arg.startsWith('local,id=folder,path=/a,,b,') && arg.endsWith('readonly=off'),
    ),
  )
  t.ok(args.some((arg) => arg.startsWith('local,id=root,path=/,') && arg.endsWith('readonly=on')))
  t.notMatch(args.join(' '), /e1000e|ivshmem/)
  t.strictSame(args.slice(-2), ['-device', 'edu'])
  t.notMatch(args.join(' '), /icount/)
  t.match(args.join(' '), /-accel tcg,thread=multi /)
  const counted = qemuArguments({ ...machine, smp: 1, icount: true }).join(' ')
  t.match(counted, /-accel tcg,thread=single -icount shift=0,sleep=off/)
})

t.test('emulated CPUs have threads of their own where QEMU can', async (t) => {
  const said = (version: string) => `QEMU emulator version ${version} (Debian)\nCopyright`
  for (const version of ['7.2.22', '8.1.5']) t.equal(tcgThreads(said(version)), 'single', version)
  for (const version of ['8.2.0', '10.0.2']) t.equal(tcgThreads(said(version)), 'multi', version)
  t.equal(tcgThreads('?'), 'single')
})

t.test('options end at the first word that is none, or at --', async (t) => {
  const options = { smp: { type: 'string' }, setup: { type: 'boolean' } } as const
  t.strictSame(splitCommand(['--smp', '2', 'sh', '-c', '--smp'], options), {
    own: ['--smp', '2'],
    command: ['sh', '-c', '--smp'],
  })
  t.strictSame(splitCommand(['--setup', '--smp=2', '--', '--x', '--'], options), {
    own: ['--setup', '--smp=2'],
    command: ['--x', '--'],
  })
  t.strictSame(splitCommand(['--smp'], options), { own: ['--smp'], command: [] })
})

t.test('usage on stderr and exit code 2', async (t) => {
  for (const [args, message] of [
    [[], /usage: p2pdma COMMAND/],
    [['rigg'], /unknown command 'rigg'/],
    [['toString'], /unknown command 'toString'/],
    [['rig'], /a command is missing/],
    [['rig', '--'], /a command is missing/],
    [['rig', '--nope', 'true'], /Unknown option '--nope'/],
    [['rig', '--smp'], /--smp/],
    [['rig', '--smp', 'x', 'true'], /--smp must be a whole number from 1 to 255, not 'x'/],
    [['rig', '--smp', '0', 'true'], /--smp must be/],
    [['rig', '--device', '-trace x', '--smp', '-1', 'true'], /--smp must be .* not '-1'/],
    [['rig', '--icount', '--smp', '2', 'true'], /--smp must be .* 1 to 1, not '2'/],
    [['rig', '--smp', '--setup'], /'--smp' argument is ambiguous/],
    [['rig', '--timeout', '1e3', 'true'], /--timeout must be/],
    [['rig', '--modules', 'x', '--kernel', '7.3', 'true'], /--modules goes with --kernel/],
    [['smoke', '--reporter', 'x'], /--reporter must be one of tap, ktap, not 'x'/],
    [['rig', '--memory', 'lots', 'true'], /--memory must be a size/],
    [['rig', '--allow-complaint', '(', 'true'], /--allow-complaint: Invalid regular expression/],
    [['rig', '--setup', 'true'], /--setup takes no command/],
  ] as const) {
    const { status, stdout, stderr } = p2pdma([...args])
    t.equal(status, 2, args.join(' '))
    t.equal(stdout, '')
    t.match(stderr, message)
    t.match(stderr, /usage: p2pdma/)
  }
  const help = p2pdma(['rig', '--help'])
  t.equal(help.status, 0)
  t.match(help.stdout, /--no-default-devices/)
})

t.test('a missing kernel says what to do', async (t) => {
  const cache = join(folder, 'cache')
  const environment = { ...process.env, XDG_CACHE_HOME: cache }
  const { status, stderr } = p2pdma(['rig', 'true'], environment)
  t.equal(status, 125)
  t.match(stderr, /\(ERR_RIG_KERNEL_MISSING\)\nhint: \.\/setup, or: p2pdma rig --setup/)
  t.ok(existsSync(join(cache, 'p2pdma')))
})

t.test('a cache that cannot be had falls back to one that can', async (t) => {
  const file = join(folder, 'no-folder')
  writeFileSync(file, '')
  for (const environment of [
    { XDG_CACHE_HOME: 'relative', HOME: folder },
    { XDG_CACHE_HOME: file, HOME: folder },
    { HOME: folder },
  ]) {
    rmSync(join(folder, '.cache'), { recursive: true, force: true })
    const { stderr } = p2pdma(['rig', '--kernel', '1.0', 'true'], {
      PATH: process.env['PATH'],
      ...environment,
    })
    t.match(stderr, /ERR_RIG_KERNEL_MISSING/)
    t.ok(existsSync(join(folder, '.cache/p2pdma')))
  }
})

t.test('missing tools are named, with what to install', async (t) => {
  // A busybox that is not static would not run in the guest.
  const bin = join(folder, 'bin')
  const probe = `
    import { missingPackages, toolsMissing } from '${join(dist, 'lib/rig/tools.js')}'
    const packages = missingPackages()
    console.log(JSON.stringify({ packages, hint: toolsMissing(['a', 'b']).hint }))`
  const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', probe], {
    encoding: 'utf8',
    env: { PATH: bin },
  })
  const { packages, hint } = JSON.parse(stdout) as { packages: string[]; hint: string }
  t.strictSame(packages, [], 'the standard folders are searched, whatever the PATH')
  t.equal(hint, 'sudo apt-get install --no-install-recommends a b')
})

t.test('bad arguments of runInRig', async (t) => {
  await t.rejects(runInRig([]), { code: 'ERR_OUT_OF_RANGE', argument: 'command' })
  for (const timeout of [-1, 0, NaN, 2 ** 53, 0.5]) {
    await t.rejects(runInRig(['true'], { timeout }), {
      code: 'ERR_OUT_OF_RANGE',
      argument: 'timeout',
    })
  }
  await t.rejects(runInRig(['true'], { smp: 0 }), { code: 'ERR_OUT_OF_RANGE', argument: 'smp' })
  await t.rejects(runInRig(['true'], { icount: true, smp: 2 }), { code: 'ERR_OUT_OF_RANGE' })
  await t.rejects(runInRig(['true'], { folder: '/' }), {
    code: 'ERR_OUT_OF_RANGE',
    argument: 'folder',
  })
  await t.rejects(runInRig(['true'], { memory: 'lots' }), {
    code: 'ERR_OUT_OF_RANGE',
    argument: 'memory',
  })
  await t.rejects(runInRig(['a\0b']), { code: 'ERR_OUT_OF_RANGE', argument: 'command' })
  await t.rejects(runInRig([1 as never]), { code: 'ERR_INVALID_ARG_TYPE', argument: 'command' })
  for (const allowComplaints of ['WARNING', ['WARNING'], /WARNING/]) {
    await t.rejects(runInRig(['true'], { allowComplaints: allowComplaints as never }), {
      code: 'ERR_INVALID_ARG_TYPE',
      argument: 'allowComplaints',
    })
  }
  const reason = new Error('no')
  await t.rejects(runInRig(['true'], { signal: AbortSignal.abort(reason) }), reason)
})

t.test('the root of a chroot need be no mount point', (t) => {
  const inChroot = '42 27 0:39 / /proc rw,relatime - proc proc rw\n'
  t.equal(isMountPoint('/', inChroot), false)
  t.equal(isMountPoint('/', `27 1 254:0 / / rw - ext4 /dev/vda rw\n${inChroot}`), true)
  t.equal(isMountPoint('/proc', inChroot), true)
  t.end()
})
